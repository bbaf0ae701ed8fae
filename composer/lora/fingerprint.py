"""What a LoRA file held when it was read, and whether it is still the same.

The library and `merging` read files through here. A file's signature is its size, times and inode.
Where PEFT saved a configuration beside the weights, which decides how strong they are, the two
count as one: signature and id cover both.
"""

from __future__ import annotations

import hashlib
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.errors import BadLora
from composer.lora.errors import Naming
from composer.lora.hashing import file_stamp, sha256_of
from composer.lora.ids import lora_id, pair_id
from composer.lora.peft_config import peft_config_status, read_peft_config
from composer.lora.reading import read
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from composer.lora.reading import LoraFile

RACY = 2_000_000_000  # nanoseconds; the coarsest clock of a file system (FAT) ticks this slowly


@dataclass(frozen=True, slots=True)
class StatSignature:
    """What differs once a file, or the configuration beside it, was changed."""

    text: str
    changed: int  # nanoseconds since 1970: the last change of either
    modified: int  # milliseconds since 1970: of the file

    @classmethod
    def of(cls, path: Path, root: Path | None = None) -> StatSignature:
        """Raises `BadLora` for what is not a regular file: opening a pipe would wait forever."""
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadLora(f"{visible(path.name or str(path))} is not a regular file")
        with Naming(path):
            config = peft_config_status(path, root)
        both = [status, *([config] if config else [])]
        return cls(
            " ".join(map(file_stamp, both)),
            max(max(one.st_mtime_ns, one.st_ctime_ns) for one in both),
            status.st_mtime_ns // 1_000_000,
        )

    def reliable(self, clock: Callable[[], int]) -> bool:
        """Whether the last change was so long ago that any later one must show here."""
        return clock() - self.changed >= RACY


@dataclass(frozen=True, slots=True)
class Hashes:
    """The sha256 (hex) of a file, and of the configuration beside it, if there is one."""

    weights: str
    config: str | None = None

    @property
    def id(self) -> str:
        """The LoRA's id."""
        weights = bytes.fromhex(self.weights)
        return pair_id(weights, bytes.fromhex(self.config)) if self.config else lora_id(weights)

    @classmethod
    def of(
        cls, path: Path, root: Path | None = None, hash: Callable[[Path], str] = sha256_of
    ) -> Hashes:
        """`hash` gives a file's. Raises `BadLora` for a configuration that can't be read, and
        `OSError`."""
        weights = hash(path)
        with Naming(path):
            config = read_peft_config(path, root)
        return cls(weights, None if config is None else hashlib.sha256(config).hexdigest())

    @classmethod
    def noted(cls, text: str) -> Hashes | None:
        """Those in a note; None for other texts."""
        parts = text.split(" ")
        return cls(*parts) if len(parts) <= 2 and all(map(_is_sha256, parts)) else None

    def __str__(self) -> str:
        """As a note has them."""
        return f"{self.weights} {self.config}" if self.config else self.weights


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


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
