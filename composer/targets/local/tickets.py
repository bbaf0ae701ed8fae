"""Tickets: each stands for one attempt at a task, while somebody wants its result.

The engine opens it, asks it for the progress, gets the result through it, and closes it. Who
carries the task out reports to it, writes the result where it says, and stops once it is gone. It
is a file in a folder that both see, or an object in a store that both reach.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import ComposeError
from composer.files.atomic import create, no_link
from composer.targets.local.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEMPORARY = ".compose.tmp"  # how the names of the files end that `files.atomic` makes
RESULTS_FOLDER = ".compose-results"  # a folder of a library in an object store


class NotWanted(Exception):
    """There is no ticket: the task was canceled, or whoever wanted it is gone."""


@dataclass(frozen=True, slots=True)
class Result:
    """The file that was written, by its name, and what it must be when it arrives."""

    name: str
    size: int
    sha256: str


class Ticket(ABC):
    """Its methods are called on both sides: a copy is sent along with the task."""

    interval: float  # seconds between two reports

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it lies, in words."""

    # --- in the engine

    @abstractmethod
    def open(self) -> None:
        """From now on the result is wanted."""

    @abstractmethod
    def close(self) -> None:
        """It is no longer wanted; what was written for it goes."""

    @abstractmethod
    def progress(self) -> float:
        """What was reported last, 0..1; 0 if that can't be found out."""

    @abstractmethod
    def receive(self, result: Result, beside: Path, seen: Callable[[], None]) -> Path:
        """The result's file, in the folder of `beside`, on whose disk it must be in the end.

        `seen` is called now and then, and may raise. Raises `FileNotFoundError` if it isn't there.
        """

    # --- on the worker

    @abstractmethod
    def report(self, share: float) -> None:
        """Say how far the task is. Raises `NotWanted`."""

    @abstractmethod
    def output(self) -> Path:
        """A new, empty file to write the result to."""

    @abstractmethod
    def deliver(self, out: Path, seen: Callable[[], None]) -> Result:
        """Bring this file, which is complete, to where the engine looks for it.

        `seen` is called now and then, and may raise. Raises `NotWanted`.
        """


@contextmanager
def opened(ticket: Ticket) -> Iterator[Ticket]:
    """The ticket, which is gone at the end, as is what its workers wrote."""
    ticket.open()
    try:
        yield ticket
    finally:
        ticket.close()


# --- in a shared folder ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileTicket(Ticket):
    """A file of the state folder; results are files beside it."""

    path: Path
    interval = 0.2

    @property
    def place(self) -> str:
        return "the state folder"

    def open(self) -> None:
        os.close(create(self.path))

    def close(self) -> None:
        beside = f"{self.path.name.removesuffix(TEMPORARY)}?*"
        for file in [self.path, *self.path.parent.glob(beside)]:
            with suppress(OSError):  # swept later
                file.unlink()

    def progress(self) -> float:
        with suppress(ValueError, OSError):
            return float(self.path.read_bytes()[:8])
        return 0.0

    def receive(self, result: Result, beside: Path, seen: Callable[[], None]) -> Path:
        return beside.with_name(result.name)

    def report(self, share: float) -> None:
        try:
            with open(self.path, "r+b", buffering=0, opener=no_link) as file:
                file.write(f"{share:.6f}".encode())
        except FileNotFoundError:
            raise NotWanted(f"{socket.gethostname()} does not see {self.path}") from None

    def output(self) -> Path:
        out = temporary_beside(self.path)
        os.close(create(out))
        return out

    def deliver(self, out: Path, seen: Callable[[], None]) -> Result:
        result = Result(out.name, out.stat().st_size, digest(out))
        self.report(1.0)
        return result


# --- in an object store ------------------------------------------------------------------


@dataclass(slots=True)
class ObjectTicket(Ticket):
    """An object of the folder `url`; the progress and results are objects whose names begin as its.

    It holds no path, since the worker's system may have other ones.
    """

    url: str
    name: str
    interval: float
    _asked: float = 0.0
    _last: float = 0.0

    @property
    def place(self) -> str:
        return self.url

    @property
    def _objects(self) -> Objects:
        return objects_at(self.url)

    def open(self) -> None:
        self._objects.write(self.name, b"")

    def close(self) -> None:
        remove_tickets(self.url, [self.name])

    def progress(self) -> float:
        if time.monotonic() - self._asked >= self.interval:
            self._asked = time.monotonic()
            with suppress(ValueError, ComposeError):
                self._last = float(self._objects.read(f"{self.name}.progress") or 0)
        return self._last

    def receive(self, result: Result, beside: Path, seen: Callable[[], None]) -> Path:
        path = temporary_beside(beside)
        os.close(create(path))
        try:
            self._objects.download(result.name, path, None, seen)
        except BaseException:
            path.unlink()
            raise
        return path

    def report(self, share: float) -> None:
        if self._objects.entry(self.name) is None:
            self._objects.remove(self.name)  # what was written since it was closed
            raise NotWanted(f"{socket.gethostname()} does not see the ticket in {self.url}")
        self._objects.write(f"{self.name}.progress", f"{share:.6f}".encode())

    def output(self) -> Path:
        handle, path = tempfile.mkstemp(TEMPORARY, ".compose.", scratch())
        os.close(handle)
        return Path(path)

    def deliver(self, out: Path, seen: Callable[[], None]) -> Result:
        result = Result(f"{self.name}.{secrets.token_hex(8)}", out.stat().st_size, digest(out))
        self._objects.upload(out, result.name, seen)
        if self._objects.entry(self.name) is None:  # closed meanwhile: nobody removes it later
            self._objects.remove(self.name)
            raise NotWanted(f"{socket.gethostname()} no longer sees the ticket in {self.url}")
        out.unlink()
        return result


def remove_tickets(url: str, names: list[str]) -> None:
    """Remove these tickets of a folder in an object store, and all that belongs to them."""
    for name in names:
        with suppress(ComposeError):  # it does no harm
            objects_at(url).remove(name)


@lru_cache(maxsize=16)
def objects_at(url: str) -> Objects:
    """The folder, whose connections are kept. Raises `UsageError` without s3fs."""
    return Objects(url)


def scratch() -> Path:
    """A folder for temporary files: that of the Dask worker that runs this task, if it is one."""
    if dask := sys.modules.get("distributed"):
        with suppress(ValueError):  # this is none of its tasks
            return Path(dask.get_worker().local_directory)
    return Path(tempfile.gettempdir())


# --- files -------------------------------------------------------------------------------


def temporary_beside(file: Path) -> Path:
    """A new name for a temporary file, which begins as that of this temporary file does."""
    return file.with_name(f"{file.name.removesuffix(TEMPORARY)}{secrets.token_hex(8)}{TEMPORARY}")


def digest(path: Path) -> str:
    """Its SHA-256. Raises `OSError`, also for a link."""
    with open(path, "rb", opener=no_link) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
