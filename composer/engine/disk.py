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

MARGIN = 64 * 1024 * 1024  # bytes that stay free on the disk


def free_space(folder: Path) -> int:
    """Bytes free on the disk of this folder."""
    return shutil.disk_usage(folder).free


def check_space(folder: Path, size: int, free_space: Callable[[Path], int], *, hint: str) -> None:
    """Raise `TargetError` with this hint unless `size` bytes, and a margin, fit into the folder."""
    need, have = size + MARGIN, free_space(folder)
    if have < need:
        raise TargetError(
            f"not enough disk space in {folder}: this needs {need / 1e6:,.0f} MB,"
            f" {have / 1e6:,.0f} MB are free",
            hint=hint,
        )


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
