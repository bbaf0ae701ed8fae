"""Where everything of a contact sheet stands: images in columns and rows, words beside them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from composer.images.lettering import Lettering
from composer.previews.cells import Look
from composer.previews.grid import AFTER, BEFORE, Heading, place_name
from composer.previews.report import difference_words
from composer.text import shorten

if TYPE_CHECKING:
    from composer.previews.report import GridResult

MARGIN, GAP, BLANK = 56, 24, 12  # around all, between columns, between words and images
ROW_GAP = 44  # between a row of a preview and the next one
LEFT = 300  # of a sweep's row headings
# Pixels of an image's longer side, the largest first; those of sweeps go on below previews'.
PREVIEW_SIDES = (512, 384, 256)
SWEEP_SIDES = (*PREVIEW_SIDES, 192, 128, 96, 64)
PREVIEW_COLUMN, SWEEP_COLUMN = 260, 84  # pixels that words need above a narrow image
LONGEST_SIDE = 16_000  # of a sheet; WebP has 16,383 at most
MOST_PIXELS = 24_000_000
LONGEST_TEXT = 600  # characters of a prompt
MOST_LINES = 8  # of a column's heading

NAME, TITLE = Lettering(46, bold=True), Lettering(27, bold=True)
TEXT, STRONG, SMALL = Lettering(23), Lettering(23, bold=True), Lettering(17)
DIFFERENCE = Heading("difference", ("where before", "and after differ"))


@dataclass(frozen=True, slots=True)
class Line:
    """One line of words at a place; `right`: where it ends, instead of where it begins."""

    text: str
    x: int
    baseline: int
    lettering: Lettering = TEXT
    dim: bool = True
    right: bool = False


@dataclass(frozen=True)
class SheetLayout:
    """The places of one sheet; its images have the size `cell`."""

    result: GridResult
    cell: tuple[int, int]

    @classmethod
    def of(cls, result: GridResult) -> SheetLayout:
        """Images as large as the limits of a sheet allow, and never larger than they are."""
        look = next((cell.look for cell in result.grid), Look())
        longer = max(look.width, look.height)
        for side in PREVIEW_SIDES if result.grid.is_preview else SWEEP_SIDES:
            share = min(1.0, side / longer)
            cell = (max(1, round(look.width * share)), max(1, round(look.height * share)))
            layout = cls(result, cell)
            width, height = layout.full_size
            if max(width, height) <= LONGEST_SIDE and width * height <= MOST_PIXELS:
                break
        return layout

    # --- what there is -------------------------------------------------------------------

    @cached_property
    def is_preview(self) -> bool:
        return self.result.grid.is_preview

    @cached_property
    def compared(self) -> tuple[int, int] | None:
        """The columns *before* and *after*, if there are both."""
        before, after = self.result.grid.column(BEFORE), self.result.grid.column(AFTER)
        return None if before is None or after is None else (before, after)

    @cached_property
    def headings(self) -> tuple[Heading, ...]:
        """Those of all columns; the last one may be that of the differences."""
        return (*self.result.grid.columns, *([DIFFERENCE] if self.compared else []))

    @cached_property
    def rows(self) -> int:
        """How many rows the sheet has room for; usually all."""
        return sum(bottom + MARGIN <= LONGEST_SIDE for bottom in self._bottoms)

    # --- where it stands -----------------------------------------------------------------

    @cached_property
    def left(self) -> int:
        """Where the first column begins."""
        return MARGIN + (0 if self.is_preview else LEFT + GAP)

    def x(self, column: int) -> int:
        return self.left + column * (self._column_width + GAP)

    def y(self, row: int) -> int:
        """The upper edge of a row's images."""
        return self._bottoms[row] - self.cell[1]

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of an image."""
        x, y = self.x(column), self.y(row)
        return x, y, x + self.cell[0], y + self.cell[1]

    @cached_property
    def full_size(self) -> tuple[int, int]:
        """The size with all rows."""
        bottom = self._bottoms[-1] if self._bottoms else self._top
        return self._width, bottom + MARGIN

    @cached_property
    def size(self) -> tuple[int, int]:
        left_out = self.rows < len(self._bottoms)
        bottom = self._bottoms[self.rows - 1] if self.rows else self._top
        return self._width, bottom + MARGIN + left_out * (TEXT.size + BLANK)

    @cached_property
    def _column_width(self) -> int:
        return max(self.cell[0], PREVIEW_COLUMN if self.is_preview else SWEEP_COLUMN)

    @cached_property
    def _width(self) -> int:
        return self.x(len(self.headings)) - GAP + MARGIN

    @cached_property
    def _inner(self) -> int:
        return self._width - 2 * MARGIN

    # --- words ---------------------------------------------------------------------------

    @cached_property
    def title(self) -> list[Line]:
        """The name, and the recipe's path below it."""
        grid = self.result.grid
        lines = [Line(NAME.cut(grid.name, self._inner), MARGIN, MARGIN + 38, NAME, dim=False)]
        path = TEXT.cut(grid.path, self._inner)
        return [*lines, Line(path, MARGIN, MARGIN + 38 + 42)]

    @cached_property
    def columns(self) -> list[Line]:
        """What stands above the columns: their titles on one line, the mixes below."""
        lines = [line for n in range(len(self.headings)) for line in self._column(n)]
        return lines if self.is_preview else [*self._corner(), *lines]

    def _column(self, column: int) -> list[Line]:
        x, y, width = self.x(column), self._headings_top, self._column_width
        heading, lines = self.headings[column], []
        if not self.is_preview:
            lines.append(Line(place_name(0, column)[0], x, y))
            y += TITLE.size + 8
        lettering = next((one for one in (TITLE, TEXT) if one.width(heading.short) <= width), SMALL)
        lines.append(Line(lettering.cut(heading.short, width), x, y, lettering, dim=False))
        y += 10
        for text in heading.lines[:MOST_LINES]:
            changed = self._is_changed(column, text)
            lettering = STRONG if changed else TEXT
            y += TEXT.size + 5
            lines.append(Line(lettering.cut(text, width), x, y, lettering, dim=not changed))
        return lines

    def _corner(self) -> list[Line]:
        """What a sweep's columns and rows are scales of."""
        across, down = self.result.grid.axes
        texts = [f"{across} →" if across else "", f"{down} ↓" if down else ""]
        y = self._headings_top
        return [
            Line(TEXT.cut(text, LEFT), MARGIN, y + n * (TITLE.size + 8))
            for n, text in enumerate(texts)
        ]

    def _is_changed(self, column: int, text: str) -> bool:
        if self.compared is None or column != self.compared[1]:
            return False
        return text not in self.result.grid.columns[self.compared[0]].lines

    @cached_property
    def _headings_top(self) -> int:
        return self.title[-1].baseline + 72

    @cached_property
    def _top(self) -> int:
        """Below the columns' headings."""
        return max((line.baseline for line in self.columns), default=self._headings_top) + 8

    def row(self, row: int) -> list[Line]:
        """What stands above a row of a preview, or at the left of a sweep's."""
        return self._above(row) if self.is_preview else self._beside(row)

    def _above(self, row: int) -> list[Line]:
        texts, bottom = self._row_texts(row), self.y(row) - BLANK - 6
        first = bottom - (len(texts) - 1) * (TEXT.size + 8)
        step = TEXT.size + 8
        lines = [Line(t, MARGIN, first + n * step, dim=False) for n, t in enumerate(texts)]
        return [*lines, Line(self._facts(row), MARGIN + self._inner, bottom, right=True)]

    def _row_texts(self, row: int) -> list[str]:
        """The prompt of a preview's row, in at most two lines that leave room for the facts."""
        heading = self.result.grid.rows[row]
        room = self._inner - TEXT.width(self._facts(row)) - 2 * GAP
        return TEXT.wrap(shorten(heading.title, LONGEST_TEXT), room, 2) or [""]

    def _facts(self, row: int) -> str:
        """The seed, and how much differs."""
        facts = [*self.result.grid.rows[row].lines]
        differences = self.result.differences
        if (
            self.compared
            and row < len(differences)
            and (words := difference_words(differences[row]))
        ):
            facts.append(words)
        return "   ".join(facts)

    def _beside(self, row: int) -> list[Line]:
        """A row's number and title, and lines below as far as the image is high."""
        heading, y = self.result.grid.rows[row], self.y(row) + TITLE.size
        x, width, step = MARGIN + 44, LEFT - 44, TEXT.size + 8
        most = max(1, self.cell[1] // step)
        lettering = TITLE if heading.axis else TEXT
        title = lettering.wrap(shorten(heading.short, LONGEST_TEXT), width, min(most, 6))
        texts = [(text, lettering, False) for text in title]
        for one in self.result.grid.row_lines(row):
            texts += [(t, TEXT, True) for t in TEXT.wrap(shorten(one, LONGEST_TEXT), width, 5)]
        places = [y + n * step + (n >= len(title)) * 8 for n in range(len(texts))]
        lines = [
            Line(text, x, place, lettering, dim)
            for place, (text, lettering, dim) in zip(places, texts, strict=True)
            if place <= self.box(row, 0)[3] or place == y
        ]
        return [Line(str(row + 1), MARGIN, y), *lines]

    @cached_property
    def _bottoms(self) -> list[int]:
        """The lower edge of each row's images."""
        bottoms, y = [], self._top
        for row in range(len(self.result.grid.rows)):
            if self.is_preview:
                words = len(self._row_texts(row)) * (TEXT.size + 8)
                y += ROW_GAP - (row == 0) * 12 + words + BLANK
            else:
                y += GAP
            y += self.cell[1]
            bottoms.append(y)
        return bottoms

    @cached_property
    def rest(self) -> list[Line]:
        """Which rows there was no room for."""
        count = len(self._bottoms) - self.rows
        text = f"and {count:,} more rows, which the page shows"
        return [Line(text, MARGIN, self.size[1] - MARGIN + 8)] if count else []
