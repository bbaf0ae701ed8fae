"""A preview's grid: its columns, its rows, and when there is no *before*."""

from __future__ import annotations

import pytest
from support.plans import knight

from composer.model import Concept
from composer.previews.cells import PreviewSettings, RendererInfo
from composer.previews.comparison import Mix, look_alike, preview_grid
from composer.previews.grid import AFTER, BEFORE, NO_LORA
from composer.previews.shots import shots

INFO = RendererInfo("test", "1", "base")
SETTINGS = PreviewSettings(("a fox", "a cat"), (7, 8))
INK, DUST, OFF = Concept("ink", 0.5), Concept("dust", 0.2), Concept("off", 0.0)
RECIPE = knight()
SHOTS = shots(RECIPE, SETTINGS, INFO)


def test_before_and_after() -> None:
    grid = preview_grid(RECIPE, SHOTS, Mix((INK,), ("0.50  Ink",)), Mix((INK, DUST)))
    assert (grid.path, grid.name, grid.is_preview) == (RECIPE.path, RECIPE.name, True)
    assert [column.title for column in grid.columns] == [NO_LORA, BEFORE, AFTER]
    assert grid.columns[1].lines == ("0.50  Ink",)
    assert [(row.title, row.lines) for row in grid.rows] == [
        (prompt, (f"seed {seed}",)) for prompt in ("a fox", "a cat") for seed in (7, 8)
    ]
    for (none, before, after), shot in zip(grid.cells, SHOTS, strict=True):
        assert (none, before, after) == (shot.cell(), shot.cell([INK]), shot.cell([DUST, INK]))


@pytest.mark.parametrize("before", [None, Mix((INK,)), Mix((OFF, INK))])
def test_no_column_before_where_there_is_nothing_to_compare(before: Mix | None) -> None:
    grid = preview_grid(RECIPE, SHOTS, before, Mix((INK,)))
    assert [column.title for column in grid.columns] == [NO_LORA, AFTER]
    assert all(len(row) == 2 for row in grid.cells)


def test_what_looks_alike() -> None:
    assert look_alike([INK, DUST], [DUST, OFF, INK])
    assert not look_alike([INK], [Concept("ink", 0.5, "3")])
    assert not look_alike([INK], [])
