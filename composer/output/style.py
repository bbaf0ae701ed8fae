"""Columns and colours for people, JSON for programs; colour never carries meaning alone."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_CODES = {"green": "32", "yellow": "33", "red": "31", "cyan": "36", "dim": "2", "bold": "1"}
_WIDEST = 48  # a longer cell doesn't push the others' column to the right


def painted(text: str, colour: str, *, color: bool) -> str:
    """The text in a colour, if colours are wanted."""
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if color else text


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with their cells in columns, two spaces apart; nothing trails.

    The last cell that says anything in a row makes no column wider.
    """
    lasts = [max((n for n, cell in enumerate(row) if cell), default=0) for row in rows]
    widths = [
        max((width(row[n]) for row, last in zip(rows, lasts, strict=True) if n < last), default=0)
        for n in range(max((len(row) for row in rows), default=0))
    ]
    widths = [min(_WIDEST, size) for size in widths]
    return ["  ".join(_padded(row, widths)).rstrip() for row in rows]


def _padded(row: Sequence[str], widths: list[int]) -> list[str]:
    return [
        cell + " " * max(0, size - width(cell)) for cell, size in zip(row, widths, strict=False)
    ]


def width(text: str) -> int:
    """How many columns a terminal gives this text: two for wide characters, none for marks."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def bar(share: float, *, cells: int = 20) -> str:
    """A progress bar of that many cells for a share of 0..1."""
    filled = round(max(0.0, min(1.0, share)) * cells)
    return "█" * filled + "░" * (cells - filled)


def dumped(value: object) -> str:
    """JSON that can be shown in a CI log: `##` in a text can't become an order to the runner."""
    return json.dumps(value, indent=2, ensure_ascii=True).replace("##", "#\\u0023") + "\n"
