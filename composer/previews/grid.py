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
    """What stands at a row or a column: a title, and lines below it, as `0.70  Ink Lines`.

    In a sweep the title may be a scale of an `axis`, as `Ink Lines 0.7` is one of `Ink Lines`.
    """

    title: str
    lines: tuple[str, ...] = ()
    axis: str = ""

    @property
    def short(self) -> str:
        """The title where its axis is named elsewhere: `0.7`."""
        return self.title.removeprefix(self.axis).strip()


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

    @property
    def is_preview(self) -> bool:
        """Whether its columns are those of a preview; else it is a sweep's."""
        return self.column(AFTER) is not None

    def row_lines(self, row: int) -> tuple[str, ...]:
        """The lines of a row's heading; none where scales go on and the row above has the same."""
        heading = self.rows[row]
        goes_on = heading.axis and row and self.rows[row - 1].lines == heading.lines
        return () if goes_on else heading.lines

    @property
    def axes(self) -> tuple[str, str]:
        """What columns and rows are scales of; empty where they are none."""
        found = [
            next((one.axis for one in side if one.axis), "") for side in (self.columns, self.rows)
        ]
        return found[0], found[1]

    def compared(self, row: int) -> tuple[Cell, Cell] | None:
        """The cells of *before* and *after* in a row, if it has both."""
        before, after = self.column(BEFORE), self.column(AFTER)
        if before is None or after is None:
            return None
        pair = self.cells[row][before], self.cells[row][after]
        return None if pair[0] is None or pair[1] is None else (pair[0], pair[1])


def place_name(row: int, column: int) -> str:
    """`B3` for row 2 and column 1, both from 0; there are at most 26 columns."""
    return f"{chr(ord('A') + column)}{row + 1}"


def difference_key(before: Cell, after: Cell) -> str:
    """The name of the image of where these two differ, as a cell's digest is that of its own."""
    return f"{before.digest}-{after.digest}"
