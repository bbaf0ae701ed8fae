"""Rendering grids: what is made, what it may cost, and what is left after a failure or a kill."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.fake_target import FakeTarget
from support.painter import INFO, Painter, as_plugin

from composer import Project, Refused, TargetError, UsageError
from composer.errors import Stopped
from composer.files.exclusive import only_one_rendering
from composer.images.difference import mean_difference
from composer.model import Concept
from composer.previews.cells import Cell, Look
from composer.previews.grid import AFTER, BEFORE, NO_LORA, Grid, Heading
from composer.previews.report import PreviewReport, Price
from composer.project.options import RendererOptions, RenderOptions
from composer.project.rendering import RenderWatcher, render_grids
from composer.renderers.cache import FOLDER

if TYPE_CHECKING:
    from composer.renderers.base import Keep, Rendered, Rendering

SMALL = Look(width=128, height=128)
ROWS = (("a fox", 7), ("a fox", 8), ("a cat", 7))


def grid(
    path: str = "recipes/fox.yaml", scales: tuple[float, float] = (0.5, 0.6), look: Look = SMALL
) -> Grid:
    """Three columns, of which the first is the same for every recipe."""
    columns = [(), *([Concept("lora_a", scale)] for scale in scales)]
    return Grid(
        path,
        "Fox",
        (Heading(NO_LORA), Heading(BEFORE), Heading(AFTER)),
        tuple(Heading(prompt, (f"seed {seed}",)) for prompt, seed in ROWS),
        tuple(
            tuple(Cell.of(column, prompt, seed, look, INFO) for column in columns)
            for prompt, seed in ROWS
        ),
    )


@dataclass
class Told:
    """What a watcher was told."""

    prices: list[Price] = field(default_factory=list)
    renderings: list[Rendering] = field(default_factory=list)

    @property
    def watcher(self) -> RenderWatcher:
        return RenderWatcher(self.prices.append, self.renderings.append)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "compose.lock").write_text('{"version": 2, "targets": {}}')
    return Project(tmp_path)


def rendered(
    project: Project, painter: Painter, *grids: Grid, max_cost: float | None = None
) -> PreviewReport:
    return render_grids(project, painter, grids, RenderOptions(max_cost=max_cost))


def test_each_cell_is_made_once_and_never_again(project: Project) -> None:
    painter, told = Painter(), Told()
    grids = (grid(), grid("recipes/cat.yaml", (0.6, 0.7)))  # six cells are in both
    report = render_grids(project, painter, grids, watcher=told.watcher)
    assert len(painter.made) == len(set(painter.made)) == 12
    assert (report.made, report.price, report.spent) == (12, Price(12, 0), None)
    assert told.prices == [Price(12, 0)] and painter.asked == []  # nothing is charged
    assert {one.cell for one in told.renderings if one.state == "done"} == set(painter.made)
    files = [picture.file for one in report.grids for picture in one.images.values()]
    assert all(file and file.is_file() for file in files)
    again = rendered(project, painter, *grids)
    assert (len(painter.made), again.made, again.price) == (12, 0, Price(0, 12))
    assert again.exit_status == 0 and again.grids == report.grids


@pytest.mark.parametrize(
    ("changed", "missing"),
    [
        (grid(scales=(0.6, 0.7)), 3),  # what was after is before now
        (grid(look=replace(SMALL, steps=4)), 9),
        (grid(look=replace(SMALL, width=144)), 9),
        (replace(grid(), cells=(*grid().cells[:2], tuple(
            replace(cell, seed=9) for cell in grid().cells[2] if cell
        ))), 3),
    ],
)  # fmt: skip
def test_a_change_makes_exactly_what_is_missing(
    project: Project, changed: Grid, missing: int
) -> None:
    rendered(project, Painter(), grid())
    painter = Painter(each=2.0)
    report = rendered(project, painter, changed, max_cost=2.0 * missing)
    assert len(painter.made) == report.made == missing
    assert set(painter.made) == set(painter.asked) == set(changed) - set(grid())
    assert report.spent == 2 * missing == report.price.total


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (None, "rendering 9 images costs 18, and no limit is given"),
        (17.5, "rendering 9 images costs 18, more than --max-cost 17.5"),
        (float("nan"), "more than --max-cost nan"),
    ],
)
def test_nothing_is_rendered_that_was_not_allowed(
    project: Project, limit: float | None, message: str
) -> None:
    painter, told = Painter(each=2.0), Told()
    with pytest.raises(Refused, match=message) as caught:
        render_grids(project, painter, [grid()], RenderOptions(max_cost=limit), told.watcher)
    assert painter.made == [] and "--max-cost 18" in str(caught.value.hint)
    assert told.prices == [Price(9, 0, 18)]  # the price is told first
    assert rendered(project, painter, grid(), max_cost=18).spent == 18
    assert rendered(project, painter, grid()).made == 0  # what is there costs nothing


class _Unpriced(Painter):
    def price(self, cells: object) -> None:
        return None


def test_a_price_that_nobody_knows_is_not_allowed(project: Project) -> None:
    painter = _Unpriced(each=1.0)
    with pytest.raises(Refused, match="the price of 9 images is not known"):
        rendered(project, painter, grid(), max_cost=1000)
    assert painter.made == []


def test_a_dry_run_writes_nothing(project: Project) -> None:
    painter = Painter(each=2.0)
    report = render_grids(project, painter, [grid()], RenderOptions(dry_run=True))
    assert (report.price, report.made, report.exit_status) == (Price(9, 0, 18), 0, 0)
    assert painter.made == [] and not project.state.exists()


def test_a_cell_that_can_not_be_made_is_found_first(project: Project) -> None:
    painter = Painter()
    with pytest.raises(UsageError, match=r"recipes/wild.yaml: .*not 2.5"):
        rendered(project, painter, grid(), grid("recipes/wild.yaml", (0.5, 2.5)))
    assert painter.made == []


def test_what_fails_is_in_the_report_and_is_made_later(project: Project) -> None:
    spilt = TargetError("the paint was spilt")
    report = rendered(project, Painter(each=1.0, fails={3: spilt}), grid(), max_cost=9)
    assert list(report.failures.values()) == [spilt]
    assert (report.made, report.spent, report.exit_status) == (8, 8, 1)
    assert report.grids[0].differences.count(None) == 1
    painter = Painter(each=1.0)
    assert rendered(project, painter, grid(), max_cost=1).exit_status == 0
    assert [cell.digest for cell in painter.made] == list(report.failures)


class _Careless(Painter):
    """Hands nothing over, and says nothing of it."""

    def _keep(self, cell: Cell, keep: Keep) -> None:
        pass


def test_what_a_renderer_leaves_out_is_a_failure(project: Project) -> None:
    report = rendered(project, _Careless(), grid())
    assert {str(error) for error in report.failures.values()} == {
        "the renderer made no image, and gave no reason"
    }
    assert len(report.failures) == 9 and report.exit_status == 1


class _Interrupted(Painter):
    """Is told to stop after two images."""

    def render(self, *arguments: object, **more: object) -> Rendered:
        cells, keep = arguments
        super().render(cells[:2], keep, **more)  # type: ignore[index, arg-type]
        raise Stopped


def test_an_interruption_keeps_what_is_there(project: Project) -> None:
    report = rendered(project, _Interrupted(each=2.0), grid(), max_cost=18)
    assert report.interrupted and report.exit_status == 130
    assert (report.made, report.spent, report.failures) == (2, 4, {})
    painter = Painter(each=2.0)
    assert rendered(project, painter, grid(), max_cost=14).made == 7


def test_a_killed_process_loses_no_image(project: Project, tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = (
        "import sys; from pathlib import Path; from project.test_rendering import *;"
        "project = Project(Path(sys.argv[1]), state_dir=sys.argv[2]);"
        "rendered(project, Painter(each=2.0, dies_at=6, log=Path(sys.argv[3])), grid(),"
        " max_cost=18)"
    )
    base = project.state.parent.parent
    command = [sys.executable, "-c", program, str(project.root), str(base), str(log)]
    killed = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    painter = Painter(each=2.0, log=log)
    report = rendered(project, painter, grid(), max_cost=8)
    assert report.made == len(painter.made) == 4
    lines = log.read_text().split()
    assert sorted(lines) == sorted({cell.digest for cell in grid()})  # each once


def test_one_at_a_time(project: Project) -> None:
    with (
        only_one_rendering(project.root, project.state, wait=0),
        pytest.raises(Refused, match="another compose is rendering images"),
    ):
        rendered(project, Painter(), grid())
    with project.exclusive():  # an apply may go on meanwhile
        assert rendered(project, Painter(), grid()).made == 9


def test_the_rows_that_differ_most_come_first(project: Project) -> None:
    report = rendered(project, Painter(), grid(scales=(0.5, 0.5)), grid("b.yaml", (0.1, 1.0)))
    most, least = report.grids
    assert most.grid.path == "b.yaml" and least.differences == (0, 0, 0)
    assert list(most.differences) == sorted(most.differences, reverse=True, key=lambda d: d or 0)
    for row, difference in zip(most.grid.cells, most.differences, strict=True):
        _, before, after = (most.images[cell.digest].file for cell in row if cell)
        assert before and after and difference == mean_difference(before, after)


def test_a_kept_image_that_got_broken_is_not_compared(project: Project) -> None:
    report = rendered(project, Painter(), grid())
    row = report.grids[0].grid.cells[0]
    file = report.grids[0].images[row[1].digest].file if row[1] else None
    assert file is not None
    whole = file.read_bytes()
    file.write_bytes(whole[:8] + b"broken" + whole[-12:])
    again = rendered(project, Painter(), grid())
    assert again.grids[0].differences.count(None) == 1 and again.exit_status == 0


def test_a_kept_image_that_was_cut_off_is_made_again(project: Project) -> None:
    report = rendered(project, Painter(), grid())
    row = report.grids[0].grid.cells[0]
    file = report.grids[0].images[row[1].digest].file if row[1] else None
    assert file is not None
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    again = rendered(project, Painter(), grid())
    assert again.made == 1 and file.read_bytes() == whole
    assert again.grids[0].differences == report.grids[0].differences


def test_a_full_disk_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("composer.renderers.cache.write_atomically", full)
    with pytest.raises(TargetError, match="No space left on device") as caught:
        rendered(project, Painter(), grid())
    assert "free some space" in str(caught.value.hint)


# --- opening a renderer ------------------------------------------------------------------


def opened(project: Project, **more: object) -> Painter:
    options = RendererOptions("painter", **more)  # type: ignore[arg-type]
    with project.open_renderer(FakeTarget(), options) as renderer:
        assert isinstance(renderer, Painter)
    return renderer


def test_a_renderer_is_opened_with_a_folder_of_its_own(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_plugin(monkeypatch, Painter())
    assert opened(project, base_model="mine").info.base_model == "mine"
    assert (project.state / FOLDER).is_dir()
    with pytest.raises(UsageError, match="the renderer painter makes no images by an executor"):
        opened(project, executor="processes:2")
    with pytest.raises(UsageError, match="unknown renderer paintr"):
        project.open_renderer(FakeTarget(), RendererOptions("paintr"))


def test_a_dry_run_opens_it_without_writing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    painter = Painter()
    as_plugin(monkeypatch, painter)
    assert opened(project, dry_run=True).closed == 1
    assert not project.state.exists()
