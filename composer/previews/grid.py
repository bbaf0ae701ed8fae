"""A grid of cells: what stands in its rows and columns, and the name of each place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.previews.cells import Cell

NO_LORA, BEFORE, AFTER = "no LoRA", "before", "after"  # titles of a preview's columns


@dataclass(frozen=True, slots=True)
class Heading:
    """What stands at a row or a column: a title, and lines below it, as `0.70  Ink Lines`."""

    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grid:
    """The cells of one recipe: `cells[row][column]`; None where there is no image to make.

    `path` is the recipe's, `name` its model's. A preview has the columns *no LoRA*, *before* (where
    there was one) and *after*, and a row for each prompt and seed. In a sweep the columns, and with
    two axes the rows too, are scales.
    """

    path: str
    name: str
    columns: tuple[Heading, ...]
    rows: tuple[Heading, ...]
    cells: tuple[tuple[Cell | None, ...], ...]

    def __iter__(self) -> Iterator[Cell]:
        """Its cells by row; one that stands in several places comes several times."""
        return (cell for row in self.cells for cell in row if cell is not None)

    def column(self, title: str) -> int | None:
        """The first column with this title."""
        titles = [heading.title for heading in self.columns]
        return titles.index(title) if title in titles else None


def place_name(row: int, column: int) -> str:
    """`B3` for row 2 and column 1, both from 0; there are at most 26 columns."""
    return f"{chr(ord('A') + column)}{row + 1}"
