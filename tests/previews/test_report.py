"""What came of a preview, in one status."""

from __future__ import annotations

from dataclasses import replace

from composer.errors import TargetError, Unreachable
from composer.previews.cells import Cell, Look, RendererInfo
from composer.previews.grid import Grid, Heading
from composer.previews.report import CellImage, GridResult, PreviewReport, most_different_first

CELL = Cell.of([], "a fox", 7, Look(), RendererInfo("test", "1", "base"))
OTHER = Cell.of([], "a cat", 7, Look(), RendererInfo("test", "1", "base"))
GRID = Grid("a.yaml", "A", (Heading("no LoRA"),), (Heading("1"), Heading("2")), ((CELL,), (OTHER,)))


def report(**errors: TargetError) -> PreviewReport:
    pictures = {CELL.digest: CellImage(error=errors.get("fox")), OTHER.digest: CellImage()}
    return PreviewReport("local", (GridResult(GRID, pictures),))


def test_all_there() -> None:
    assert (report().exit_status, report().failures) == (0, {})


def test_a_failure() -> None:
    failed = report(fox=Unreachable("no answer"))
    assert failed.exit_status == Unreachable.exit_status
    assert list(failed.failures) == [CELL.digest]


def test_an_interruption_outweighs_a_failure() -> None:
    failed = report(fox=TargetError("spilt"))
    assert failed.exit_status == 1
    assert replace(failed, interrupted=True).exit_status == 130


def test_what_differs_most_comes_first() -> None:
    calm = replace(GRID, path="calm.yaml")
    other = replace(GRID, path="other.yaml")
    results = [
        GridResult(other, {}),
        GridResult(calm, {}, (None, 0.1)),
        GridResult(GRID, {}, (0.2, 0.4)),
    ]
    first, second, third = most_different_first(results)
    assert [one.grid.path for one in (first, second, third)] == [
        "a.yaml",
        "calm.yaml",
        "other.yaml",
    ]
    assert first.differences == (0.4, 0.2)
    assert [row.title for row in first.grid.rows] == ["2", "1"]
    assert first.grid.cells == ((OTHER,), (CELL,))
    assert second.differences == (0.1, None)
    assert third.grid == other
