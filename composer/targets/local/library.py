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
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from composer.errors import BadLora, TargetError
from composer.files.repository import is_inside
from composer.lora import families
from composer.lora.container import Source
from composer.lora.deltas import check_finite
from composer.lora.errors import LoraFormatError, Naming
from composer.lora.fingerprint import Fingerprint, Hashes, StatSignature, fingerprint_file
from composer.lora.metadata import plain
from composer.lora.peft_config import peft_config_path
from composer.model import TRAINED, Model
from composer.targets.local.mirror import PICKLE_SUFFIXES, SUFFIX, Mirror
from composer.targets.local.records import iso
from composer.text import visible
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from composer.lora import LoraFile

log = logging.getLogger("composer.targets.local")
_LARGE = 10**9  # bytes, which take seconds to read
# What PEFT and diffusers call every file that they save: the folder has the name.
GENERIC_NAMES = frozenset({"adapter_model", "pytorch_lora_weights"})


@dataclass(frozen=True, slots=True)
class LibraryFile:
    """A file (or a link to one) in a library; one with a `problem` can't be used."""

    place: str  # relative to the library, with `/`
    path: Path  # in a folder without links on the way; it may itself be one
    problem: str | None = None

    @property
    def name(self) -> str:
        """The name of a file without a title: its stem, or its folder's name if that is generic."""
        folder, _, name = self.place.rpartition("/")
        stem = name.rpartition(".")[0]
        return folder.rpartition("/")[2] if folder and stem in GENERIC_NAMES else stem

    @property
    def shown(self) -> str:
        """The place, safe to print."""
        return "".join(c if c.isprintable() else "?" for c in self.place)


def find_files(folder: Path | None) -> list[LibraryFile]:
    """The files of a library in order of their places; none if there is no such folder.

    Hidden files and folders are skipped. Raises `TargetError` if it can't be listed.
    """
    if folder is None:
        return []
    top = Path(os.path.realpath(folder))
    try:
        return sorted(_walk(top, top, ""), key=lambda file: file.place)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TargetError(
            f"the library {folder} can't be read: {error.strerror or error}",
            hint="`--library` takes a folder of LoRA files",
        ) from error


def _walk(folder: Path, top: Path, place: str) -> Iterator[LibraryFile]:
    for name in os.listdir(folder):
        if name.startswith("."):
            continue
        file = LibraryFile(place + name, folder / name)
        if file.path.is_dir():
            yield from _folder(file, top)
        else:
            yield from _file(file, top)


def _folder(file: LibraryFile, top: Path) -> Iterator[LibraryFile]:
    """The files of a folder; a link to a folder of the library is skipped: its files are listed."""
    if os.path.realpath(file.path) == str(file.path):
        try:
            yield from _walk(file.path, top, f"{file.place}/")
        except OSError as error:
            yield _unusable(file, f"can't be read: {error.strerror or error}")
    elif not is_inside(file.path, top):
        yield _unusable(file, "leads outside the library")


def _file(file: LibraryFile, top: Path) -> Iterator[LibraryFile]:
    suffix = os.path.splitext(file.place)[1].lower()
    if suffix in PICKLE_SUFFIXES:
        yield _unusable(
            file, "is a pickle, which can run code when it is read: convert it to safetensors"
        )
    elif suffix == SUFFIX and not is_inside(file.path, top):
        yield _unusable(file, "leads outside the library")
    elif suffix == SUFFIX:
        try:
            peft_config_path(file.path, top)
            yield file
        except LoraFormatError as error:
            yield _unusable(file, str(error))


def _unusable(file: LibraryFile, problem: str) -> LibraryFile:
    return LibraryFile(file.place, file.path, f"{file.shown} {problem}")


# --- the files as models -----------------------------------------------------------------


MAX_NAME = 256  # characters of a LoRA's name


class _Unfit(BadLora):
    """A valid LoRA that the local target can't compose; `title` is from its metadata."""

    def __init__(self, error: BadLora, title: str | None) -> None:
        super().__init__(error.message, hint=error.hint)
        self.title = title


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a file can't be used, and the name that a recipe may use for it."""

    name: str
    reason: str


class Notes(Protocol):
    """Keeps (hashes, type, title) of a file between runs: the store."""

    def get_note(self, path: str, signature: str) -> tuple[str, str, str | None] | None: ...

    def put_note(
        self, path: str, signature: str, sha256: str, type: str, title: str | None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Lora:
    """A LoRA of the library; equal files are one LoRA, the other names its aliases.

    `files` are their places, as `LibraryFile` has them.
    """

    id: str
    name: str
    aliases: tuple[str, ...]
    files: tuple[str, ...]
    type: str
    created_at: str
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class Catalog:
    """The LoRAs of a library by id, and the names of unusable files, each with the reason."""

    loras: Mapping[str, Lora]
    rejected: Mapping[str, str]


class Library:
    """A folder, or the mirror of one, that each `scan` lists again. Thread-safe.

    `clock` gives nanoseconds, as `time.time_ns` does.
    """

    def __init__(
        self,
        place: Path | Mirror | None,
        notes: Notes,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._mirror = place if isinstance(place, Mirror) else None
        self._folder = place.folder if isinstance(place, Mirror) else place
        self._notes = notes
        self._clock = clock
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
            self._last = _catalog((file, self._examine(file)) for file in find_files(self._folder))
            return self._last

    def latest(self) -> Catalog:
        """What the last scan found, or a first one: files may have changed since."""
        return self._last or self.scan()

    def having(self, ids: Collection[str]) -> Mapping[str, Lora]:
        """The LoRAs by id. The folder is listed again only if one of `ids` isn't as it was."""
        loras = self.latest().loras
        known = all(id in loras and loras[id].fingerprint.still_reliable() for id in ids)
        return loras if known else self.scan().loras

    def holds(self, path: Path) -> bool:
        """Whether this is one of the files in the folder, by whatever name."""
        if not path.exists():
            return False
        files = (file.path for file in find_files(self._folder))
        return any(file.exists() and os.path.samefile(file, path) for file in files)

    def _examine(self, file: LibraryFile) -> Fingerprint | _Refusal:
        """The file, or the reason why it can't be used."""
        name = plain(file.name, MAX_NAME) or file.shown
        if file.problem:
            return _Refusal(name, file.problem)
        try:
            return self._fingerprint(file.path)
        except _Unfit as error:
            return _Refusal(plain(error.title or "", MAX_NAME) or name, str(error))
        except BadLora as error:
            return _Refusal(name, str(error))
        except OSError as error:
            return _Refusal(name, f"{file.shown} can't be read: {error.strerror or error}")

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
        noted = self._notes.get_note(_key(path), _note_signature(signature.text))
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
            signature = _note_signature(fingerprint.signature)
            self._notes.put_note(
                _key(path), signature, str(fingerprint.hashes), fingerprint.type, fingerprint.title
            )
        return fingerprint


def _check_fit(file: LoraFile) -> None:
    """Raise `_Unfit` for a LoRA that the format of compositions can't represent, or that has values
    which aren't finite: so a plan knows it, and not only the worker."""
    try:
        file.check_fits(file.family.files.output_format)
        with Naming(file.path), Source(file.path, file.header) as source:
            for adapter in file.adapters:
                for tensor in adapter.tensors:
                    check_finite(source, tensor)
            for norm in file.norms.values():
                check_finite(source, norm)
    except BadLora as error:
        raise _Unfit(error, file.title) from None


def _catalog(outcomes: Iterable[tuple[LibraryFile, Fingerprint | _Refusal]]) -> Catalog:
    copies: dict[str, list[tuple[LibraryFile, Fingerprint]]] = {}
    rejected: dict[str, str] = {}
    for file, outcome in outcomes:
        if isinstance(outcome, Fingerprint):
            copies.setdefault(outcome.hashes.id, []).append((file, outcome))
        else:
            name = outcome.name
            rejected[name] = "; ".join(filter(None, (rejected.get(name), outcome.reason)))
    names = _distinct({id: _names(id, *same[0]) for id, same in copies.items()})
    loras = (_lora(id, same, names[id]) for id, same in copies.items())
    return Catalog({lora.id: lora for lora in loras}, rejected)


def _lora(id: str, copies: list[tuple[LibraryFile, Fingerprint]], own: tuple[str, ...]) -> Lora:
    """One LoRA of equal files: the first gives its `own` names, the others aliases."""
    others = (_names(id, *copy)[0] for copy in copies[1:])
    name, *aliases = dict.fromkeys((*own, *others))
    first, files = copies[0][1], tuple(file.place for file, _ in copies)
    return Lora(id, name, tuple(aliases), files, first.type, iso(first.modified), first)


def _names(id: str, file: LibraryFile, fingerprint: Fingerprint) -> tuple[str, str, str]:
    """The title, the file's own name and its place, as a recipe can write them: normalised, no
    control or bidi characters."""
    name = plain(file.name, MAX_NAME) or id
    place = plain(file.place.rpartition(".")[0], MAX_NAME) or id
    return plain(fingerprint.title or "", MAX_NAME) or name, name, place


def _distinct(choices: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The names of each LoRA: the first choice, or where several have it, the next one before it.

    The choices before are left out where they have become another LoRA's name.
    """
    names = {id: names[:1] for id, names in choices.items()}
    shared = set(names)
    for choice in (1, 2):
        counts = Counter(name for name, *_ in names.values())
        shared = {id for id in shared if counts[names[id][0]] > 1}
        names |= {id: (choices[id][choice], *choices[id][:choice]) for id in shared}
    taken = {name for name, *_ in names.values()}
    return {
        id: (name, *(alias for alias in aliases if alias not in taken))
        for id, (name, *aliases) in names.items()
    }


def _note_signature(text: str) -> str:
    """The signature of a note, which is valid for one version of compose."""
    return f"{text} {__version__}"


def _key(path: Path) -> str:
    """The path as text that SQLite accepts, whatever bytes it has."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


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
