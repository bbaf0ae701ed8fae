"""A sweep: which images it makes, what it refuses, and what its places promote."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.fake_target import FakeTarget, lora
from support.painter import INFO, Painter, paint

from composer import ComposeError, Project, Refused, UsageError
from composer.errors import Stopped, TargetError
from composer.model import Concept
from composer.previews.cells import Cell
from composer.previews.grid import NO_LORA
from composer.previews.report import Price
from composer.previews.shots import shots
from composer.project.options import SweepOptions
from composer.renderers.cache import CellCache

if TYPE_CHECKING:
    from pathlib import Path

    from composer.previews.report import PreviewReport
    from composer.renderers.base import Rendered

KNIGHT = "recipes/knight.yaml"
TEXT = """\
name: Knight
concepts:
  - {name: Ink Lines, scale: 0.5}
  - {modelId: lora_dust, scale: 0.7, modelEpoch: "000010"}
"""
SETTINGS = '[previews]\nprompts = ["a fox", "a cat"]\nseeds = [7]\nwidth = 128\nheight = 128\n'
INK, DUST = "Ink Lines", "lora_dust"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "recipes").mkdir()
    (tmp_path / KNIGHT).write_text(TEXT)
    (tmp_path / "compose.toml").write_text(SETTINGS)
    return Project(tmp_path)


def having(**loras: str) -> FakeTarget:
    target = FakeTarget()
    target.put(*(lora(id, name) for id, name in loras.items()))
    return target


@pytest.fixture
def target() -> FakeTarget:
    return having(lora_ink=INK, lora_dust="Pixel Dust")


def mix(ink: float, dust: float) -> list[Concept]:
    return [Concept("lora_ink", ink), Concept("lora_dust", dust, "000010")]


def swept(
    project: Project,
    target: FakeTarget,
    painter: Painter,
    axes: dict[str, list[float]],
    **options: float,
) -> PreviewReport:
    return project.sweep(target, painter, "Knight", axes, SweepOptions(**options))  # type: ignore[arg-type]


def test_an_image_for_each_scale_and_one_without_lora(project: Project, target: FakeTarget) -> None:
    painter, prices = Painter(), list[Price]()
    report = project.sweep(target, painter, KNIGHT, {INK: [0.2, 0.5]}, on_price=prices.append)
    rows = shots(project.recipes[0], project.settings.previews, INFO)
    assert [one.prompt for one in rows] == ["a fox", "a cat"]
    (grid,) = [one.grid for one in report.grids]
    assert grid.cells == tuple(
        (row.cell(), row.cell(mix(0.2, 0.7)), row.cell(mix(0.5, 0.7))) for row in rows
    )
    assert [one.title for one in grid.columns] == [NO_LORA, "Ink Lines 0.2", "Ink Lines 0.5"]
    assert (report.target, report.made, report.exit_status) == (target.key, 6, 0)
    assert set(painter.made) == set(grid) and prices == [Price(6, 0)]
    pictures = report.grids[0].images
    assert all(picture.file and picture.file.is_file() for picture in pictures.values())


def test_it_shares_images_with_a_preview_and_other_sweeps(
    project: Project, target: FakeTarget
) -> None:
    first = Painter()
    swept(project, target, first, {INK: [0.2, 0.5]})
    again = Painter()
    assert swept(project, target, again, {INK: [0.5, 0.2]}).made == 0 == len(again.made)
    other = Painter(each=1.0)
    report = swept(project, target, other, {INK: [0.5, 0.6], DUST: [0.7, 0.8]}, max_cost=6)
    assert (report.made, report.spent) == (6, 6)  # 0.6 at 0.7, both at 0.8, for each prompt
    for cell in other.made:
        assert cell.concepts != tuple(sorted(mix(0.5, 0.7), key=lambda one: one.model_id))


def test_a_scale_that_was_rendered_elsewhere_is_not_rendered_again(
    project: Project, target: FakeTarget
) -> None:
    first = shots(project.recipes[0], project.settings.previews, INFO)[0]
    swept(project, target, Painter(), {INK: [0.1]})  # so that there is a cache
    cache = CellCache(project.state / "previews")
    cell = Cell.of(mix(0.9, 0.7), first.prompt, first.seed, first.look, INFO)
    cache.keep(cell, paint(cell))
    painter = Painter()
    swept(project, target, painter, {INK: [0.9]})
    assert [one.prompt for one in painter.made] == ["a cat"]


@pytest.mark.parametrize(
    ("axes", "limit", "what"),
    [
        ({INK: [n / 20 for n in range(1, 14)]}, 25, "the sweep has 28 images, more than 25"),
        ({INK: [0.1, 0.2]}, 5, "the sweep has 6 images, more than 5"),
    ],
)
def test_more_images_than_the_limit_are_refused(
    project: Project, target: FakeTarget, axes: dict[str, list[float]], limit: int, what: str
) -> None:
    painter = Painter(each=1.0)
    with pytest.raises(Refused, match=what):
        swept(project, target, painter, axes, limit=limit, max_cost=100)
    assert painter.asked == painter.made == []
    with pytest.raises(UsageError, match="no sweep of"):
        project.promote("Knight", "B1")


def test_nothing_is_paid_that_was_not_allowed(project: Project, target: FakeTarget) -> None:
    painter = Painter(each=2.0)
    with pytest.raises(Refused, match="rendering 4 images costs 8"):
        swept(project, target, painter, {INK: [0.2]})
    assert painter.made == []
    assert swept(project, target, painter, {INK: [0.2]}, max_cost=8).spent == 8


def test_a_dry_run_tells_the_price_and_remembers_nothing(
    project: Project, target: FakeTarget
) -> None:
    report = swept(project, target, Painter(each=2.0), {INK: [0.2]}, dry_run=True)
    assert (report.price, report.made) == (Price(4, 0, 8), 0)
    assert not project.state.exists()


def test_the_column_without_lora_is_one_image_where_a_scale_is_zero(
    project: Project, target: FakeTarget
) -> None:
    painter = Painter()
    report = swept(project, target, painter, {INK: [0, 0.2], DUST: [0, 0.5]})
    (result,) = report.grids
    assert result.grid.cells[0][0] == result.grid.cells[0][1]
    assert len(painter.made) == len(result.images) == 2 * 4


def test_what_a_target_does_not_take(project: Project, target: FakeTarget) -> None:
    with pytest.raises(UsageError, match=r"1\.5 of Ink Lines is outside 0\.\.1 \(no wider"):
        strict = replace(target, unsupported={"scaleRange": "no wider scales"})
        swept(project, strict, Painter(), {INK: [1.5]})
    assert swept(project, target, Painter(), {INK: [1.5]}).made == 4


def test_a_lora_that_is_not_there(project: Project) -> None:
    with pytest.raises(ComposeError, match=r"recipes/knight\.yaml: no LoRA is named Ink Lines"):
        swept(project, having(lora_dust="Dust"), Painter(), {INK: [0.2]})
    with pytest.raises(ComposeError, match=r"there is no LoRA lora_dust on the target"):
        swept(project, having(lora_ink=INK), Painter(), {INK: [0.2]})


def test_what_fails_is_in_the_report_and_the_places_are_remembered(
    project: Project, target: FakeTarget
) -> None:
    spilt = TargetError("the paint was spilt")
    report = swept(project, target, Painter(fails={2: spilt}), {INK: [0.2, 0.6]})
    assert (list(report.failures.values()), report.exit_status) == ([spilt], 1)
    project.promote("Knight", "C2")
    assert (project.root / KNIGHT).read_text() == TEXT.replace("0.5", "0.6")


class _Interrupted(Painter):
    """Is told to stop after an image."""

    def render(self, *arguments: Any, **more: Any) -> Rendered:
        cells, keep = arguments
        super().render(cells[:1], keep, **more)
        raise Stopped


def test_an_interrupted_sweep_leaves_the_last_one_as_it_was(
    project: Project, target: FakeTarget
) -> None:
    swept(project, target, Painter(), {INK: [0.2]})
    report = swept(project, target, _Interrupted(), {INK: [0.3, 0.4]})
    assert (report.interrupted, report.made) == (True, 1)
    (change,) = project.promote("Knight", "B1").changes
    assert change.after == 0.2


def test_a_place_is_promoted_as_its_image_shows_it(project: Project, target: FakeTarget) -> None:
    axes = {DUST: [0.1, 0.3], INK: [0.4, 0.6]}
    report = swept(project, target, Painter(), axes)
    shown = report.grids[0].grid.cells[3][2]  # C4: the second prompt
    project.promote("Knight", "C4")
    recipe = Project(project.root).recipes[0]
    assert shown is not None and (shown.prompt, recipe.concepts[0].scale) == ("a cat", 0.6)
    again = swept(Project(project.root), target, painter := Painter(), axes)
    assert (again.made, painter.made) == (0, [])
    concepts = [Concept("lora_ink", 0.6), Concept("lora_dust", 0.3, "000010")]
    assert shown == Cell.of(concepts, "a cat", 7, shown.look, INFO)
    assert [ref.scale for ref in recipe.concepts] == [0.6, 0.3]


def test_a_place_of_a_sweep_whose_axes_are_given_again(project: Project) -> None:
    promoted = project.promote("Knight", "B4", {INK: [0.2, 0.4], DUST: [0.1, 0.9]})
    assert [(one.label, one.after) for one in promoted.changes] == [(INK, 0.2), (DUST, 0.9)]
    with pytest.raises(UsageError, match="no place B5"):  # two prompts at two scales
        project.promote("Knight", "B5", {INK: [0.2, 0.4], DUST: [0.1, 0.9]})
    with pytest.raises(UsageError, match="has no concept Zebra"):
        project.promote("Knight", "B1", {"Zebra": [0.2]})
