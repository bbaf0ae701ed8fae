"""The library: a folder of LoRA files, each a model whose id is derived from its bytes.

The service lists it and looks names and ids up in it, the worker composes from it. Files are
watched by their stamp (size, times, inode): what has the stamp of last time isn't read again.
A header takes tens of milliseconds and a hash seconds, so what they say is noted in the store,
for this version of compose.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from composer import __version__
from composer.engine import lora
from composer.engine.files import find
from composer.engine.ids import lora_id
from composer.engine.times import iso
from composer.errors import BadLora

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from composer.engine.files import Found

RACY = 2_000_000_000  # nanoseconds; the coarsest clock of a file system (FAT) ticks this slowly
LONGEST = 256  # characters of a LoRA's name


class Notes(Protocol):
    """Where it is kept between runs what a file held, as (sha256, title): the store."""

    def get_note(self, path: str, stamp: str) -> tuple[str, str | None] | None: ...

    def put_note(self, path: str, stamp: str, sha256: str, title: str | None) -> None: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """What one file held when it was read.

    `settled`: its last change was so long ago that any later one must show in its stamp.
    """

    path: Path  # after resolving links
    stamp: str
    settled: bool
    sha256: str  # hex
    title: str | None
    modified: int  # milliseconds since 1970


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA of the library; equal files are one, and their other names its aliases."""

    id: str
    name: str
    aliases: tuple[str, ...]
    created_at: str
    reading: Reading


@dataclass(frozen=True, slots=True)
class Catalog:
    """The LoRAs of a library by id, and the names of what can't be used, each with the reason."""

    loras: Mapping[str, Lora]
    rejected: Mapping[str, str]


class Library:
    """A folder that is looked at anew by every `scan`; safe between threads.

    `clock` gives nanoseconds, as `time.time_ns` does.
    """

    def __init__(
        self, folder: Path | None, notes: Notes, *, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._folder = folder
        self._notes = notes
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[str, Reading | str]] = {}  # stamp, and what came of it

    def scan(self) -> Catalog:
        """What is in the folder now; empty if there is no folder.

        Raises `TargetError` if the folder itself can't be read; a bad file is only `rejected`.
        """
        with self._lock:
            return _catalog((found, self._judge(found)) for found in find(self._folder))

    def unchanged(self, reading: Reading) -> bool:
        """Whether the file still is the one that was hashed, now that its tensors were read."""
        try:
            if _stamp(reading.path.stat()) != reading.stamp:
                return False
            return reading.settled or _sha256(reading.path) == reading.sha256
        except OSError:
            return False

    def _judge(self, found: Found) -> Reading | str:
        """The file, or the reason why it can't be used."""
        if found.flaw:
            return found.flaw
        try:
            status = found.path.stat()
            if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait forever
                return f"{found.shown} is not a regular file"
            return self._known_or_read(found, status)
        except BadLora as error:
            return str(error)
        except OSError as error:
            return f"{found.shown} can't be read: {error.strerror or error}"

    def _known_or_read(self, found: Found, status: os.stat_result) -> Reading | str:
        stamp = _stamp(status)
        known = self._known.get(found.path)
        if known is not None and known[0] == stamp:
            return known[1]
        settled = self._clock() - max(status.st_mtime_ns, status.st_ctime_ns) >= RACY
        outcome = self._read(found, status, settled=settled)
        if settled:
            self._known[found.path] = (stamp, outcome)
        return outcome

    def _read(self, found: Found, status: os.stat_result, *, settled: bool) -> Reading | str:
        stamp, key = _stamp(status), _key(found.path)
        modified = status.st_mtime_ns // 1_000_000
        noted = self._notes.get_note(key, f"{stamp} {__version__}")
        if noted and _is_sha256(noted[0]):
            return Reading(found.path, stamp, True, *noted, modified)
        title = lora.read(found.path).title
        sha256 = _sha256(found.path)
        if not settled:  # the title must not be older than the hash
            title = lora.read(found.path).title
        if _stamp(found.path.stat()) != stamp:
            return f"{found.shown} changed while it was read: is it still being copied?"
        if settled:
            self._notes.put_note(key, f"{stamp} {__version__}", sha256, title)
        return Reading(found.path, stamp, settled, sha256, title, modified)


def _catalog(outcomes: Iterable[tuple[Found, Reading | str]]) -> Catalog:
    copies: dict[str, list[tuple[Found, Reading]]] = {}
    rejected: dict[str, str] = {}
    for found, outcome in outcomes:
        if isinstance(outcome, Reading):
            copies.setdefault(outcome.sha256, []).append((found, outcome))
        else:
            name = _plain(found.stem) or found.shown
            rejected[name] = "; ".join(filter(None, (rejected.get(name), outcome)))
    models = [_lora(sha256, same) for sha256, same in copies.items()]
    return Catalog({model.id: model for model in models}, rejected)


def _lora(sha256: str, copies: list[tuple[Found, Reading]]) -> Lora:
    """One LoRA of equal files: the first gives the name, the others aliases."""
    id = lora_id(bytes.fromhex(sha256))
    names = [_plain(reading.title or "") or _plain(found.stem) or id for found, reading in copies]
    first = copies[0][1]
    aliases = tuple(name for name in dict.fromkeys(names) if name != names[0])
    return Lora(id, names[0], aliases, iso(first.modified), first)


def _plain(text: str) -> str:
    """A name as a recipe can write it: composed characters, no control or bidi ones, no runs of
    spaces."""
    words = unicodedata.normalize("NFC", text).split()
    return "".join(c for c in " ".join(words) if c.isprintable())[:LONGEST].strip()


def _stamp(status: os.stat_result) -> str:
    """Size, times and inode as text: an inode may be too large for a column of SQLite."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _key(path: Path) -> str:
    """The path as text that SQLite takes, whatever bytes a file's name has."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
