"""`compose sweep`: what it makes and says, and what `--promote` writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.cli import KNIGHT, ROGUE, compose, edit, snapshot
from support.painter import Painter, as_plugin
from support.state import state_of

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = '[previews]\nprompts = ["a fox"]\nwidth = 128\nheight = 128\n'
AXIS = "Ink Lines=0.2..0.8/3"
ARGUMENTS = ("--axis", AXIS, "--renderer", "painter")


@pytest.fixture
def painter(project: Path, monkeypatch: pytest.MonkeyPatch) -> Painter:
    """A renderer for the sample project, which charges nothing."""
    (project / "compose.toml").write_text(SETTINGS)
    painter = Painter()
    as_plugin(monkeypatch, painter)
    return painter


def test_a_sweep_and_then_a_place_of_it(project: Path, painter: Painter) -> None:
    ran = compose("sweep", KNIGHT, *ARGUMENTS, "--out", "sweep", at=project)
    assert ran.status == 0, ran
    assert "4 images: 4 to make." in ran.err
    assert "4 images: 4 made." in ran.out
    assert {file.name for file in (project / "sweep").iterdir()} == {
        *("index.html", "previews.json", "preview.md"),
        *("storybook-knight.png", "storybook-knight.webp"),
    }
    before = (project / KNIGHT).read_text()
    promoted = compose("sweep", KNIGHT, "--promote", "B1", at=project)
    assert (promoted.status, promoted.out) == (
        0,
        f"~ {KNIGHT} gets the scales of B1\n    0.80 -> 0.20  Ink Lines\n",
    )
    assert promoted.err == "Next: compose plan\n"
    assert (project / KNIGHT).read_text() == before.replace("0.8", "0.2")
    assert "scale of Ink Lines 0.8 -> 0.2" not in compose("plan", at=project).out  # no lock yet
    again = compose("sweep", "Storybook Knight", "--promote", "b1", at=project)
    assert (again.out, again.err) == (f"= {KNIGHT} has the scales of B1 already\n", "")


def test_places_are_in_the_output_of_every_format(project: Path, painter: Painter) -> None:
    sweep = ("sweep", "Storybook Knight", *ARGUMENTS, "--out", "sweep")
    shown = compose(*sweep, at=project).out
    assert "B  Ink Lines 0.2" in shown and "D  Ink Lines 0.8" in shown
    made = len(painter.made)
    plain = json.loads(compose(*sweep, "-o", "json", at=project).out)
    (recipe,) = plain["recipes"]
    places = {c["place"]: c["concepts"] for row in recipe["rows"] for c in row["cells"]}
    assert list(places) == ["A1", "B1", "C1", "D1"] and places["A1"] == []
    assert sorted(one["scale"] for one in places["C1"]) == [0.5, 0.65]
    text = compose(*sweep, "-o", "markdown", at=project).out
    assert text.startswith("## compose sweep: 1 recipe, 4 images") and "Ink Lines 0.5" in text
    assert len(painter.made) == made == 4


def test_promoting_for_programs_and_as_a_dry_run(project: Path, painter: Painter) -> None:
    promote = ("sweep", ROGUE, "--axis", "Ink Lines=0.25,0.5", "--promote", "C1")
    before = snapshot(project)
    dry = compose(*promote, "--dry-run", at=project)
    assert dry.out.startswith(f"Dry run: nothing is written.\n~ {ROGUE} gets the scales of C1\n")
    plain = json.loads(compose(*promote, "--dry-run", "-o", "json", at=project).out)
    assert (plain["dryRun"], plain["place"], len(plain["changes"])) == (True, "C1", 1)
    assert "| `Ink Lines` |" in compose(*promote, "--dry-run", "-o", "markdown", at=project).out
    assert snapshot(project) == before
    assert json.loads(compose(*promote, "-o", "json", at=project).out) == {**plain, "dryRun": False}
    assert painter.made == []


def test_what_is_there_is_not_rendered_again(project: Path, painter: Painter) -> None:
    edit(project / KNIGHT, "scale: 0.8", "scale: 0.5")
    preview = ("preview", KNIGHT, "--renderer", "painter", "--out", "preview")
    assert compose(*preview, at=project).status == 0
    made = len(painter.made)
    assert made == 2  # without LoRA, and at 0.5
    ran = compose("sweep", KNIGHT, *ARGUMENTS, "--out", "sweep", at=project)
    assert "4 images: 2 to make, 2 already there." in ran.err
    assert len(painter.made) == made + 2


def test_a_price_needs_a_limit(project: Path, painter: Painter) -> None:
    painter.each = 2.5
    sweep = ("sweep", KNIGHT, *ARGUMENTS, "--out", "sweep/")
    refused = compose(*sweep, at=project)
    assert refused.status == 3 and "allow it with --max-cost 10" in refused.err
    assert refused.err.index("4 images: 4 to make; price 10") < refused.err.index("rendering 4")
    assert painter.made == [] and not (project / "sweep").exists()
    assert compose(*sweep, "--max-cost", "9", at=project).status == 3
    dry = compose(*sweep, "--dry-run", at=project)
    assert (dry.status, "price 10" in dry.out, painter.made) == (0, True, [])
    ran = compose(*sweep, "--max-cost", "10", at=project)
    assert (ran.status, "4 images: 4 made; cost 10." in ran.out) == (0, True)


def test_a_dry_run_writes_nothing(project: Path, painter: Painter) -> None:
    before = snapshot(project)
    ran = compose("sweep", KNIGHT, *ARGUMENTS, "--dry-run", at=project)
    assert (ran.status, ran.out.splitlines()[0]) == (0, "Dry run: nothing is written.")
    assert snapshot(project) == before and not state_of(project).exists()


@pytest.mark.parametrize(
    ("arguments", "status", "what"),
    [
        ((KNIGHT,), 64, "Missing option '--axis', or '--promote'"),
        ((KNIGHT, "--axis", "Ink Lines"), 64, "is not NAME=SCALES"),
        ((KNIGHT, "--axis", "ink lines=1"), 64, "did you mean Ink Lines?"),
        (("Knigt", "--axis", AXIS), 64, "the project has no recipe Knigt"),
        (("recipes/nope.yaml", "--axis", AXIS), 64, "nope.yaml doesn't exist"),
        (("recipes", "--axis", AXIS), 64, "the project has no recipe recipes"),
        ((KNIGHT, "--axis", "Ink Lines=0..1/9", "--limit", "9"), 3, "--limit 10 allows them"),
        ((KNIGHT, "--axis", "Ink Lines=3"), 64, "not within -2..2"),
        ((KNIGHT, "--axis", AXIS, "--promote", "E1"), 64, "the sweep has no place E1"),
        ((KNIGHT, "--axis", AXIS, "--promote", "A1"), 64, "in the column without LoRA"),
        ((KNIGHT, "--promote", "B1"), 64, "no sweep of recipes/storybook-knight.yaml was made"),
        ((KNIGHT, "--axis", AXIS, "--limit", "0"), 64, "--limit"),
    ],
)
def test_what_can_not_be_swept(
    project: Path, painter: Painter, arguments: tuple[str, ...], status: int, what: str
) -> None:
    ran = compose("sweep", *arguments, "--renderer", "painter", "--out", "sweep", at=project)
    assert (ran.status, what in ran.err) == (status, True), ran
    assert painter.made == [] and not (project / "sweep").exists()
    if what != "no renderer" and "--limit" not in arguments:
        assert "Target:" not in ran.err  # said before anything is opened


def test_a_recipe_in_another_folder_than_the_working_one(project: Path, painter: Painter) -> None:
    promote = ("--axis", "Ink Lines=0.3", "--promote", "B1")
    ran = compose("sweep", "storybook-knight.yaml", *promote, at=project / "recipes")
    assert ran.status == 0, ran
    assert "scale: 0.3\n" in (project / KNIGHT).read_text()
