"""Ctrl-C, SIGTERM and a closed terminal: what they do to a command."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from composer.errors import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SIGNALLED = 128  # the exit status is this and the signal's number


@contextmanager
def on_signals(handle: Callable[[int], None], *numbers: int) -> Iterator[None]:
    """Call `handle` with the number of each of these signals; then restore what was there."""

    def handler(number: int, frame: FrameType | None) -> None:
        handle(number)

    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


class Interruption:
    """Whether a signal asked the command to stop; `event` is set by the first one."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self._number = 0

    def status(self, otherwise: int) -> int:
        """The exit status: the signal's if there was one."""
        return SIGNALLED + self._number if self._number else otherwise

    def sleep(self, seconds: float) -> None:
        """Sleep, but raise `Stopped` as soon as a signal comes."""
        if self.event.wait(seconds):
            raise Stopped

    def handle(self, number: int) -> None:
        if self.event.is_set():
            os._exit(SIGNALLED + number)
        self._number = number
        self.event.set()
        _tell("stopping; once more to leave at once")


def _tell(text: str) -> None:
    """Print to stderr within a handler, which may have interrupted another print to stderr."""
    try:
        click.echo(text, err=True)
    except RuntimeError:  # a stream takes no second write from the same thread meanwhile
        os.write(sys.stderr.fileno(), f"{text}\n".encode())


def leave_at_second_signal() -> None:
    """From now on a second Ctrl-C or SIGTERM ends the process at once, wherever it is.

    Python calls a handler only between two steps of the main thread, which may be in a system call
    that doesn't return, or waiting for another thread. The wakeup descriptor is written at once.
    """
    told, tell = os.pipe()
    if os.name != "nt":  # there it need not be, and can't be set
        os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    threading.Thread(target=_leave_at_second, args=(told,), daemon=True).start()


def _leave_at_second(told: int) -> None:
    seen = 0
    while number := os.read(told, 1):
        seen += number[0] in (signal.SIGINT, signal.SIGTERM)
        if seen == 2:
            os._exit(SIGNALLED + number[0])


@contextmanager
def graceful() -> Iterator[Interruption]:
    """The first Ctrl-C or SIGTERM: start nothing new. A second: leave at once."""
    interruption = Interruption()
    with on_signals(interruption.handle, signal.SIGINT, signal.SIGTERM):
        yield interruption


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM and a closed terminal end the work as Ctrl-C does, so that no temporary file is
    left. A signal that `nohup` made ignored stays ignored.
    """

    def leave(number: int) -> None:
        raise SystemExit(SIGNALLED + number)

    ends = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    with on_signals(leave, *(n for n in ends if signal.getsignal(n) != signal.SIG_IGN)):
        yield


@contextmanager
def until_signalled(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on Ctrl-C and SIGTERM, which is how a server ends well."""
    with on_signals(lambda number: stop(), signal.SIGINT, signal.SIGTERM):
        yield
