"""The LoRA files below a folder, in order, and those that can't be used, each with the reason.

No file is opened here but PEFT's configuration, to see whether it may be. Nothing outside the
folder is listed, unless the caller allows a link to lead there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import TargetError
from composer.files.repository import is_inside, is_link
from composer.lora.errors import LoraFormatError
from composer.lora.peft_files import peft_config_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SUFFIX = ".safetensors"
PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".bin"})


@dataclass(frozen=True, slots=True)
class LibraryFile:
    """A file (or a link to one) in a library; one with a `problem` can't be used."""

    place: str  # relative to the library, with `/`
    path: Path  # in a folder without links on the way; it may itself be one
    problem: str | None = None

    @property
    def shown(self) -> str:
        """The place, safe to print."""
        return "".join(c if c.isprintable() else "?" for c in self.place)


def find_files(
    folder: Path | None, *, follow: Callable[[Path], bool] | None = None
) -> list[LibraryFile]:
    """The files of a library in order of their places; none if there is no such folder.

    Hidden files and folders are skipped. `follow` says whether a link to a file that leads out of
    the folder may be followed; without it, none is. Raises `TargetError` if it can't be listed.
    """
    if folder is None:
        return []
    top = Path(os.path.realpath(folder))
    try:
        return sorted(_walk(top, _Rules(top, follow), ""), key=lambda file: file.place)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TargetError(
            f"the library {folder} can't be read: {error.strerror or error}",
            hint="name a folder of LoRA files that you can read",
        ) from error


@dataclass(frozen=True, slots=True)
class _Rules:
    """Which links count: those within `top`, and to files those that `follow` allows."""

    top: Path
    follow: Callable[[Path], bool] | None

    def allow(self, file: Path) -> bool:
        """Whether a file counts, whose folder is in `top` and reached through no link."""
        if not is_link(file):
            return True
        return is_inside(file, self.top) or bool(self.follow and self.follow(file))


def _walk(folder: Path, rules: _Rules, place: str) -> Iterator[LibraryFile]:
    for name in os.listdir(folder):
        if name.startswith("."):
            continue
        file = LibraryFile(place + name, folder / name)
        if file.path.is_dir():
            yield from _folder(file, rules)
        else:
            yield from _file(file, rules)


def _folder(file: LibraryFile, rules: _Rules) -> Iterator[LibraryFile]:
    """The files of a folder; a link to a folder of the library is skipped: its files are listed."""
    if os.path.realpath(file.path) == str(file.path):
        try:
            yield from _walk(file.path, rules, f"{file.place}/")
        except OSError as error:
            yield _unusable(file, f"can't be read: {error.strerror or error}")
    elif not is_inside(file.path, rules.top):
        yield _unusable(file, "leads outside the library")


def _file(file: LibraryFile, rules: _Rules) -> Iterator[LibraryFile]:
    suffix = os.path.splitext(file.place)[1].lower()
    if suffix in PICKLE_SUFFIXES:
        yield _unusable(
            file, "is a pickle, which can run code when it is read: convert it to safetensors"
        )
    elif suffix == SUFFIX and not rules.allow(file.path):
        yield _unusable(file, "leads outside the library")
    elif suffix == SUFFIX:
        try:
            peft_config_path(file.path, None if rules.follow else rules.top)
            yield file
        except LoraFormatError as error:
            yield _unusable(file, str(error))


def _unusable(file: LibraryFile, problem: str) -> LibraryFile:
    return LibraryFile(file.place, file.path, f"{file.shown} {problem}")
