"""The cosines of a mix, each LoRA with each other, in as much room as a terminal has.

With two decimals where they fit, else in hundredths, else as a character each; of very many, some
columns below the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.lora.inspection import Level
from composer.output.inspect_view import decimals
from composer.output.style import cut, padded, painted, width
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from composer.lora.inspection import Mix

Cell = tuple[str, str | None]  # what is printed, and its colour

# From each cosine on, its character and colour; below the first of its sign, two are independent.
ALIKE = ((0.7, "█", "red"), (0.5, "▓", "red"), (0.3, "▒", "yellow"), (0.1, "░", "yellow"))
AGAINST = ((0.5, "≡", "cyan"), (0.3, "=", "cyan"), (0.1, "-", "cyan"))
INDEPENDENT = ("·", "dim")
NOTHING = " "  # where one of the two changes nothing
COLOURS = {Level.STRONG: "red", Level.OPPOSED: "red", Level.SOME: "yellow"}
LEAST = 8  # columns for a name
MEANING = "1 the same direction, 0 nothing in common, -1 against each other"
LEGEND = "cosine: · below 0.1   ░ 0.1   ▒ 0.3   ▓ 0.5   █ 0.7   - = ≡ the same, against each other"


def heat(cosine: float | None) -> Cell:
    """A cosine as one character."""
    if cosine is None:
        return NOTHING, None
    for limit, character, colour in ALIKE if cosine > 0 else AGAINST:
        if abs(cosine) >= limit:
            return character, colour
    return INDEPENDENT


@dataclass(frozen=True, slots=True)
class _Style:
    """How cosines are written: in so many columns, a space before each included."""

    columns: int
    title: str
    meaning: str
    write: Callable[[float], str]


_STYLES = (
    _Style(6, "cosines", MEANING, decimals),
    _Style(4, "cosines, in hundredths", MEANING.replace("1", "100"), lambda c: str(round(c * 100))),
    _Style(1, "cosines", LEGEND, lambda c: heat(c)[0]),
)


def matrix(mix: Mix, columns: int, *, color: bool) -> Iterator[str]:
    """A heading with the LoRAs' numbers, a line for each LoRA, and what the cells mean."""
    count = len(mix.names)
    digits = len(str(count))
    longest = max(width(visible(name)) for name in mix.names)
    room = {style: columns - digits - 2 - count * style.columns for style in _STYLES}
    style = next((s for s in _STYLES if room[s] >= min(longest, LEAST)), _STYLES[-1])
    names = [cut(visible(name), max(LEAST, room[style])) for name in mix.names]
    labels = [f"{n:>{digits}}  {name}" for n, name in enumerate(names, 1)]
    side = max(map(width, labels))
    at_once = (columns - side) // style.columns
    yield style.title
    for first in range(0, count, at_once):
        shown = range(first, min(count, first + at_once))
        for line in _heading([str(n + 1) for n in shown], style.columns):
            yield painted(" " * side + line, "dim", color=color)
        for row, label in enumerate(labels):
            cells = "".join(_cell(mix, row, n, style, color=color) for n in shown)
            yield (padded(label, side) + cells).rstrip()
    yield painted(style.meaning, "dim", color=color)


def _heading(numbers: Sequence[str], columns: int) -> list[str]:
    """The numbers of the columns; where a column has one character, with their digits downwards."""
    if columns > 1:
        return ["".join(number.rjust(columns) for number in numbers)]
    longest = len(numbers[-1])
    return ["".join(column) for column in zip(*(n.rjust(longest) for n in numbers), strict=True)]


def _cell(mix: Mix, row: int, column: int, style: _Style, *, color: bool) -> str:
    cosine = mix.cosine(row, column)
    if cosine is None:
        return " " * style.columns
    written = style.write(cosine).rjust(style.columns)
    colour = "dim" if row == column else heat(cosine)[1]
    return painted(written, colour, color=color) if colour else written
