"""A place of the last sweep becomes the recipe: its scales, and no other character of the file."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from support.failing_disk import Failure, failing_disk

from composer import InvalidInput, Project, Refused, UsageError
from composer.errors import TargetError
from composer.previews.axes import axes_of
from composer.previews.sweeping import Places, Promoted, ScaleChange
from composer.project.promoting import remember_sweep

if TYPE_CHECKING:
    from pathlib import Path

KNIGHT = "recipes/knight.yaml"
TEXT = """\
# The knight: scale 0.5 looked too soft.
name: "Knight"   # two spaces
concepts:
  - {name: Ink Lines, scale: 0.50}   # was 0.6
  - name: 'Pixel Dust'
    scale: .7
"""
AXES = {"Ink Lines": [0.2, 0.4, 0.6], "Pixel Dust": [0.7, 0.8]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "recipes").mkdir()
    write(tmp_path, TEXT)
    return tmp_path


def write(root: Path, text: str) -> None:
    (root / KNIGHT).write_bytes(text.encode())


def swept(root: Path, axes: dict[str, list[float]] = AXES, blocks: int = 2) -> Project:
    """The project, as after a sweep."""
    project = Project(root)
    (recipe,) = project.recipes
    remember_sweep(project, recipe, Places(axes_of(axes, recipe), blocks))
    return project


def test_only_the_scales_of_the_place_are_written(root: Path) -> None:
    promoted = swept(root).promote("Knight", "c4")
    changes = (ScaleChange("Ink Lines", 0.5, 0.4), ScaleChange("Pixel Dust", 0.7, 0.8))
    assert promoted == Promoted(KNIGHT, "Knight", "C4", changes)
    expected = TEXT.replace("0.50}", "0.4}").replace(".7", "0.8")
    assert (root / KNIGHT).read_bytes() == expected.encode()


def test_a_scale_that_the_recipe_has_stays_as_it_is_written(root: Path) -> None:
    promoted = swept(root).promote(KNIGHT, "D1")
    assert promoted.changes == (ScaleChange("Ink Lines", 0.5, 0.6),)
    assert (root / KNIGHT).read_bytes() == TEXT.replace("0.50}", "0.6}").encode()
    before = (root / KNIGHT).stat()
    assert Project(root).promote(KNIGHT, "D1").changes == ()
    assert (root / KNIGHT).stat() == before


def test_a_second_place_of_the_same_sweep(root: Path) -> None:
    swept(root).promote("Knight", "C4")
    Project(root).promote("Knight", "B1")
    assert (root / KNIGHT).read_bytes() == TEXT.replace("0.50}", "0.2}").replace(
        ".7", "0.7"
    ).encode()


def test_a_dry_run_writes_nothing(root: Path) -> None:
    project = swept(root)
    before = (root / KNIGHT).stat(), (Project(root).state / "sweeps").stat()
    assert len(project.promote("Knight", "C4", dry_run=True).changes) == 2
    assert ((root / KNIGHT).stat(), (Project(root).state / "sweeps").stat()) == before


def test_what_is_not_of_the_mix_may_change_after_a_sweep(root: Path) -> None:
    swept(root)
    edited = TEXT.replace('"Knight"', "Rogue").replace("0.50", "0.9") + "tags: [a]"
    write(root, edited)
    Project(root).promote("Rogue", "B2")
    assert (root / KNIGHT).read_bytes() == (
        edited.replace("0.9", "0.2").replace(".7", "0.8").encode()
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (".7", ".75"),
        ("'Pixel Dust'", "'Pixel Dust'\n    modelEpoch: '000010'"),
        ("'Pixel Dust'", "Crosshatch"),
        ("Ink Lines", "Ink"),
        ("concepts:\n", "concepts:\n  - {name: More, scale: 1}\n"),
    ],
)
def test_another_mix_than_was_swept(root: Path, old: str, new: str) -> None:
    swept(root, {"Ink Lines": [0.2, 0.4]})
    write(root, TEXT.replace(old, new))
    with pytest.raises(Refused, match=r"recipes/knight\.yaml has other LoRAs or scales") as refused:
        Project(root).promote("Knight", "B1")
    assert "sweep it again" in (refused.value.hint or "")
    assert (root / KNIGHT).read_bytes() == TEXT.replace(old, new).encode()


def test_axes_that_are_given_again_are_those_of_the_last_sweep_or_of_another(root: Path) -> None:
    swept(root, {"Ink Lines": [0.2, 0.4]})
    write(root, TEXT.replace(".7", "0.75"))
    with pytest.raises(Refused, match="other LoRAs or scales"):
        Project(root).promote("Knight", "C1", {"Ink Lines": [0.2, 0.4]})
    Project(root).promote("Knight", "C1", {"Ink Lines": [0.2, 0.6]})
    assert (root / KNIGHT).read_bytes() == (
        TEXT.replace(".7", "0.75").replace("0.50}", "0.6}").encode()
    )


def test_without_a_sweep_there_are_no_places(root: Path) -> None:
    with pytest.raises(UsageError, match=r"no sweep of recipes/knight\.yaml was made on this"):
        Project(root).promote("Knight", "B1")
    assert not (Project(root).state / "sweeps").exists()


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "null", "{", "{}", "\udcff", "[" * 9000, '{"axes": 1}', '{"axes": {"A": 1}}'),
        '{"axes": {"Ink Lines": ["x"]}, "blocks": 1, "others": []}',
        '{"axes": {"Ink Lines": [0.2]}, "blocks": 1}',
    ],
)
def test_a_memory_that_is_damaged_is_none(root: Path, text: str) -> None:
    project = swept(root)
    (file,) = (Project(root).state / "sweeps").iterdir()
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UsageError, match="no sweep of"):
        project.promote("Knight", "B1")


def test_a_memory_is_for_one_recipe(root: Path) -> None:
    swept(root)
    (root / "recipes/b.yaml").write_text("name: B\nconcepts: [{name: Ink Lines, scale: 1}]\n")
    with pytest.raises(UsageError, match=r"no sweep of recipes/b\.yaml"):
        Project(root).promote("B", "B1")


@pytest.mark.parametrize(
    ("recipe", "place", "what"),
    [
        ("Knigt", "B1", "the project has no recipe Knigt .did you mean Knight"),
        ("Zebra", "B1", r"no recipe Zebra \(its recipes: Knight\)"),
        ("Knight", "A1", "A1 is in the column without LoRA"),
        ("Knight", "E1", "the sweep has no place E1"),
    ],
)
def test_what_is_not_there(root: Path, recipe: str, place: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        swept(root).promote(recipe, place)


def test_scales_that_the_recipe_does_not_allow(root: Path) -> None:
    project = swept(root, {"Ink Lines": [1.5, 0.4]})
    with pytest.raises(UsageError, match=r"can't have these scales: concepts\[0\].scale: 1\.5"):
        project.promote("Knight", "B1")
    assert (root / KNIGHT).read_bytes() == TEXT.encode()
    write(root, "scaleRange: extended\n" + TEXT)
    Project(root).promote("Knight", "B1")
    assert b"scale: 1.5}" in (root / KNIGHT).read_bytes()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("name: A\nconcepts:\n- &a {name: B, scale: 0.5}\n", "E206"),
        ("name: A\nconcepts: [{name: B, scale: 0.5}, {name: B, scale: 0.5}]", "E110"),
        ("name: A\nconcepts: [{name: B, scale: 0.5, scale: 0.6}]", "E212"),
    ],
)
def test_a_recipe_with_problems_is_left_alone(root: Path, text: str, code: str) -> None:
    swept(root)
    write(root, text)
    with pytest.raises(InvalidInput) as invalid:
        Project(root).promote(KNIGHT, "B1")
    assert [problem.code for problem in invalid.value.problems] == [code]
    assert (root / KNIGHT).read_bytes() == text.encode()


# --- the file ----------------------------------------------------------------------------


def test_git_shows_a_line_for_each_scale(root: Path) -> None:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True)
        return done.stdout

    git("init", "-q")
    git("add", ".")
    swept(root).promote("Knight", "C4")
    assert git("diff", "--numstat").split() == ["2", "2", KNIGHT]


@pytest.mark.skipif(os.name == "nt", reason="rights of POSIX")
def test_the_file_keeps_its_rights_and_links_stay(root: Path) -> None:
    (root / "mixes").mkdir()
    real = root / "mixes/real.yaml"
    (root / KNIGHT).rename(real)
    real.chmod(0o640)
    (root / KNIGHT).symlink_to("../mixes/real.yaml")
    swept(root).promote("Knight", "C4")
    assert (root / KNIGHT).is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert b"scale: 0.4}" in real.read_bytes()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_leaves_the_file_as_it_was(root: Path, number: int) -> None:
    project = swept(root)
    with failing_disk(root) as disk:
        project.promote("Knight", "C4")
    calls = len(disk.calls)
    assert calls > 3
    for at in range(1, calls + 1):
        write(root, TEXT)
        with failing_disk(root, failure=Failure(at, number, lasting=True)) as disk:
            with suppress(TargetError):
                Project(root).promote("Knight", "C4")
            assert disk.fired
        done = TEXT.replace("0.50}", "0.4}").replace(".7", "0.8")
        assert (root / KNIGHT).read_bytes() in (TEXT.encode(), done.encode())


def test_what_is_remembered_names_the_recipe(root: Path) -> None:
    swept(root, {"Ink Lines": [0.2]}, blocks=3)
    (file,) = (Project(root).state / "sweeps").iterdir()
    assert json.loads(file.read_text()) == {
        "recipe": KNIGHT,
        "axes": {"Ink Lines": [0.2]},
        "blocks": 3,
        "others": [["Ink Lines", None, None], ["Pixel Dust", None, 0.7]],
    }
