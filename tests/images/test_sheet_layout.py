"""Where everything of a sheet stands: words never on pictures, and sheets that others can open."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.grids import preview_grid, sweep_grid

from composer.images.sheet_layout import LONGEST_SIDE, MARGIN, MOST_PIXELS, Line, SheetLayout
from composer.previews.cells import Look
from composer.previews.report import GridResult

if TYPE_CHECKING:
    from composer.previews.grid import Grid

    Box = tuple[int, int, int, int]

BEFORE = {"Watercolour": 0.5, "Ink Lines": 0.4, "Castle Stone": 0.3}
AFTER = {"Watercolour": 0.5, "Ink Lines": 0.75, "Pixel Dust": 1.0}
LONG = "a knight's castle on a hill above a misty valley, soft morning light, " * 20


def laid_out(grid: Grid) -> SheetLayout:
    return SheetLayout.of(GridResult(grid, {}, (0.5,) * len(grid.rows)))


def lines(layout: SheetLayout) -> list[Line]:
    rows = [line for row in range(layout.rows) for line in layout.row(row)]
    return [*layout.title, *layout.columns, *rows, *layout.rest]


def word_box(line: Line) -> Box:
    width = line.lettering.width(line.text)
    left = line.x - width if line.right else line.x
    return left, line.baseline - line.lettering.size * 3 // 4, left + width, line.baseline + 5


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def check(layout: SheetLayout) -> None:
    width, height = layout.size
    assert max(width, height) <= LONGEST_SIDE + 100
    columns, rows = range(len(layout.headings)), range(layout.rows)
    pictures = [layout.box(row, column) for row in rows for column in columns]
    words = [word_box(line) for line in lines(layout)]
    for box in pictures + words:
        assert box[0] >= MARGIN - 1
        assert box[1] >= 0
        assert box[2] <= width - MARGIN + 1
        assert box[3] <= height
    assert not [(a, b) for a, b in combinations(pictures, 2) if overlap(a, b)]
    assert not [(a, b) for a in words for b in pictures if overlap(a, b)]
    assert not [(a, b) for a, b in combinations(words, 2) if overlap(a, b)]


@pytest.mark.parametrize("side", [(1104, 832), (512, 1024), (2048, 128), (128, 2048), (16, 16)])
@pytest.mark.parametrize("prompt", ["a road", LONG], ids=["short", "long"])
def test_words_are_beside_the_pictures(side: tuple[int, int], prompt: str) -> None:
    rows = [(prompt, 7), ("a castle", 4_294_967_295)]
    check(laid_out(preview_grid(BEFORE, AFTER, rows, look=Look(*side), name=LONG[:64])))
    check(laid_out(sweep_grid(("Ink Lines", [0.25, 0.5]), ("A" * 64, [0.1, 1.25]), prompt=prompt)))


@given(
    st.text(min_size=1, max_size=80), st.integers(1, 4), st.integers(64, 600), st.integers(64, 600)
)
@settings(max_examples=25, deadline=None)
def test_any_words_and_sizes(words: str, rows: int, width: int, height: int) -> None:
    shots = [(f"{words} {row}", row) for row in range(rows)]
    mixes = {words: 0.5, "Ink": 0.25}, {words: 0.75}
    grid = preview_grid(*mixes, shots, look=Look(width, height), name=words)
    check(laid_out(grid))


def test_the_largest_sweep_is_a_sheet_that_can_be_opened() -> None:
    scales = [round(n / 25, 4) for n in range(25)]
    layout = laid_out(sweep_grid(("Ink Lines", scales), ("Castle", scales), look=Look()))
    check(layout)
    width, height = layout.size
    assert width * height <= MOST_PIXELS
    assert layout.rows == 25
    assert layout.rest == []


def test_more_rows_than_a_sheet_has_room_for() -> None:
    """So many are left out, and the last line says so."""
    layout = laid_out(preview_grid(BEFORE, AFTER, [("a road", n) for n in range(400)]))
    assert 40 < layout.rows < 400
    assert layout.size[1] <= 16_383  # WebP's limit
    assert layout.rest[0].text == f"and {400 - layout.rows} more rows, which the page shows"


def test_changed_scales_are_emphasised() -> None:
    layout = laid_out(preview_grid(BEFORE, AFTER))
    strong = [line.text for line in layout.columns if not line.dim]
    assert strong == [
        "no LoRA",
        "before",
        "after",
        "0.75  Ink Lines",
        "1.00  Pixel Dust",
        "difference",
    ]


def test_a_sweep_names_its_axes_once_and_its_places() -> None:
    layout = laid_out(sweep_grid(("Ink Lines", [0.2, 0.4]), ("Castle", [0.1, 0.5])))
    assert [line.text for line in layout.columns] == [
        "Ink Lines →", "Castle ↓", "A", "no LoRA", "B", "0.2", "C", "0.4",
    ]  # fmt: skip
    assert [line.text for line in layout.row(0)][:2] == ["1", "0.1"]
    assert [line.text for line in layout.row(1)] == ["2", "0.5"]  # the prompt goes on


def test_a_row_says_how_much_differs() -> None:
    grid = preview_grid(BEFORE, AFTER, [("a road", n) for n in range(3)])
    layout = SheetLayout.of(GridResult(grid, {}, (0.034, 0.0, None)))
    facts = [next(line.text for line in layout.row(row) if line.right) for row in range(3)]
    assert facts == ["seed 0   3.4% different", "seed 1   no difference", "seed 2"]
