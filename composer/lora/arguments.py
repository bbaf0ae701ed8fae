"""The LoRA files that `merge` and `inspect` are given, and the scale of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from composer.errors import UsageError
from composer.text import visible

StrPath: TypeAlias = str | PathLike[str]
# One path, several paths, (path, scale) pairs, or {path: scale}. Without a scale it is 1.
Loras: TypeAlias = StrPath | Mapping[StrPath, float] | Iterable[StrPath | tuple[StrPath, float]]


def with_scales(loras: Loras) -> list[tuple[Path, float]]:
    """Each file with its scale, in the given order. Raises `UsageError` if there is none, or for a
    scale that is not a finite number."""
    if isinstance(loras, str | PathLike):
        loras = [loras]
    items = loras.items() if isinstance(loras, Mapping) else loras
    pairs = [item if isinstance(item, tuple) else (item, 1.0) for item in items]
    if not pairs:
        raise UsageError("no LoRA files given")
    for path, scale in pairs:
        if not isfinite(scale):
            raise UsageError(f"{visible(str(path))}: the scale {scale} is not a finite number")
    return [(Path(path), scale) for path, scale in pairs]
