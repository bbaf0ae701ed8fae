"""`PATH[:SCALE]`: a LoRA file and its scale, as `inspect` and `merge` take them."""

from __future__ import annotations

import re
from pathlib import Path

from composer.errors import UsageError
from composer.text import visible

LIMIT = 2.0  # as for a concept of the engine: -2..2
LEAST = 1e-6  # other than 0; smaller ones change no picture, and no type holds what they leave
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


def weighted(text: str) -> tuple[Path, float]:
    """A path and a scale, 1 if none is given. Raises `UsageError` for a scale not within -2..2.

    Only a number after the last colon is a scale: `C:\\loras\\ink.safetensors` is a path, and
    `C:\\loras\\ink.safetensors:0.65` has a scale of 0.65.
    """
    path, colon, number = text.rpartition(":")
    if not colon or not _NUMBER.fullmatch(number):
        _check_typo(text, path, number)
        return _path(text, text), 1.0
    if Path(text).is_file() and not Path(path).exists():
        raise UsageError(
            f"{visible(text)} is a file: is {number} its scale, or the end of its name?",
            hint=f"write {visible(text)}:1 for the file",
        )
    scale = float(number)
    if abs(scale) < LEAST and re.search("[1-9]", number.lower().partition("e")[0]):
        raise UsageError(f"{visible(text)}: the scale {number} is neither 0 nor at least {LEAST}")
    if not -LIMIT <= scale <= LIMIT:
        raise UsageError(f"{visible(text)}: the scale {number} is not within -2..2")
    return _path(path, text), scale


def _check_typo(text: str, path: str, number: str) -> None:
    """Raise `UsageError` where the file is there, and it is what follows it that is wrong."""
    if path and Path(path).is_file() and not Path(text).exists():
        said = f"{visible(number)} is no scale" if number else "no scale after the colon"
        raise UsageError(f"{visible(text)}: {said}", hint="write FILE:SCALE, as in FILE:0.5")


def _path(path: str, text: str) -> Path:
    if not path:
        raise UsageError(f"{visible(text)!r} names no file", hint="write FILE or FILE:SCALE")
    return Path(path)
