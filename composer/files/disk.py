"""Free space on the disk, checked before something large is written.

The engine's worker asks for its results, `merge` and `pull` for the file that the user named.
"""

from __future__ import annotations

import shutil
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
