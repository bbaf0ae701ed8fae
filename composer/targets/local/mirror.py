"""A library on an object store: copies of its LoRAs in a folder of this machine.

A copy is made once, and again when the object's size or ETag is another one. So whatever reads
LoRA files reads these, as it does those of any library. `compose` keeps a copy of the whole
library, and a worker of a cluster copies the LoRAs that it is given.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from composer.errors import TargetError
from composer.files.atomic import replacing, write_atomically
from composer.files.delivery import check_space, free_space
from composer.files.state import SET_HINT
from composer.lora.folder import PICKLE_SUFFIXES, SUFFIX
from composer.lora.peft_files import PEFT_CONFIG
from composer.text import UNSAFE, counted, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from composer.targets.local.objects import Entry, Objects

log = logging.getLogger("composer.targets.local")
LISTED = 10.0  # seconds for which a listing is believed; a server would ask for it all the time
_NOTES = ".objects"  # a folder in that of the copies: of which object each is one, and locks
_INTERVAL = 0.5  # seconds between two attempts to get a lock
_LARGE = 10**9  # bytes, which take a while
_WINDOWS = frozenset(':*?"<>|')


class Mirror:
    """The copies of an object store's LoRAs, in the `folder`. Thread-safe."""

    def __init__(self, objects: Objects, base: Path, *, hint: str = SET_HINT) -> None:
        """`base` is the folder for copies of all object stores; `hint` says how to choose it."""
        self.objects = objects
        self._hint = hint
        name = hashlib.sha256(objects.url.encode()).hexdigest()[:16]
        self.folder = Path(os.path.realpath(base)) / name
        self._lock = threading.Lock()
        self._listed: float | None = None

    def refresh(self) -> None:
        """Copy what is new, and remove the copies of what is gone.

        Raises `TargetError` where the object store can't be read or the folder not be written.
        """
        with self._lock, self._writing():
            if self._listed is not None and time.monotonic() - self._listed < LISTED:
                return
            with self._locked("all", _nothing):
                self._refresh()
            self._listed = time.monotonic()

    def fetch(self, place: str, seen: Callable[[], None]) -> Path:
        """The copy of this LoRA, with the configuration that PEFT saved beside it, as it is now.

        `seen` is called now and then, and may raise to end it. Raises `TargetError`.
        """
        with self._writing():
            for one in (str(PurePosixPath(place).with_name(PEFT_CONFIG)), place):
                if entry := self.objects.entry(one):
                    self._copy(one, entry, seen)
                else:
                    self._path(one).unlink(missing_ok=True)
        return self._path(place)

    def _refresh(self) -> None:
        listed = {place: one for place, one in self.objects.find().items() if _is_used(place)}
        if not listed:
            raise TargetError(
                f"the library {self.objects.url} has no LoRA files",
                hint="check --library or COMPOSE_LIBRARY",
            )
        self._drop(listed)
        missing = {place: one for place, one in listed.items() if not self._has(place, one)}
        size = sum(one.size for place, one in missing.items() if not _is_pickle(place))
        level = logging.WARNING if size >= _LARGE else logging.INFO
        if missing:
            words = counted(len(missing), "file"), size / 1e9, self.objects.url
            log.log(level, "copying %s (%.1f GB) from %s", *words)
            check_space(self.folder, size, free_space, hint=f"free some space, or {self._hint}")
        for place, one in missing.items():
            self._copy(place, one, _nothing)

    def _copy(self, place: str, entry: Entry, seen: Callable[[], None]) -> None:
        path = self._path(place)
        if self._has(place, entry):
            return
        with self._locked(place, seen):
            if self._has(place, entry):  # made by another process meanwhile
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path, mode=0o600) as temporary:
                if not _is_pickle(place):  # never read: the library says so of its name
                    self.objects.download(place, temporary, entry, seen)
                os.utime(temporary, ns=(entry.modified, entry.modified))
            write_atomically(self._note(place), self._text(place, entry).encode())

    def _has(self, place: str, entry: Entry) -> bool:
        """Whether the copy is of this object, and nobody has changed it."""
        try:
            return self._note(place).read_text() == self._text(place, entry)
        except (OSError, UnicodeError):
            return False

    def _text(self, place: str, entry: Entry) -> str:
        status = self._path(place).stat()
        return f"{entry.etag} {entry.size} {status.st_size} {status.st_mtime_ns} {status.st_ino}"

    def _drop(self, places: Collection[str]) -> None:
        """Remove all other copies, and folders that are empty then."""
        for folder, folders, names in os.walk(self.folder, topdown=False):
            at = Path(folder)
            if _NOTES in at.relative_to(self.folder).parts:
                continue
            for path in (at / name for name in names if not name.startswith(".")):
                if path.relative_to(self.folder).as_posix() not in places:
                    path.unlink(missing_ok=True)
            for name in folders:
                with suppress(OSError):  # it is not empty
                    (at / name).rmdir()

    def _path(self, place: str) -> Path:
        return self.folder.joinpath(*place.split("/"))

    def _note(self, place: str) -> Path:
        return self.folder / _NOTES / hashlib.sha256(place.encode()).hexdigest()[:32]

    @contextmanager
    def _locked(self, place: str, seen: Callable[[], None]) -> Iterator[None]:
        """One process at a time makes the copy; the others wait for it."""
        note = self._note(place)
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(note.with_suffix(".lock"))
        while True:
            with suppress(Timeout):
                lock.acquire(timeout=_INTERVAL)
                break
            seen()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TargetError(
                f"the copies of {self.objects.url} can't be kept in {self.folder}:"
                f" {error.strerror or error}",
                hint=self._hint,
            ) from error


def _is_used(place: str) -> bool:
    """Whether a library takes a file of this name. One that can't be a path here is passed over."""
    parts = place.split("/")
    bad = UNSAFE.search(place) or "\\" in place or (sys.platform == "win32" and _WINDOWS & {*place})
    if bad or any(not part or part.startswith(".") for part in parts):
        log.debug("passed over: the object %s", visible(place))
        return False
    return parts[-1] == PEFT_CONFIG or place.lower().endswith(SUFFIX) or _is_pickle(place)


def _is_pickle(place: str) -> bool:
    return PurePosixPath(place).suffix.lower() in PICKLE_SUFFIXES


def _nothing() -> None:
    """What is called where nobody looks."""
