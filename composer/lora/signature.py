"""What tells whether a LoRA file is still the same: its signature, and the hashes of its bytes.

A signature is size, times and inode. Where PEFT saved a configuration beside the weights, which
decides how strong they are, the two count as one: signature and id cover both. No arrays.
"""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.errors import BadLora
from composer.lora.errors import Naming
from composer.lora.hashing import file_stamp, sha256_of
from composer.lora.ids import lora_id, pair_id
from composer.lora.peft_files import peft_config_status, read_peft_config
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
