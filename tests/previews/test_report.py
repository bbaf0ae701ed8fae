"""What came of a preview, in one status."""

from __future__ import annotations

from composer.errors import TargetError, Unreachable
from composer.previews.cells import Cell, Look, RendererInfo
from composer.previews.grid import Grid, Heading
from composer.previews.report import GridResult, Picture, PreviewReport

CELL = Cell.of([], "a fox", 7, Look(), RendererInfo("test", "1", "base"))
OTHER = Cell.of([], "a cat", 7, Look(), RendererInfo("test", "1", "base"))
GRID = Grid("a.yaml", "A", (Heading("no LoRA"),), (Heading("1"), Heading("2")), ((CELL,), (OTHER,)))


def report(**errors: TargetError) -> PreviewReport:
    pictures = {CELL.digest: Picture(error=errors.get("fox")), OTHER.digest: Picture()}
    return PreviewReport("local", (GridResult(GRID, pictures),))


def test_all_there() -> None:
    assert (report().exit_status, report().failures) == (0, {})


def test_a_failure() -> None:
    failed = report(fox=Unreachable("no answer"))
    assert failed.exit_status == Unreachable.exit_status
    assert list(failed.failures) == [CELL.digest]
