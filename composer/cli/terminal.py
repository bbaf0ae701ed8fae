"""Whether to paint, and progress on stderr: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import codecs
import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, TextIO

import click

from composer.output.style import bar, painted
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from rich.table import Table

    from composer.planner import Step

_ESCAPED = "composer.escaped"  # the name of an error handler of codecs
HEARTBEAT = 30.0  # seconds of silence after which a log shows that we are still there


def prepare_streams() -> None:
    """Make stdout and stderr safe to print to, whatever their encoding, and if they are closed.

    What their encoding lacks (on Windows, a redirected stdout has a code page) is printed as
    `\\u2192`: an escape that JSON allows, too.
    """
    codecs.register_error(_ESCAPED, _escape)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=_ESCAPED)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def colours(stream: TextIO | None) -> bool:
    """FORCE_COLOR says yes, NO_COLOR no; else a terminal that isn't dumb, outside CI."""
    if os.environ.get("NO_COLOR") or stream is None:
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_live(stream)


def is_live(stream: TextIO) -> bool:
    """A terminal on which lines can be drawn again."""
    env = os.environ
    return stream.isatty() and env.get("TERM") != "dumb" and not env.get("CI")


def emit(render: Callable[[bool], str], *, err: bool = False) -> None:
    """Print what `render` gives, told whether to use colours on that stream."""
    color = colours(sys.stderr if err else sys.stdout)
    click.echo(render(color), err=err, nl=False, color=color)


class _Display:
    """A part of the terminal that is drawn again and again while a `with` block runs."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or sys.stderr
        self._last_line = time.monotonic()
        self._live: Any = None  # rich's, on a terminal

    def __enter__(self) -> Self:
        if is_live(self._stream):
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream, highlight=False, markup=False)
            self._live = Live(console=console, transient=True, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()


# Nothing is waited for here: the report at the end tells them, and once is enough.
_ONLY_RESULTS = frozenset({"kept", "left alone", "blocked"})
_FINISHED = "finished"  # of a training, whose result is reported as created, trained, ...


class Progress(_Display):
    """Shows the steps of an apply; `say` may be called by any thread."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._colour = colours(self._stream)
        self._guard = threading.Lock()
        self._steps: dict[str, Step] = {}
        self._since: dict[str, float] = {}

    def say(self, step: Step) -> None:
        if step.state in _ONLY_RESULTS:
            return
        with self._guard:
            before = self._steps.get(step.action.path)
            self._steps[step.action.path] = step
            if before is None or before.state != step.state:
                self._since[step.action.path] = time.monotonic()
                self._line(step)
            elif time.monotonic() - self._last_line > HEARTBEAT:
                self._line(step)
            if self._live is not None:
                self._live.update(self._table())

    def _line(self, step: Step) -> None:
        self._last_line = time.monotonic()
        if self._live is not None:
            return
        share = f" {step.progress:.0%}" if step.progress and step.state == "training" else ""
        id = f"  {step.id}" if step.id else ""
        state = _FINISHED if step.state == "trained" else step.state
        line = f"{state}{share}  {visible(step.action.name)}{id}"
        colour = "red" if step.state == "failed" else "dim"
        text = painted(line, colour, color=self._colour)
        click.echo(text, file=self._stream, color=self._colour)

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False)
        for path, step in self._steps.items():
            done = 1.0 if step.state in ("trained", "adopted") else step.progress or 0.0
            elapsed = time.monotonic() - self._since[path]
            left = step.remaining
            if left is None and 0.05 < done < 1:
                left = elapsed * (1 - done) / done
            table.add_row(
                Text(visible(step.action.name)),
                str(step.action.shown),
                step.state,
                bar(done),
                f"{left:.0f}s left" if left is not None and done < 1 else "",
            )
        return table


class Meter(_Display):
    """Shows how far one piece of work is: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, what: str, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._what = what
        self._began = self._last_line

    def say(self, share: float) -> None:
        """That this share of the work, 0..1, is done."""
        if self._live is not None:
            self._live.update(f"{self._what} {bar(share)} {share:4.0%}{self._left(share)}")
        elif time.monotonic() - self._last_line > HEARTBEAT:
            self._last_line = time.monotonic()
            click.echo(f"{self._what} {share:.0%}{self._left(share)}", file=self._stream)

    def _left(self, share: float) -> str:
        if not 0.05 < share < 1:
            return ""
        elapsed = time.monotonic() - self._began
        return f" {elapsed * (1 - share) / share:.0f}s left"
