"""Real merges of real repositories: without the merge driver, with it, and what one apply makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.cli import REPO, compose, edit
from support.model_types import COMPOSITION
from support.state import copy_project

from composer.lock import LOCK_NAME, dump, parse, read_lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from composer.model import Entry

CASTLE, ROGUE = "recipes/castle-keep.yaml", "recipes/pixel-rogue.yaml"
KNIGHT = "recipes/storybook-knight.yaml"


def git(at: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    names = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    return subprocess.run(
        ["git", *names, *arguments], cwd=at, capture_output=True, text=True, check=False
    )


def commit(at: Path, message: str) -> None:
    for arguments in (["add", "--all"], ["commit", "--quiet", "--message", message]):
        ran = git(at, *arguments)
        assert ran.returncode == 0, ran


@pytest.fixture
def project(tmp_path: Path, applied_once: Path) -> Path:
    """The sample project, applied and committed, with this repository's `.gitattributes`."""
    project = copy_project(applied_once, tmp_path / "project")
    (project / ".gitattributes").write_bytes((REPO / ".gitattributes").read_bytes())
    (project / ".git").rmdir()
    git(project, "init", "--quiet", "--initial-branch=main")
    commit(project, "base")
    return project


@pytest.fixture
def driver(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git knows the driver by the command in docs/lock.md, with `compose` on the PATH."""
    program = tmp_path / "bin" / "compose"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m composer "$@"\n', "utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(program.parent), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    lines = (REPO / "docs/lock.md").read_text("utf-8").splitlines()
    (command,) = [line for line in lines if line.startswith("git config merge.compose.driver")]
    subprocess.run(command, cwd=project, shell=True, check=True)


def on_two_branches(
    project: Path, ours: Callable[[Path], None], theirs: Callable[[Path], None]
) -> None:
    """Branch `other` with one change, branch `main` with the other; each applied and committed."""
    git(project, "branch", "other")
    for branch, change in (("other", theirs), ("main", ours)):
        git(project, "checkout", "--quiet", branch)
        change(project)
        assert compose("apply", at=project).status == 0
        commit(project, branch)


def rescale(path: str, before: str, after: str) -> Callable[[Path], None]:
    return lambda project: edit(project / path, f"scale: {before}\n", f"scale: {after}\n")


def entries(project: Path) -> dict[str, Entry]:
    return dict(read_lock(project).target("local").recipes)


def models(project: Path) -> dict[str, str]:
    """Each composition of the local target, and its status."""
    listed = json.loads(compose("models", "-o", "json", at=project).out)["models"]
    return {one["id"]: one["status"] for one in listed if one["type"] == COMPOSITION}


def is_right_after_one_apply(project: Path) -> None:
    """Nothing is made, each recipe has its entry, and then there is nothing to do."""
    ids = {id for entry in entries(project).values() for id in entry.all_ids}
    assert compose("apply", at=project).status == 0
    after = entries(project)
    assert {id for entry in after.values() for id in entry.all_ids} == ids
    assert all(entry.content and not entry.next for entry in after.values())
    assert compose("plan", "--detailed-exitcode", at=project).status == 0


# --- without the driver: by lines --------------------------------------------------------


@pytest.mark.parametrize("other", [ROGUE, KNIGHT], ids=["neighbours", "apart"])
def test_changes_of_two_recipes_merge_by_lines(project: Path, other: str) -> None:
    """`.gitattributes` names a driver that this clone doesn't know: git merges lines."""
    scales = {ROGUE: ("0.6", "0.7"), KNIGHT: ("0.65", "0.7")}
    on_two_branches(project, rescale(CASTLE, "0.9", "0.8"), rescale(other, *scales[other]))
    theirs = git(project, "show", f"other:{LOCK_NAME}").stdout
    merged = git(project, "merge", "--no-edit", "other")
    assert merged.returncode == 0, merged
    text = (project / LOCK_NAME).read_text("utf-8")
    assert text == dump(parse(text))
    assert entries(project)[other] == parse(theirs).target("local").recipes[other]
    before = (project / LOCK_NAME).read_bytes()
    is_right_after_one_apply(project)
    assert (project / LOCK_NAME).read_bytes() == before


def test_a_removed_and_a_changed_neighbour_merge_by_lines(project: Path) -> None:
    def remove(project: Path) -> None:
        (project / ROGUE).unlink()
        assert compose("apply", "--prune", at=project).status == 0

    on_two_branches(project, rescale(CASTLE, "0.9", "0.8"), remove)
    merged = git(project, "merge", "--no-edit", "other")
    assert merged.returncode == 0, merged
    assert ROGUE not in entries(project)
    is_right_after_one_apply(project)


def test_a_merge_that_is_not_json_is_refused_with_the_commands_that_help(project: Path) -> None:
    on_two_branches(project, rescale(CASTLE, "0.9", "0.8"), rescale(ROGUE, "0.6", "0.7"))
    assert git(project, "merge", "--no-commit", "other").returncode == 0
    edit(project / LOCK_NAME, '"recipes": {', '"recipes":')
    commit(project, "a merge with a broken lock")
    for command in (["plan"], ["apply"], ["status"], ["lock"], ["lock", "--repair"]):
        ran = compose(*command, at=project)
        assert (ran.status, f"{LOCK_NAME}:" in ran.err) == (65, True), ran
        assert "git checkout HEAD -- compose.lock; HEAD^" in " ".join(ran.err.split())
    assert git(project, "checkout", "HEAD^", "--", LOCK_NAME).returncode == 0
    assert compose("apply", at=project).status == 0
    assert compose("plan", "--detailed-exitcode", at=project).status == 0


# --- with the driver: as values ----------------------------------------------------------


@pytest.mark.usefixtures("driver")
def test_neighbours_that_lines_could_not_merge_are_no_conflict(project: Path) -> None:
    """Both branches changed one recipe: its text merges, and so does the lock."""

    def retag(project: Path) -> None:
        with (project / ROGUE).open("a", encoding="utf-8") as file:
            file.write("protect: true\n")

    on_two_branches(project, rescale(ROGUE, "0.6", "0.7"), retag)
    merged = git(project, "merge", "--no-edit", "other")
    assert merged.returncode == 0, merged
    text = (project / LOCK_NAME).read_text("utf-8")
    assert text == dump(parse(text)) and entries(project)[ROGUE].protect
    is_right_after_one_apply(project)


@pytest.mark.usefixtures("driver")
def test_a_recipe_moved_here_and_changed_there_has_one_entry(project: Path) -> None:
    new = "recipes/rogues/pixel.yaml"

    def move(project: Path) -> None:
        (project / new).parent.mkdir()
        (project / ROGUE).rename(project / new)

    on_two_branches(project, move, rescale(ROGUE, "0.6", "0.7"))
    changed = (
        parse(git(project, "show", f"other:{LOCK_NAME}").stdout).target("local").recipes[ROGUE]
    )
    merged = git(project, "merge", "--no-edit", "other")
    assert merged.returncode == 0, merged
    assert ROGUE not in entries(project) and entries(project)[new] == changed
    is_right_after_one_apply(project)


def test_a_recipe_moved_here_and_changed_there_is_repaired_to_one_entry(project: Path) -> None:
    """The same without the driver: git calls it a conflict, or merges the lines."""
    new = "recipes/rogues/pixel.yaml"

    def move(project: Path) -> None:
        (project / new).parent.mkdir()
        (project / ROGUE).rename(project / new)

    on_two_branches(project, move, rescale(ROGUE, "0.6", "0.7"))
    if git(project, "merge", "--no-edit", "other").returncode:
        assert compose("lock", "--repair", at=project).status == 0
    made = models(project)
    assert compose("apply", at=project).status == 0
    entry = entries(project)[new]
    assert ROGUE not in entries(project) and entry.content and not entry.next
    assert models(project) == made and made[str(entry.composition)] == "trained"
    assert sorted(concept.scale for concept in entry.content.concepts) == [0.25, 0.7]
    assert compose("plan", "--detailed-exitcode", at=project).status == 0


@pytest.mark.usefixtures("driver")
def test_two_branches_that_each_wrote_the_first_lock(project: Path) -> None:
    """There is no base: git gives the driver an empty file."""
    (project / LOCK_NAME).unlink()
    commit(project, "no lock")
    on_two_branches(project, rescale(CASTLE, "0.9", "0.8"), rescale(KNIGHT, "0.65", "0.7"))
    merged = git(project, "merge", "--no-edit", "other")
    assert merged.returncode == 0, merged
    is_right_after_one_apply(project)


@pytest.mark.usefixtures("driver")
def test_a_side_that_the_driver_can_not_read_is_a_conflict(project: Path) -> None:
    on_two_branches(project, rescale(CASTLE, "0.9", "0.8"), rescale(ROGUE, "0.6", "0.7"))
    git(project, "checkout", "--quiet", "other")
    edit(project / LOCK_NAME, '"recipes": {', '"recipes":')
    commit(project, "broken")
    git(project, "checkout", "--quiet", "main")
    ours = (project / LOCK_NAME).read_bytes()
    merged = git(project, "merge", "--no-edit", "other")
    assert merged.returncode and "not JSON" in merged.stderr, merged
    assert (project / LOCK_NAME).read_bytes() == ours
    assert git(project, "checkout", "--ours", LOCK_NAME).returncode == 0
    assert compose("apply", at=project).status == 0
    assert compose("plan", "--detailed-exitcode", at=project).status == 0
