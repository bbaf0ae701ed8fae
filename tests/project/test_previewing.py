"""Which recipes a preview shows, what *before* is, and what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.fake_target import FakeTarget, lora
from support.painter import Painter
from support.repositories import commit, git

from composer import Project, Refused, Selection, UsageError
from composer.model import Concept
from composer.previews.grid import AFTER, BEFORE, NO_LORA
from composer.project.options import PreviewOptions

if TYPE_CHECKING:
    from pathlib import Path

    from composer.previews.grid import Grid
    from composer.previews.report import PreviewReport, Price

SETTINGS = '[previews]\nprompts = ["a fox"]\nseeds = [7, 8]\nwidth = 128\nheight = 128\n'
FOX, CAT = "recipes/fox.yaml", "recipes/cat.yaml"


def write(root: Path, path: str, *concepts: str, more: str = "") -> None:
    """A recipe named after its file, of concepts as `Ink: 0.5` or `#lora_ink: 0.5`."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"name: {file.stem.title()}", "concepts:"]
    for concept in concepts:
        label, scale = concept.split(": ")
        key = f"modelId: {label[1:]}" if label[0] == "#" else f"name: {label}"
        lines.append(f"  - {{{key}, scale: {scale}}}")
    file.write_text("\n".join(lines) + f"\n{more}", encoding="utf-8")


@pytest.fixture
def target() -> FakeTarget:
    made = FakeTarget()
    for name in ("Ink", "Dust", "Stone"):
        made.put(lora(f"lora_{name.lower()}", name))
    return made


@pytest.fixture
def root(tmp_path: Path, target: FakeTarget) -> Path:
    """Two recipes, applied and committed."""
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch", "main")
    (root / "compose.toml").write_text(SETTINGS, encoding="utf-8")
    write(root, FOX, "Ink: 0.5", "Dust: 0.2")
    write(root, CAT, "Stone: 1")
    assert Project(root).apply(target).exit_status == 0
    commit(root)
    return root


def preview(
    root: Path,
    target: FakeTarget,
    painter: Painter | None = None,
    *paths: str,
    base: str | None = None,
    max_cost: float | None = None,
) -> PreviewReport:
    project = Project(root, Selection(tuple(root / path for path in paths)))
    options = PreviewOptions(base=base, max_cost=max_cost)
    return project.preview(target, painter or Painter(), options)


def columns(grid: Grid) -> dict[str, tuple[str, ...]]:
    return {column.title: column.lines for column in grid.columns}


# --- by the plan -------------------------------------------------------------------------


def test_only_what_changed_is_shown_with_before_and_after(root: Path, target: FakeTarget) -> None:
    assert preview(root, target).grids == ()
    write(root, FOX, "Ink: 0.7", "Dust: 0.2")
    painter = Painter()
    report = preview(root, target, painter)
    (result,) = report.grids
    assert (report.target, report.made, report.notes) == (target.key, 6, ())
    assert (result.grid.path, result.grid.name) == (FOX, "Fox")
    assert columns(result.grid) == {
        NO_LORA: (),
        BEFORE: ("0.20  Dust", "0.50  Ink"),
        AFTER: ("0.20  Dust", "0.70  Ink"),
    }
    assert {row.title for row in result.grid.rows} == {"a fox"}
    assert {row.lines for row in result.grid.rows} == {("seed 7",), ("seed 8",)}
    scales = {tuple(c.scale for c in cell.concepts) for cell in painter.made}
    assert scales == {(), (0.2, 0.5), (0.2, 0.7)}
    assert all(difference for difference in result.differences)


def test_before_is_free_after_a_first_run(root: Path, target: FakeTarget) -> None:
    write(root, FOX, "Ink: 0.7", "Dust: 0.2")
    preview(root, target, Painter(each=3.0), max_cost=18)
    write(root, FOX, "Ink: 0.8", "Dust: 0.2")
    told: list[Price] = []
    painter = Painter(each=3.0)
    options = PreviewOptions(max_cost=6)
    report = Project(root).preview(target, painter, options, on_price=told.append)
    assert (told[0].cells, told[0].reused, told[0].total) == (2, 4, 6)
    assert (report.made, report.spent, len(painter.made)) == (2, 6, 2)
    assert Project(root).apply(target).exit_status == 0
    write(root, FOX, "Ink: 0.7", "Dust: 0.2")  # back: every image is there
    assert preview(root, target, Painter(each=3.0)).made == 0


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        (SETTINGS.replace('"a fox"', '"a fox", "a cat"'), 6),
        (SETTINGS.replace("7, 8", "7, 9"), 3),
        (SETTINGS.replace("width = 128", "width = 144"), 6),
    ],
)
def test_a_changed_setting_makes_exactly_what_is_missing(
    root: Path, target: FakeTarget, settings: str, missing: int
) -> None:
    write(root, FOX, "Ink: 0.7", "Dust: 0.2")
    preview(root, target)
    (root / "compose.toml").write_text(settings, encoding="utf-8")
    painter = Painter()
    assert preview(root, target, painter).made == len(painter.made) == missing


def test_a_new_recipe_has_no_before_and_its_own_prompts(root: Path, target: FakeTarget) -> None:
    write(root, "recipes/owl.yaml", "Ink: 1", more="preview: {prompts: [an owl, a fox]}\n")
    (result,) = preview(root, target).grids
    assert columns(result.grid) == {NO_LORA: (), AFTER: ("1.00  Ink",)}
    assert [row.title for row in result.grid.rows] == ["a fox", "a fox", "an owl", "an owl"]
    assert result.differences == ()


def test_named_recipes_are_shown_though_they_stay_as_they_are(
    root: Path, target: FakeTarget
) -> None:
    write(root, FOX, "Ink: 0.7", "Dust: 0.2")
    (result,) = preview(root, target, None, CAT).grids
    assert (result.grid.path, columns(result.grid)) == (CAT, {NO_LORA: (), AFTER: ("1.00  Stone",)})
    assert {one.grid.path for one in preview(root, target, None, "recipes").grids} == {FOX, CAT}


def test_what_differs_most_comes_first(root: Path, target: FakeTarget) -> None:
    write(root, FOX, "Ink: 0.52", "Dust: 0.2")
    write(root, CAT, "Stone: 0.1")
    assert [one.grid.path for one in preview(root, target).grids] == [CAT, FOX]


def test_what_is_blocked_and_what_would_look_the_same_are_notes(
    root: Path, target: FakeTarget
) -> None:
    write(root, FOX, "Inc: 0.5")
    write(root, CAT, "Stone: 1", more="training: {parameters: {rank: 8}}\n")
    report = preview(root, target)
    assert (report.grids, report.exit_status) == ((), 0)
    blocked, same = report.notes
    assert blocked.startswith(f"Fox ({FOX}) is left out: no LoRA is named Inc")
    assert same == f"Cat ({CAT}) is left out: its LoRAs and scales stay as they are"


def test_a_drift_is_compared_with_what_the_target_has(root: Path, target: FakeTarget) -> None:
    (id,) = [model.id for model in target.list_models() if model.name == "Fox"]
    target.change(id, concepts=(Concept("lora_ink", 0.9), Concept("lora_dust", 0.2)))
    (result,) = preview(root, target).grids
    assert columns(result.grid)[BEFORE] == ("0.20  Dust", "0.90  Ink")
    assert columns(result.grid)[AFTER] == ("0.20  Dust", "0.50  Ink")


def test_nothing_is_made_without_a_limit(root: Path, target: FakeTarget) -> None:
    write(root, FOX, "Ink: 0.7", "Dust: 0.2")
    painter = Painter(each=3.0)
    for limit in (None, 17):
        with pytest.raises(Refused, match="rendering 6 images costs 18"):
            preview(root, target, painter, max_cost=limit)
    assert painter.made == []


# --- compared with a git revision --------------------------------------------------------


def based(
    root: Path, target: FakeTarget, base: str = "main"
) -> dict[str, dict[str, tuple[str, ...]]]:
    grids = (one.grid for one in preview(root, target, base=base).grids)
    return {grid.path: columns(grid) for grid in grids}


def test_the_base_says_what_was_before(root: Path, target: FakeTarget) -> None:
    git(root, "checkout", "--quiet", "-b", "topic")
    assert based(root, target) == {}
    write(root, FOX, "Ink: 0.7")
    write(root, "recipes/owl.yaml", "#lora_ink: 1")
    assert Project(root).apply(target).exit_status == 0  # the lock has it, main does not
    commit(root)
    assert preview(root, target).grids == ()
    assert based(root, target) == {
        FOX: {NO_LORA: (), BEFORE: ("0.20  Dust", "0.50  Ink"), AFTER: ("0.70  Ink",)},
        "recipes/owl.yaml": {NO_LORA: (), AFTER: ("1.00  Ink",)},
    }
    assert based(root, target, "HEAD") == {}


def test_a_moved_and_a_renamed_recipe_keep_their_before(root: Path, target: FakeTarget) -> None:
    (root / FOX).rename(root / "recipes/animals.yaml")
    text = (root / "recipes/animals.yaml").read_text().replace("0.5", "0.6")
    (root / "recipes/animals.yaml").write_text(text)
    cat = (root / CAT).read_text().replace("Cat", "Tiger").replace("scale: 1", "scale: 0.9")
    (root / CAT).write_text(cat)
    shown = based(root, target)
    assert shown["recipes/animals.yaml"][BEFORE] == ("0.20  Dust", "0.50  Ink")
    assert shown[CAT][BEFORE] == ("1.00  Stone",)


def test_a_moved_pin_is_a_change_though_the_file_is_the_same(
    root: Path, target: FakeTarget
) -> None:
    target.put(lora("lora_ink_2", "Ink 2"))
    text = (root / "compose.lock").read_text().replace('"lora_ink"', '"lora_ink_2"')
    (root / "compose.lock").write_text(text)
    assert set(based(root, target)) == {FOX}


def test_a_broken_or_unknown_before_is_a_note(root: Path, target: FakeTarget) -> None:
    good = (root / FOX).read_text()
    (root / FOX).write_text("name: Fox\nconcepts: []\n")
    write(root, CAT, "Gone: 1")
    commit(root)
    (root / FOX).write_text(good)
    write(root, CAT, "Stone: 0.4")
    report = preview(root, target, base="HEAD")
    assert [columns(one.grid).keys() for one in report.grids] == 2 * [{NO_LORA: 0, AFTER: 0}.keys()]
    cat, fox = report.notes
    assert cat == f"Cat ({CAT}): before is left out: in HEAD it names Gone, which is unknown"
    assert fox.startswith(f"Fox ({FOX}): before is left out: in HEAD it is no valid recipe: ")


def test_a_link_and_a_huge_file_of_the_base_are_no_recipes(root: Path, target: FakeTarget) -> None:
    secret = root.parent / "secret.yaml"
    write(root.parent, "secret.yaml", "Ink: 1")
    (root / FOX).unlink()
    (root / FOX).symlink_to(secret)
    (root / CAT).write_text("name: Cat\n" + "#" * 300_000)
    commit(root)
    (root / FOX).unlink()
    write(root, FOX, "Ink: 0.7")
    write(root, CAT, "Stone: 0.4")
    report = preview(root, target, base="HEAD")
    assert all(one.grid.column(BEFORE) is None for one in report.grids)
    (note,) = report.notes  # a link is no file of the revision
    assert note.startswith(f"Cat ({CAT}): before is left out: in HEAD it is no valid recipe: ")
    assert "262,144" in note


@pytest.mark.parametrize(
    "base", ["", "nowhere", "-h", "--output=x", "compose.lock", "HEAD:recipes"]
)
def test_what_is_no_revision_is_refused(root: Path, target: FakeTarget, base: str) -> None:
    with pytest.raises(UsageError, match=r"--base: .* is not a git revision"):
        preview(root, target, base=base)


def test_nothing_that_the_repository_configures_runs(root: Path, target: FakeTarget) -> None:
    ran = root.parent / "ran"
    git(root, "config", "filter.evil.smudge", f"touch '{ran}'; cat")
    git(root, "config", "diff.external", f"touch '{ran}'")
    (root / ".gitattributes").write_text("*.yaml filter=evil\n", encoding="utf-8")
    write(root, FOX, "Ink: 0.7")
    assert (set(based(root, target)), ran.exists()) == ({FOX}, False)
