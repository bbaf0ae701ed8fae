"""The library: a folder of LoRA files, each a model whose id is derived from its bytes.

The service lists it and looks names and ids up in it, the worker composes from it. Nothing outside
the folder is ever opened. A library in an object store is the folder of its mirror. A file with the
same signature as last time is not read again: a header takes tens of milliseconds and a hash
seconds, so the store keeps what they say, for this version of compose.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from composer.errors import BadLora
from composer.lora import families
from composer.lora.errors import LoraFormatError
from composer.lora.fingerprint import (
    Fingerprint,
    check_composable,
    fingerprint_file,
)
from composer.lora.folder import find_files
from composer.lora.metadata import is_result
from composer.lora.naming import MAX_NAME, Names, copies_order, name_all, plain, stem_of
from composer.lora.opening import read_metadata
from composer.lora.signature import Hashes, StatSignature
from composer.model import TRAINED, Model
from composer.targets.local.mirror import Mirror
from composer.targets.local.notes import note_key, note_signature
from composer.targets.local.records import iso
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from composer.lora import LoraFile
    from composer.lora.folder import LibraryFile

log = logging.getLogger("composer.targets.local")
_LARGE = 10**9  # bytes, which take seconds to read


class _Unfit(BadLora):
    """A valid LoRA that the local target can't compose; `title` is from its metadata."""

    def __init__(self, error: BadLora, title: str | None) -> None:
        super().__init__(error.message, hint=error.hint)
        self.title = title


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a file can't be used, and the names that a recipe may use for it."""

    names: tuple[str, ...]
    reason: str


class Notes(Protocol):
    """Keeps (hashes, type, title) of a file between runs: the store."""

    def get_note(self, path: str, signature: str) -> tuple[str, str, str | None] | None: ...

    def put_note(
        self, path: str, signature: str, sha256: str, type: str, title: str | None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA of the library: its own name, the others that recipes may use, and its equal files,
    by their places in the library."""

    id: str
    name: str
    aliases: tuple[str, ...]
    files: tuple[str, ...]
    type: str
    created_at: str
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class Catalog:
    """The LoRAs of a library by id, and the names of unusable files, each with the reason; one with
    a title has two names."""

    loras: Mapping[str, Lora]
    rejected: Mapping[str, str]


class Library:
    """A folder, or the mirror of one, that each `scan` lists again. Thread-safe.

    `clock` gives nanoseconds, as `time.time_ns` does. `scanning` is told how much of the folder was
    looked through, 0..1, the first time.
    """

    def __init__(
        self,
        place: Path | Mirror | None,
        notes: Notes,
        *,
        clock: Callable[[], int] = time.time_ns,
        scanning: Callable[[float], None] = lambda share: None,
    ) -> None:
        self._mirror = place if isinstance(place, Mirror) else None
        self.url = place.objects.url if isinstance(place, Mirror) else ""
        self._folder = place.folder if isinstance(place, Mirror) else place
        self._notes = notes
        self._clock = clock
        self._scanning = scanning
        self._lock = threading.Lock()
        self._fingerprints: dict[Path, Fingerprint] = {}
        self._last: Catalog | None = None

    def scan(self) -> Catalog:
        """The folder's content now; empty if there is no folder.

        Raises `TargetError` if the folder itself can't be read; a bad file is only `rejected`.
        """
        with self._lock:
            if self._mirror:
                self._mirror.refresh()
            files = self._told(find_files(self._folder))
            self._last = _catalog((file, self._examine(file)) for file in files)
            return self._last

    def _told(self, files: Sequence[LibraryFile]) -> Iterator[LibraryFile]:
        """These files; the first time, whoever opened the library is told how far it is, by size:
        a file that no run has seen yet is read as a whole."""
        sizes = [file.path.stat().st_size if file.path.is_file() else 0 for file in files]
        total, done = sum(sizes), 0
        is_first = self._last is None and total > 0
        try:
            for file, size in zip(files, sizes, strict=True):
                if is_first:
                    self._scanning(done / total)
                yield file
                done += size
        finally:
            if is_first:
                self._scanning(1.0)

    def latest(self) -> Catalog:
        """What the last scan found, or a first one: files may have changed since."""
        return self._last or self.scan()

    def having(self, ids: Collection[str]) -> Mapping[str, Lora]:
        """The LoRAs by id. The folder is listed again only if one of `ids` isn't as it was."""
        loras = self.latest().loras
        known = all(id in loras and loras[id].fingerprint.still_reliable() for id in ids)
        return loras if known else self.scan().loras

    def holds(self, path: Path) -> bool:
        """Whether this is one of the files in the folder, by whatever name.

        What compose made of a recipe's LoRAs, and was pulled into the folder, is none of them.
        """
        if not path.exists():
            return False
        files = (file.path for file in find_files(self._folder))
        found = any(file.exists() and os.path.samefile(file, path) for file in files)
        return found and not _is_result(path)

    def _examine(self, file: LibraryFile) -> Fingerprint | _Refusal:
        """The file, or the reason why it can't be used."""
        name = plain(stem_of(file.place), MAX_NAME) or file.shown
        if file.problem:
            return _Refusal((name,), file.problem)
        try:
            return self._fingerprint(file.path)
        except _Unfit as error:
            title = plain(error.title or "", MAX_NAME) or name
            return _Refusal(tuple(dict.fromkeys((title, name))), str(error))
        except BadLora as error:
            return _Refusal((name,), str(error))
        except OSError as error:
            return _Refusal((name,), f"{file.shown} can't be read: {error.strerror or error}")

    def _fingerprint(self, path: Path) -> Fingerprint:
        signature = StatSignature.of(path, self._folder)
        earlier = self._fingerprints.get(path)
        if earlier is not None and earlier.signature == signature.text:
            return earlier
        fingerprint = self._noted(path, signature) or self._read(path)
        if fingerprint.reliable:
            self._fingerprints[path] = fingerprint
        return fingerprint

    def _noted(self, path: Path, signature: StatSignature) -> Fingerprint | None:
        """What an earlier run noted, if the file is still the same."""
        noted = self._notes.get_note(note_key(path), note_signature(signature.text))
        if noted is None:
            return None
        text, type, title = noted
        hashes = Hashes.noted(text)
        if hashes is None or type not in families.lora_types():
            return None
        return Fingerprint(
            path, signature.text, True, hashes, type, title, signature.modified, self._folder
        )

    def _read(self, path: Path) -> Fingerprint:
        size = path.stat().st_size
        if size >= _LARGE:
            log.warning("reading the LoRA file %s (%.1f GB)", visible(path.name), size / 1e9)
        fingerprint = fingerprint_file(path, root=self._folder, clock=self._clock, check=_check_fit)
        if fingerprint.reliable:
            signature = note_signature(fingerprint.signature)
            self._notes.put_note(
                note_key(path),
                signature,
                str(fingerprint.hashes),
                fingerprint.type,
                fingerprint.title,
            )
        return fingerprint


def _is_result(path: Path) -> bool:
    try:
        return is_result(read_metadata(path))
    except LoraFormatError:
        return False


def _check_fit(file: LoraFile) -> None:
    """Raise `_Unfit` for a LoRA that can't be composed: so a plan knows it, and not only the
    worker."""
    try:
        check_composable(file)
    except BadLora as error:
        raise _Unfit(error, file.title) from None


def _catalog(outcomes: Iterable[tuple[LibraryFile, Fingerprint | _Refusal]]) -> Catalog:
    copies: dict[str, list[tuple[LibraryFile, Fingerprint]]] = {}
    rejected: dict[str, str] = {}
    for file, outcome in outcomes:
        if isinstance(outcome, Fingerprint):
            copies.setdefault(outcome.hashes.id, []).append((file, outcome))
            continue
        for name in outcome.names:
            rejected[name] = "; ".join(filter(None, (rejected.get(name), outcome.reason)))
    for same in copies.values():
        same.sort(key=lambda copy: copies_order(copy[0].place))
    named = name_all({id: _names(id, same) for id, same in copies.items()})
    return Catalog({id: _lora(id, same, named[id]) for id, same in copies.items()}, rejected)


def _names(id: str, copies: list[tuple[LibraryFile, Fingerprint]]) -> Names:
    return Names.of(copies[0][1].title, [file.place for file, _ in copies], id)


def _lora(id: str, copies: list[tuple[LibraryFile, Fingerprint]], names: tuple[str, ...]) -> Lora:
    """One LoRA of equal files, which is composed from the first."""
    name, *aliases = names
    files, first = tuple(file.place for file, _ in copies), copies[0][1]
    return Lora(id, name, tuple(aliases), files, first.type, iso(first.modified), first)


def lora_model(lora: Lora) -> Model:
    """A LoRA of the library."""
    return Model(
        id=lora.id,
        type=lora.type,
        name=lora.name,
        status=TRAINED,
        created_at=lora.created_at,
        tags=frozenset(),
        aliases=lora.aliases,
        files=lora.files,
    )
