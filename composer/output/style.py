"""Columns and colours for people, JSON for programs; colour never carries meaning alone."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_CODES = {"green": "32", "yellow": "33", "red": "31", "cyan": "36", "dim": "2", "bold": "1"}
_USUAL = 32  # columns; a cell up to that is never far wider than the others
_NARROWEST = 20  # columns, of a terminal and of what hangs below a cell
_PAINT = re.compile(r"\x1b\[\d+m")
_GAP = re.compile(r"(?<=\S) {2,}(?=\S)|(?<=:) (?=compose )")  # between two cells


def painted(text: str, colour: str, *, color: bool) -> str:
    """The text in a colour, if colours are wanted."""
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if color and text else text


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with their cells in columns, two spaces apart; nothing trails.

    The last cell that says anything in a row makes no column wider, and neither does one that is
    far wider than the others: it moves the rest of its own row alone.
    """
    lasts = [max((n for n, cell in enumerate(row) if cell), default=0) for row in rows]
    widths = [
        _column([width(row[n]) for row, last in zip(rows, lasts, strict=True) if n < last])
        for n in range(max((len(row) for row in rows), default=0))
    ]
    return ["  ".join(_padded(row, widths)).rstrip() for row in rows]


def _column(sizes: list[int]) -> int:
    """The width of a column: of its widest cell that is no more than twice as wide as most."""
    if not sizes:
        return 0
    usual = sorted(sizes)[(len(sizes) - 1) // 2]
    return max(size for size in sizes if size <= max(_USUAL, 2 * usual, min(sizes)))


def _padded(row: Sequence[str], widths: list[int]) -> list[str]:
    return [padded(cell, size) for cell, size in zip(row, widths, strict=False)]


def width(text: str) -> int:
    """How many columns a terminal gives this text; colours take none."""
    text = _PAINT.sub("", text) if "\x1b" in text else text
    if text.isascii():
        return len(text)
    from wcwidth import width as measured  # takes time, and most texts are ASCII

    return measured(text)


def padded(text: str, columns: int) -> str:
    """The text with spaces behind it, so that it takes so many columns at least."""
    return text + " " * max(0, columns - width(text))


def cut(text: str, columns: int) -> str:
    """The text, cut to at most so many columns with an ellipsis at the end."""
    if width(text) <= columns:
        return text
    from wcwidth import clip

    return clip(text, 0, columns - 1).rstrip() + "…"


# --- to the width of a terminal ----------------------------------------------------------


def wrapped(text: str, columns: int) -> str:
    """The text in lines that are no wider than a terminal's columns; no word is broken.

    What doesn't fit goes on below a cell of its row that leaves room for it. A command at the end
    of a line is a cell, so that it stays in one piece.
    """
    columns = max(columns, _NARROWEST)
    return "\n".join(part for line in text.split("\n") for part in _fitting(line, columns))


def _fitting(line: str, columns: int) -> list[str]:
    if width(line) <= columns:
        return [line]
    from wcwidth import propagate_sgr

    return propagate_sgr(_wrapped(line, columns))  # so that each line begins and ends its colours


def _wrapped(line: str, columns: int, further: int = 2) -> list[str]:
    """Lines for one that may be too wide; without cells, they hang that much `further` in."""
    if width(line) <= columns:
        return [line]
    cells = [(gap, width(line[: gap.end()])) for gap in _GAP.finditer(line)]
    margin = width(line) - width(line.lstrip(" ")) + further
    room = max(_NARROWEST, columns * 2 // 5)
    hangs = [start for _, start in cells if columns - start >= room]
    if not cells or cells[-1][1] in hangs:
        return _hanging(line, columns, hangs[-1] if hangs else margin)
    fitting = [one for one in cells if width(line[: one[0].start()]) <= columns]
    gap, start = fitting[-1] if fitting else cells[0]
    hang = max([hang for hang in hangs if hang <= start] or [margin])
    rest = " " * _spared(hang, line[gap.end() :], columns) + line[gap.end() :]
    head = _hanging(line[: gap.start()], columns, hang)
    return [*head, *_wrapped(rest, columns, 0)]


def _spared(hang: int, text: str, columns: int) -> int:
    """How far in a text may hang, so that its longest word fits as well."""
    return max(0, min(hang, columns - max(map(width, text.split()), default=0)))


def _hanging(line: str, columns: int, hang: int) -> list[str]:
    from wcwidth import wrap

    return wrap(
        line,
        columns,
        subsequent_indent=" " * _spared(hang, line, columns),
        break_long_words=False,
        break_on_hyphens=False,
        propagate_sgr=False,
    )


def weight(scale: float | None) -> str:
    """A scale with two decimals, or with as many as it needs; `none` where there is no concept."""
    if scale is None:
        return "none"
    return f"{scale:.2f}" if round(scale, 2) == scale else f"{scale:g}"


def bar(share: float, *, cells: int = 20) -> str:
    """A progress bar of that many cells for a share of 0..1."""
    filled = round(max(0.0, min(1.0, share)) * cells)
    return "█" * filled + "░" * (cells - filled)


def dumped(value: object) -> str:
    """JSON that can be shown in a CI log: `##` in a text can't become an order to the runner."""
    return json.dumps(value, indent=2, ensure_ascii=True).replace("##", "#\\u0023") + "\n"
