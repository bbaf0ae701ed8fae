"""Conflict markers that were committed: what they hide is told, and no id gets in through them."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.cli import compose
from support.model_types import COMPOSITION, LORA
from support.state import copy_project, state_of

from composer.lock import LOCK_NAME, read_lock
from composer.model import MARK, Concept
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from pathlib import Path

CASTLE = "recipes/castle-keep.yaml"


@pytest.fixture
def applied(tmp_path: Path, applied_once: Path) -> Path:
    copy_project(applied_once, tmp_path)
    (tmp_path / ".git").rmdir()
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(at: Path, *arguments: str) -> None:
    names = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    subprocess.run(["git", *names, *arguments], cwd=at, check=True, capture_output=True)


def commit(at: Path) -> None:
    git(at, "add", "--all")
    git(at, "commit", "--quiet", "--message", "all")


def stranger(at: Path) -> str:
    """A composition of ours that this lock doesn't name, as of another repository."""
    with Engine(state_of(at), at / "recipes/loras") as engine:
        (ink,) = [one for one in engine.list_models(LORA) if one.name == "Ink Lines"]
        model = engine.create("New One", [Concept(ink.id, 0.5)], type=COMPOSITION)
        engine.tag(model.id, add=[MARK])
    return model.id


def conflicted(at: Path, theirs: str, *, base: str = "") -> str:
    """Another id for Castle Keep below markers; the id that was there."""
    id = read_lock(at).target("local").recipes[CASTLE].composition
    assert id is not None
    line = '          "composition": "{}",\n'
    middle = f"||||||| b\n{line.format(base)}" if base else ""
    mine = line.format(id)
    text = (at / LOCK_NAME).read_text("utf-8")
    assert text.count(mine) == 1
    both = f"<<<<<<< o\n{mine}{middle}=======\n{line.format(theirs)}>>>>>>> t\n"
    (at / LOCK_NAME).write_text(text.replace(mine, both), "utf-8")
    return id


@pytest.mark.parametrize("diff3", [False, True])
def test_a_strangers_id_gets_in_no_more_than_by_hand(applied: Path, diff3: bool) -> None:
    other = stranger(applied)
    id = conflicted(applied, other, base="model_gone" if diff3 else "")
    assert compose("plan", at=applied).status == compose("apply", at=applied).status == 65
    planned = compose("plan", "--base", "HEAD", "-o", "json", at=applied)
    edits = [edit["edit"] for edit in json.loads(planned.out)["lockEdits"]]
    assert f"a git conflict also names {other}" in edits
    assert compose("lock", "--repair", at=applied).status == 0
    assert compose("apply", at=applied).status == 0
    entry = read_lock(applied).target("local").recipes[CASTLE]
    assert entry.composition == id
    # It is not forgotten, but under a name that it doesn't have: nothing touches it.
    assert all(old.name == "Castle Keep" for old in entry.replaced)
    edits = json.loads(compose("plan", "--base", "HEAD", "-o", "json", at=applied).out)["lockEdits"]
    assert [f"{other} is added to replaced" in edit["edit"] for edit in edits] == [True]
    compose("prune", at=applied)
    with Engine(state_of(applied), applied / "recipes/loras", run_jobs=False) as engine:
        assert other in engine.get_models([other])
    assert compose("plan", "--detailed-exitcode", at=applied).status == 0


def test_a_repair_keeps_a_strangers_id_where_nothing_touches_it(applied: Path) -> None:
    """Planning and pruning between the repair and the apply leave it alone, too."""
    other = stranger(applied)
    id = conflicted(applied, other)
    assert compose("lock", "--repair", at=applied).status == 0
    assert compose("plan", "--detailed-exitcode", at=applied).status == 0
    assert compose("prune", at=applied).status == 0
    assert compose("apply", at=applied).status == 0
    entry = read_lock(applied).target("local").recipes[CASTLE]
    assert (entry.composition, [old.id for old in entry.replaced]) == (id, [other])
    compose("prune", at=applied)
    with Engine(state_of(applied), applied / "recipes/loras", run_jobs=False) as engine:
        (model,) = engine.get_models([other]).values()
    assert (model.name, model.gone, MARK in (model.tags or ())) == ("New One", False, True)


def test_a_plan_with_a_base_tells_of_markers_and_all_else_refuses_them(applied: Path) -> None:
    conflicted(applied, "model_theirs")
    for form in ("text", "markdown", "github", "json"):
        shown = compose("plan", "--base", "HEAD", "-o", form, at=applied)
        assert "conflict markers" in shown.out, shown
    plain = json.loads(compose("plan", "--base", "HEAD", "-o", "json", at=applied).out)
    said = [edit["edit"] for edit in plain["lockEdits"]]
    assert "a git conflict also names model_theirs" in said
    commands = ["plan"], ["plan", "--offline"], ["status"], ["validate"], ["apply", "--dry-run"]
    for arguments in commands:
        ran = compose(*arguments, at=applied)
        assert (ran.status, "compose lock --repair" in ran.err) == (65, True), ran


def test_a_base_with_markers_is_read_as_a_lock_with_markers_is(applied: Path) -> None:
    conflicted(applied, "model_theirs")
    commit(applied)
    assert compose("lock", "--repair", at=applied).status == 0
    ran = compose("plan", "--base", "HEAD", at=applied)
    assert (ran.status, "conflict markers" in ran.out) == (0, False), ran.err


def test_a_base_that_is_no_lock_is_told_and_stops_nothing(applied: Path) -> None:
    whole = (applied / LOCK_NAME).read_bytes()
    (applied / LOCK_NAME).write_bytes(whole.replace(b'"recipes":', b'"recipes"'))
    commit(applied)
    (applied / LOCK_NAME).write_bytes(whole)
    ran = compose("plan", "--base", "HEAD", "-o", "json", at=applied)
    assert ran.status == 0, ran.err
    (said,) = [edit["edit"] for edit in json.loads(ran.out)["lockEdits"] if "base" in edit["edit"]]
    assert "can't be read" in said
