"""Finding the files of a library: which there are, where links lead, and what is passed over.

The library reads what is found here. Nothing outside the folder is ever opened, and nothing
in here opens a file at all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import TargetError
from composer.lora.errors import LoraFormatError
from composer.lora.peft_config import peft_config_path

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIX = ".safetensors"
PICKLES = frozenset({".pt", ".pth", ".ckpt", ".bin"})
# What PEFT and diffusers call every file that they save: the folder's name says more.
NAMELESS = frozenset({"adapter_model", "pytorch_lora_weights"})


@dataclass(frozen=True, slots=True)
class Found:
    """A file (or a link to one) in a library; with a `flaw`, it is to be passed over."""

    place: str  # relative to the library, with `/`
    path: Path  # in a folder without links on the way; it may itself be one
    flaw: str | None = None

    @property
    def name(self) -> str:
        """What it is called if it says nothing itself: its own name, else that of its folder."""
        folder, _, name = self.place.rpartition("/")
        stem = name.rpartition(".")[0]
        return folder.rpartition("/")[2] if folder and stem in NAMELESS else stem

    @property
    def shown(self) -> str:
        """The place as a message may show it."""
        return "".join(c if c.isprintable() else "?" for c in self.place)


def find(folder: Path | None) -> list[Found]:
    """The files of a library in order of their places; none if there is no such folder.

    Hidden files and folders are skipped. Raises `TargetError` if it can't be looked into.
    """
    if folder is None:
        return []
    top = Path(os.path.realpath(folder))
    try:
        return sorted(_walk(top, top, ""), key=lambda found: found.place)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TargetError(
            f"the library {folder} can't be read: {error.strerror or error}",
            hint="`--library` takes a folder of LoRA files",
        ) from error


def _walk(folder: Path, top: Path, place: str) -> Iterator[Found]:
    for name in os.listdir(folder):
        if name.startswith("."):
            continue
        found = Found(place + name, folder / name)
        if found.path.is_dir():
            yield from _folder(found, top)
        else:
            yield from _file(found, top)


def _folder(found: Found, top: Path) -> Iterator[Found]:
    """A folder below. A link to one within the library leads where we come by anyway."""
    if _real(found.path) == found.path:
        try:
            yield from _walk(found.path, top, f"{found.place}/")
        except OSError as error:
            yield _flawed(found, f"can't be read: {error.strerror or error}")
    elif not _within(found.path, top):
        yield _flawed(found, "leads outside the library")


def _file(found: Found, top: Path) -> Iterator[Found]:
    suffix = os.path.splitext(found.place)[1].lower()
    if suffix in PICKLES:
        yield _flawed(found, "is a pickle, which can run code when read: convert it to safetensors")
    elif suffix == SUFFIX and not _within(found.path, top):
        yield _flawed(found, "leads outside the library")
    elif suffix == SUFFIX:
        try:
            peft_config_path(found.path, top)
            yield found
        except LoraFormatError as error:
            yield _flawed(found, str(error))


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _within(path: Path, top: Path) -> bool:
    """Whether it lies in the library after resolving links."""
    return _real(path).is_relative_to(top)


def _flawed(found: Found, flaw: str) -> Found:
    return Found(found.place, found.path, f"{found.shown} {flaw}")
