"""The library: a folder of LoRA files, each a model whose id is derived from its bytes.

The service lists it and looks names and ids up in it, the worker composes from it. What has the
stamp of last time isn't read again. A header takes tens of milliseconds and a hash seconds, so
what they say is noted in the store, for this version of compose.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from composer.errors import BadLora
from composer.lora import families
from composer.lora.fingerprint import Fingerprint, Hashes, StatSignature, fingerprint_file
from composer.lora.metadata import plain
from composer.targets.local.library_files import find
from composer.targets.local.times import iso
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from composer.lora import LoraFile
    from composer.targets.local.library_files import Found

LONGEST = 256  # characters of a LoRA's name


class _Unfit(BadLora):
    """A sound LoRA that the engine can't compose; `title` is the name that it gives itself."""

    def __init__(self, error: BadLora, title: str | None) -> None:
        super().__init__(error.message, hint=error.hint)
        self.title = title


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a file can't be used, and the name by which a recipe may mean it."""

    name: str
    reason: str


class Notes(Protocol):
    """Where it is kept between runs what a file held, as (hashes, type, title): the store."""

    def get_note(self, path: str, stamp: str) -> tuple[str, str, str | None] | None: ...

    def put_note(
        self, path: str, stamp: str, sha256: str, type: str, title: str | None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA of the library; equal files are one, and their other names its aliases."""

    id: str
    name: str
    aliases: tuple[str, ...]
    type: str
    created_at: str
    fingerprint: Fingerprint


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
        self._known: dict[Path, Fingerprint] = {}

    def scan(self) -> Catalog:
        """What is in the folder now; empty if there is no folder.

        Raises `TargetError` if the folder itself can't be read; a bad file is only `rejected`.
        """
        with self._lock:
            return _catalog((found, self._judge(found)) for found in find(self._folder))

    def holds(self, path: Path) -> bool:
        """Whether this is one of the files in the folder, by whatever name."""
        if not path.exists():
            return False
        files = (found.path for found in find(self._folder))
        return any(file.exists() and os.path.samefile(file, path) for file in files)

    def _judge(self, found: Found) -> Fingerprint | _Refusal:
        """The file, or the reason why it can't be used."""
        name = plain(found.name, LONGEST) or found.shown
        if found.flaw:
            return _Refusal(name, found.flaw)
        try:
            return self._known_or_read(found.path)
        except _Unfit as error:
            return _Refusal(plain(error.title or "", LONGEST) or name, str(error))
        except BadLora as error:
            return _Refusal(name, str(error))
        except OSError as error:
            return _Refusal(name, f"{found.shown} can't be read: {error.strerror or error}")

    def _known_or_read(self, path: Path) -> Fingerprint:
        stamp = StatSignature.of(path, self._folder)
        known = self._known.get(path)
        if known is not None and known.signature == stamp.text:
            return known
        fingerprint = self._noted(path, stamp) or self._read(path)
        if fingerprint.settled:
            self._known[path] = fingerprint
        return fingerprint

    def _noted(self, path: Path, stamp: StatSignature) -> Fingerprint | None:
        """The file as an earlier run found it."""
        noted = self._notes.get_note(_key(path), _stamp(stamp.text))
        if noted is None:
            return None
        text, type, title = noted
        hashes = Hashes.noted(text)
        if hashes is None or type not in families.lora_types():
            return None
        return Fingerprint(
            path, stamp.text, True, hashes, type, title, stamp.modified, self._folder
        )

    def _read(self, path: Path) -> Fingerprint:
        fingerprint = fingerprint_file(path, root=self._folder, clock=self._clock, check=_check_fit)
        if fingerprint.settled:
            stamp = _stamp(fingerprint.signature)
            self._notes.put_note(
                _key(path), stamp, str(fingerprint.hashes), fingerprint.type, fingerprint.title
            )
        return fingerprint


def _check_fit(file: LoraFile) -> None:
    """The format of compositions can't hold all that a LoRA may have."""
    try:
        file.check_fits(file.family.files.output_format)
    except BadLora as error:
        raise _Unfit(error, file.title) from None


def _catalog(outcomes: Iterable[tuple[Found, Fingerprint | _Refusal]]) -> Catalog:
    copies: dict[str, list[tuple[Found, Fingerprint]]] = {}
    rejected: dict[str, str] = {}
    for found, outcome in outcomes:
        if isinstance(outcome, Fingerprint):
            copies.setdefault(outcome.hashes.id, []).append((found, outcome))
        else:
            name = outcome.name
            rejected[name] = "; ".join(filter(None, (rejected.get(name), outcome.reason)))
    return Catalog({id: _lora(id, same) for id, same in copies.items()}, rejected)


def _lora(id: str, copies: list[tuple[Found, Fingerprint]]) -> Lora:
    """One LoRA of equal files: the first gives the name, the others aliases."""
    names = [_name(found, fingerprint) or id for found, fingerprint in copies]
    first = copies[0][1]
    aliases = tuple(name for name in dict.fromkeys(names) if name != names[0])
    return Lora(id, names[0], aliases, first.type, iso(first.modified), first)


def _name(found: Found, fingerprint: Fingerprint) -> str:
    """As a recipe can write it: composed characters, no control or bidi ones, no runs of spaces."""
    return plain(fingerprint.title or "", LONGEST) or plain(found.name, LONGEST)


def _stamp(text: str) -> str:
    """What a note goes by: it holds for one version of compose."""
    return f"{text} {__version__}"


def _key(path: Path) -> str:
    """The path as text that SQLite takes, whatever bytes a file's name has."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
