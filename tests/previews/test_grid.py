"""Places in a grid."""

from __future__ import annotations

from composer.model import Concept
from composer.previews.cells import Cell, Look, RendererInfo
from composer.previews.grid import AFTER, BEFORE, NO_LORA, Grid, Heading, place_name

INFO = RendererInfo("test", "1", "base")
PLAIN = Cell.of([], "a fox", 7, Look(), INFO)
MIX = Cell.of([Concept("lora_a", 0.5)], "a fox", 7, Look(), INFO)
GRID = Grid(
    "recipes/a.yaml",
    "A",
    (Heading(NO_LORA), Heading(AFTER)),
    (Heading("a fox"), Heading("a cat")),
    ((PLAIN, MIX), (None, MIX)),
)


def test_places_are_named_like_those_of_a_sheet() -> None:
    assert [place_name(0, 0), place_name(2, 1)] == ["A1", "B3"]


def test_a_grid_gives_its_cells_by_row() -> None:
    assert list(GRID) == [PLAIN, MIX, MIX]


def test_columns_by_title() -> None:
    assert (GRID.column(AFTER), GRID.column(BEFORE)) == (1, None)
