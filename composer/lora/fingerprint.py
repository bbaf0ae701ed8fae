"""What a LoRA file held when it was read, and whether it is still the same.

The library, lists of files and `merging` read files through here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.errors import BadLora
from composer.lora.container import Source
from composer.lora.deltas import check_finite
from composer.lora.errors import Naming
from composer.lora.hashing import sha256_of
from composer.lora.reading import read
from composer.lora.signature import Hashes, StatSignature
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from composer.lora.reading import LoraFile


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What one file held when it was read.

    `reliable`: its last change was so long ago that any later one must show in its signature.
    `root`: the folder that a configuration beside the file must lie in, if it is a link. With
    `skip_text_encoder` it is read without its parts for text encoders.
    """

    path: Path
    signature: str
    reliable: bool
    hashes: Hashes
    type: str  # the LoRA's, by its family
    title: str | None
    modified: int  # milliseconds since 1970
    root: Path | None = None
    skip_text_encoder: bool = False

    def read(self) -> LoraFile:
        """The file itself. Raises `BadLora`."""
        return read(self.path, root=self.root, skip_text_encoder=self.skip_text_encoder)

    def check_unchanged(self) -> None:
        """Raise `BadLora` unless the file, whose tensors were read by now, is the same."""
        if not self.unchanged():
            raise BadLora(
                f"{visible(self.path.name)} changed while it was read",
                hint="run the same command again once it no longer changes",
            )

    def still_reliable(self) -> bool:
        """Whether the file's signature alone shows that it still is the one that was hashed."""
        return self.reliable and self.unchanged()

    def unchanged(self) -> bool:
        """Whether the file still is the one that was hashed."""
        try:
            if StatSignature.of(self.path, self.root).text != self.signature:
                return False
            return self.reliable or Hashes.of(self.path, self.root) == self.hashes
        except (OSError, BadLora):
            return False


@dataclass(frozen=True, slots=True)
class Part:
    """A LoRA in a composition: its file, as it was hashed and as it was read, and its scale."""

    fingerprint: Fingerprint
    file: LoraFile
    scale: float

    @property
    def id(self) -> str:
        return self.fingerprint.hashes.id


def fingerprint_file(
    path: Path,
    *,
    root: Path | None = None,
    clock: Callable[[], int] = time.time_ns,
    check: Callable[[LoraFile], None] = lambda file: None,
    skip_text_encoder: bool = False,
) -> Fingerprint:
    """As `read_hashed`, for those who need the file later or not at all."""
    return read_hashed(
        path, root=root, clock=clock, check=check, skip_text_encoder=skip_text_encoder
    )[0]


def read_hashed(
    path: Path,
    *,
    root: Path | None = None,
    clock: Callable[[], int] = time.time_ns,
    check: Callable[[LoraFile], None] = lambda file: None,
    skip_text_encoder: bool = False,
    hash: Callable[[Path], str] = sha256_of,
) -> tuple[Fingerprint, LoraFile]:
    """Read and hash the file, unless `check` raises something of what was read.

    Raises `BadLora` if it can't be used, or changes meanwhile, and `OSError`. `clock` gives
    nanoseconds, as `time.time_ns` does, `hash` the sha256 of a file; for the other options see
    `read`.
    """
    before = StatSignature.of(path, root)
    reliable = before.reliable(clock)
    file = read(path, root=root, skip_text_encoder=skip_text_encoder)
    check(file)
    hashes = Hashes.of(path, root, hash)
    if not reliable:  # what was read must not be older than the hash
        file = read(path, root=root, skip_text_encoder=skip_text_encoder)
    if StatSignature.of(path, root).text != before.text:
        raise BadLora(
            f"{visible(path.name)} changed while it was read", hint="is it still being copied?"
        )
    fingerprint = Fingerprint(
        path,
        before.text,
        reliable,
        hashes,
        file.family.types.lora,
        file.title,
        before.modified,
        root,
        skip_text_encoder,
    )
    return fingerprint, file


def check_composable(file: LoraFile) -> None:
    """Raise `BadLora` for a LoRA that the format of compositions can't represent, or that has
    values which aren't finite."""
    file.check_fits(file.family.files.output_format)
    check_values(file)


def check_values(file: LoraFile) -> None:
    """Raise `BadLora` for values that aren't finite; every tensor is read."""
    with Naming(file.path), Source(file.path, file.header) as source:
        for adapter in file.adapters:
            for tensor in adapter.tensors:
                check_finite(source, tensor)
        for norm in file.norms.values():
            check_finite(source, norm)
