"""The disk: how much of it is free, and what is surely on it and not only in memory.

The worker asks within `.compose/`, `merging` and `delivery` wherever a user wants a file.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from composer.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MARGIN = 64 * 1024 * 1024  # bytes that stay free on the disk, for the store and its journal


def free_space(folder: Path) -> int:
    """Bytes free on the disk of this folder."""
    return shutil.disk_usage(folder).free


def spare(size: int) -> int:
    """Bytes that stay free beside a single file of `size` bytes: a tenth, up to `MARGIN`."""
    return min(MARGIN, size // 10)


def check_space(
    folder: Path,
    size: int,
    free_space: Callable[[Path], int],
    *,
    hint: str,
    margin: int = MARGIN,
) -> None:
    """Raise `TargetError` with this hint unless `size` bytes, and a margin, fit into the folder."""
    have = free_space(folder)
    if have < size + margin:
        raise TargetError(
            f"not enough disk space in {folder}: this needs {_megabytes(size)} and"
            f" {_megabytes(margin)} to spare, {_megabytes(have)} are free",
            hint=hint,
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.{1 if size < 1e7 else 0}f} MB"


def sync_file(path: Path) -> None:
    """Bring a file that was written to the disk."""
    with path.open("r+b") as file:  # Windows syncs only what may be written
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Bring a rename in this folder to the disk, where the system knows how to."""
    with suppress(OSError):  # Windows opens no folder, and some file systems don't sync one
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
