"""`compose lock`: pins without an apply, what became of pinned LoRAs, and repairs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.cli import compose, edit, snapshot
from support.engine_files import write_lora
from support.fake_target import FakeTarget, composition, lora
from support.model_types import COMPOSITION
from support.rehearsal import Fate, Killed, Stage, recipe
from support.state import state_of

from composer.lock import LOCK_NAME, Ledger, dump, parse, read_lock
from composer.model import Concept, Content, Entry, KnownState, Lock, TargetLock
from composer.planner import Options, outdated_pins, pinned
from composer.targets.base import observe
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from pathlib import Path

KNIGHT, ROGUE = "recipes/storybook-knight.yaml", "recipes/pixel-rogue.yaml"
INK = "recipes/loras/ink-lines.safetensors"


def entry(project: Path, path: str = ROGUE) -> Entry:
    return read_lock(project).target("local").recipes[path]


# --- pins --------------------------------------------------------------------------------


def test_pins_and_names_are_all_that_it_adds(project: Path) -> None:
    done = compose("lock", at=project)
    assert (done.status, done.out.splitlines()[-1]) == (0, "Done: 9 pins added.")
    lock = read_lock(project).target("local")
    assert len(lock.recipes) == 4
    for one in lock.recipes.values():
        assert one == Entry(one.name, one.pins) and one.pins
    before = snapshot(project)
    again = compose("lock", at=project)
    assert (again.status, again.out) == (0, "No changes: the lock has every pin.\n")
    after = snapshot(project)
    assert {name for name in after if after[name] != before[name]} <= {"state/apply.lock"}
    assert compose("apply", "--locked", at=project).status == 0
    assert entry(project).pins == lock.recipes[ROGUE].pins


def test_only_the_named_recipe_is_pinned(project: Path) -> None:
    assert compose("lock", ROGUE, at=project).status == 0
    assert {*read_lock(project).target("local").recipes} == {ROGUE}


def test_an_apply_and_a_lock_agree_byte_for_byte(applied: Path) -> None:
    before = (applied / LOCK_NAME).read_bytes()
    assert compose("lock", at=applied).out == "No changes: the lock has every pin.\n"
    assert (applied / LOCK_NAME).read_bytes() == before


@pytest.mark.parametrize("flags", [["--locked"], ["--locked", "--offline"], ["--offline"]])
def test_a_missing_pin_is_3_and_nothing_is_written(project: Path, flags: list[str]) -> None:
    before = snapshot(project)
    refused = compose("lock", *flags, at=project)
    assert (refused.status, "compose lock" in refused.err) == (3, True)
    assert snapshot(project) == before
    compose("lock", at=project)
    assert compose("lock", *flags, at=project).status == 0
    edit(project / ROGUE, "Pixel Dust", "Castle Stone")
    assert compose("lock", *flags, at=project).status == 3
    assert compose("lock", KNIGHT, *flags, at=project).status == 0


def test_offline_opens_no_target(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCENARIO_BASE_URL", "http://127.0.0.1:9/v1")
    ran = compose("lock", "--locked", "--offline", "--target", "scenario", at=project)
    assert (ran.status, "has no pin for" in ran.err) == (3, True)
    assert compose("lock", "--locked", "--target", "scenario", at=project).status == 77


def test_dry_run_writes_nothing(project: Path) -> None:
    before = snapshot(project)
    shown = compose("lock", "--dry-run", at=project)
    assert (shown.status, "Not written: 9 pins added." in shown.out) == (0, True)
    assert snapshot(project) == before


def test_an_unknown_name_stops_its_recipe_alone(project: Path) -> None:
    edit(project / ROGUE, "Ink Lines", "Ink Linse")
    done = compose("lock", at=project)
    assert (done.status, "did you mean Ink Lines (ink-lines.safetensors)?" in done.out) == (1, True)
    assert {*read_lock(project).target("local").recipes} == {
        "recipes/castle-keep.yaml",
        KNIGHT,
        "recipes/tutorial/slime.yaml",
    }


def test_json_says_the_same(project: Path) -> None:
    plain = json.loads(compose("lock", "-o", "json", at=project).out)
    assert (plain["formatVersion"], plain["target"], plain["written"]) == (1, "local", True)
    assert len(plain["pins"]) == 9 and plain["problems"] == []


def test_a_new_recipe_where_another_was_gets_an_entry_of_its_own() -> None:
    """The file moved away, and a new one took its name: the old entry must not be overwritten."""
    old = Entry(
        "Knight",
        (("Ink", "lora_ink"),),
        "comp",
        content=Content.of(COMPOSITION, [Concept("x", 0.5)]),
    )
    lock = TargetLock(None, {"a.yaml": old})
    target = FakeTarget()
    target.put(lora("lora_ink", "Ink"), composition("comp", "Knight", {"lora_ink": 0.5}))
    recipes = [recipe("b.yaml", "Knight", {"Ink": 0.5}), recipe("a.yaml", "New", {"Ink": 0.1})]

    memory = KnownState(None, lock.recipes)
    found = pinned(recipes, lock, memory, observe(target, recipes, memory), Options())
    assert found.recipes == {"a.yaml": Entry("New", old.pins), "b.yaml": old}


# --- upgrades ----------------------------------------------------------------------------


def test_upgrade_moves_pins_and_leaves_the_rest(applied: Path) -> None:
    before = entry(applied)
    write_lora(applied / INK, title="Ink Lines", seed=7)
    assert compose("lock", "--locked", at=applied).status == 0
    refused = compose("lock", "--locked", "--upgrade", "Ink Lines", at=applied)
    assert (refused.status, "moves from" in refused.err) == (3, True)
    done = compose("lock", ROGUE, "--upgrade", at=applied)
    assert (done.status, done.out.splitlines()[-1]) == (0, "Done: 1 pin moved.")
    after = entry(applied)
    assert after.pin("Ink Lines") != before.pin("Ink Lines")
    assert replace(after, pins=before.pins) == before
    assert "~ replace  Pixel Rogue" in compose("plan", ROGUE, at=applied).out
    assert compose("lock", "--upgrade", "No Such", at=applied).status == 64
    for path in ("recipes/", ROGUE):  # a path, not a LoRA's name
        quiet = compose("lock", "--upgrade", path, at=applied)
        assert quiet.status == 0, quiet.err
    assert compose("lock", "--upgrade", "--offline", at=applied).status == 64
    assert compose("lock", "--repair", "--locked", at=applied).status == 64


def test_an_upgrade_s_dry_run_tells_what_became_of_pinned_loras(applied: Path) -> None:
    quiet = compose("lock", "--upgrade", "--dry-run", at=applied)
    assert (quiet.status, "No pinned LoRA has changed." in quiet.out) == (0, True)
    write_lora(applied / INK, title="Ink Lines", seed=7)
    before = snapshot(applied)
    shown = compose("lock", "--upgrade", "--dry-run", at=applied)
    assert (shown.status, shown.out.count("deleted")) == (0, 3)
    assert "Ink Lines now means model_" in shown.out
    assert "Not written: 3 pins moved." in shown.out
    assert snapshot(applied) == before
    kinds = {
        one["kind"]
        for one in json.loads(
            compose("lock", "--upgrade", "--dry-run", "-o", "json", at=applied).out
        )["outdated"]
    }
    assert kinds == {"deleted", "another id"}


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"name": "Inkwell"}, "renamed", "is named Inkwell now"),
        ({"status": "training"}, "retrained", "status training"),
        ({"updated_at": "2026-02-01T00:00:00.000Z"}, "retrained", "may have been trained again"),
        ({"epoch": "000020"}, "another epoch", "is at epoch 000020, and was at 000010"),
        ({"status": "deleted"}, "deleted", "is not on the target any more"),
    ],
)
def test_news_of_a_pinned_lora(change: dict[str, str], kind: str, words: str) -> None:
    target = FakeTarget(remote=True)
    target.put(lora("lora_ink", "Ink", epoch="000010", updated_at="2025-01-02T00:00:00.000Z"))
    target.put(composition("comp", "Knight", {"lora_ink": 0.5}))
    content = Content.of(COMPOSITION, [Concept("lora_ink", 0.5, "000010")])
    known = Entry("Knight", (("Ink", "lora_ink"),), "comp", content=content)
    lock, recipes = TargetLock(None, {"a.yaml": known}), [recipe("a.yaml", "Knight", {"Ink": 0.5})]

    def told() -> list[tuple[str, str]]:
        seen = observe(target, recipes, KnownState(None, lock.recipes))
        found = outdated_pins(recipes, lock, seen, Options(upgrade_all=True))
        return [(one.kind, one.words) for one in found]

    assert told() == []
    target.change("lora_ink", **change)
    ((said, why),) = told()
    assert (said, words in why) == (kind, True)


def test_a_killed_upgrade_is_gone_on_with(tmp_path: Path) -> None:
    """At whatever instant it dies, once its new model is on its way, a plain apply brings it in."""
    for last in range(1, 40):
        root, target = tmp_path / str(last), FakeTarget(polls=0)
        root.mkdir()
        target.put(lora("lora_old", "Ink"))
        stage, recipes = Stage(root, target), [recipe("a.yaml", "Knight", {"Ink": 0.5})]
        stage.run(recipes)
        target.lose("lora_old")
        target.put(lora("lora_new", "Ink"))
        fate = Fate(last)
        target.watch = fate.watch
        with contextlib.suppress(Killed):
            stage.run(recipes, Options(upgrade=frozenset({"Ink"})), fate=fate)
        told = '"upgraded"' in stage.journal or b"lora_new" in stage.lock
        target.watch = lambda verb, when: None
        stage.run(recipes)
        assert (stage.entries["a.yaml"].pin("Ink") == "lora_new") is told, last
        planned, _ = stage.run(recipes)
        assert not planned.changes
        if not fate.dead:
            return
    raise AssertionError("forty instants did not reach the end")


def test_a_merged_pin_wins_over_an_older_journal(tmp_path: Path) -> None:
    """Somebody's upgrade came by git after a run of ours was killed: it is not taken back."""
    ours, theirs = (("Ink", "lora_old"),), (("Ink", "lora_new"),)
    locked = Entry("Knight", ours, "comp")
    (tmp_path / LOCK_NAME).write_text(dump(Lock({"local": TargetLock(None, {"a.yaml": locked})})))
    Ledger(tmp_path, "local", state_of(tmp_path)).record("a.yaml", locked)
    merged = Lock({"local": TargetLock(None, {"a.yaml": replace(locked, pins=theirs)})})
    (tmp_path / LOCK_NAME).write_text(dump(merged))
    assert (
        Ledger(tmp_path, "local", state_of(tmp_path)).known_state.entries["a.yaml"].pins == theirs
    )


# --- flags that do nothing --------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "refused"),
    [
        (["--repair", "--target", "local"], "--repair can't be used with --target"),
        (["--repair", "--project", "p"], "--repair can't be used with --project"),
        (["--repair", "--library", "."], "--repair can't be used with --library"),
        (["--repair", "--offline"], "--repair can't be used with --offline"),
        (["--repair", "--locked"], "--repair can't be used with --locked"),
        (["--repair", "--upgrade"], "--repair can't be used with --upgrade"),
        (["--repair", "--include", "*"], "--repair can't be used with --include"),
        (["--merge", "a", "b", "c", "recipes"], "--merge can't be used with PATHS"),
        (["--merge", "a", "b", "c", "-o", "json"], "--merge can't be used with --output"),
        (["--merge", "a", "b", "c", "--dry-run"], "--merge can't be used with --dry-run"),
        (["--merge", "a", "b", "c", "--repair"], "--merge can't be used with --repair"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(
    project: Path, flags: list[str], refused: str
) -> None:
    ran = compose("lock", *flags, at=project)
    assert (ran.status, refused in ran.err) == (64, True), ran


# --- repairs -----------------------------------------------------------------------------


def conflicted(project: Path, *, diff3: bool) -> None:
    """Two sides of the rogue's entry, as git leaves them: ours is the older model."""
    old = (project / LOCK_NAME).read_text()
    edit(project / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert compose("apply", at=project).status == 0
    new = (project / LOCK_NAME).read_text()
    start, end = (new.index(line) for line in (f'        "{ROGUE}"', f'        "{KNIGHT}"'))
    before = old[old.index(f'        "{ROGUE}"') : old.index(f'        "{KNIGHT}"')]
    base = f"||||||| 1234567\n{before}" if diff3 else ""
    middle = f"<<<<<<< HEAD\n{before}{base}=======\n{new[start:end]}>>>>>>> branch\n"
    (project / LOCK_NAME).write_text(new[:start] + middle + new[end:])


@pytest.mark.parametrize("diff3", [True, False])
def test_a_conflict_is_repaired_and_the_next_apply_chooses(applied: Path, diff3: bool) -> None:
    older = entry(applied).composition
    conflicted(applied, diff3=diff3)
    before = (applied / LOCK_NAME).read_bytes()
    for arguments in (["lock"], ["lock", "--locked", "--offline"], ["plan"], ["apply"], ["status"]):
        refused = compose(*arguments, at=applied)
        assert (refused.status, "compose lock --repair" in refused.err) == (65, True), arguments
    shown = compose("lock", "--repair", "--dry-run", at=applied)
    assert (shown.status, "Nothing was written" in shown.out) == (0, True)
    assert (applied / LOCK_NAME).read_bytes() == before
    done = compose("lock", "--repair", at=applied)
    assert done.status == 0 and "Merged: 1 entry changed on both sides" in done.out, done
    lock = (applied / LOCK_NAME).read_text()
    assert lock == dump(parse(lock))
    ids = entry(applied).all_ids
    made = compose("apply", at=applied)
    assert made.status == 0, made
    assert entry(applied).composition != older
    assert {*entry(applied).all_ids} == {*ids}, "nothing was made, and nothing was forgotten"
    assert [old.id for old in entry(applied).replaced] == [older]
    assert compose("plan", "--detailed-exitcode", at=applied).status == 0
    assert "There is no conflict" in compose("lock", "--repair", at=applied).out


def test_torn_markers_name_the_two_commands_that_help(applied: Path) -> None:
    lock = (applied / LOCK_NAME).read_text()
    for text in (f"<<<<<<< HEAD\n{lock}", f"<<<<<<< a\n{lock}=======\n{lock[1:]}>>>>>>> b\n"):
        (applied / LOCK_NAME).write_text(text)
        ran = compose("lock", "--repair", at=applied)
        assert ran.status == 65
        assert "git checkout --ours compose.lock" in ran.err and "compose apply" in ran.err
        assert (applied / LOCK_NAME).read_text() == text


def run_git(at: Path, *arguments: str, status: int = 0) -> None:
    names = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    ran = subprocess.run(["git", *names, *arguments], cwd=at, capture_output=True, check=False)
    assert (ran.returncode == 0) == (status == 0), ran


def two_branches(project: Path) -> None:
    """A repository whose branches `main` and `other` each changed the rogue and applied it."""
    (project / ".git").rmdir()
    (project / ".gitignore").write_text(".compose/\n")
    run_git(project, "init", "--quiet", "--initial-branch=main")
    run_git(project, "add", "--all")
    run_git(project, "commit", "--quiet", "--message", "base")
    for branch, scale in (("other", "0.7"), ("main", "0.8")):
        run_git(project, "checkout", "--quiet", *(["-b"] if branch == "other" else []), branch)
        edit(project / ROGUE, "scale: 0.6\n", f"scale: {scale}\n")
        assert compose("apply", at=project).status == 0
        run_git(project, "commit", "--quiet", "--all", "--message", branch)


def test_a_repair_takes_the_whole_sides_from_gits_index(applied: Path) -> None:
    """Whatever stands in the file: here, markers that tell nothing."""
    two_branches(applied)
    run_git(applied, "merge", "other", status=1)
    (applied / LOCK_NAME).write_text("<<<<<<< HEAD\n")
    run_git(applied, "checkout", "--theirs", "--", ROGUE)
    assert compose("lock", "--repair", at=applied).status == 0
    ids = {*entry(applied).all_ids}
    assert len(ids) == 3
    assert compose("apply", at=applied).status == 0
    assert {*entry(applied).all_ids} == ids
    content = entry(applied).content
    assert content is not None and 0.7 in [concept.scale for concept in content.concepts]


def test_as_a_merge_driver_it_leaves_no_conflict(applied: Path) -> None:
    two_branches(applied)
    command = f"{sys.executable} -m composer lock --merge %O %A %B"
    run_git(applied, "config", "merge.compose.driver", command)
    (applied / ".gitattributes").write_text("compose.lock merge=compose\n")
    run_git(applied, "merge", "other", status=1)  # the recipe conflicts
    text = (applied / LOCK_NAME).read_text()
    assert text == dump(parse(text)) and len({*entry(applied).all_ids}) == 3


def test_a_merge_driver_says_which_entries_both_changed(tmp_path: Path) -> None:
    for name, id in (("base", "x"), ("ours", "y"), ("theirs", "z")):
        lock = Lock({"local": TargetLock(None, {"a.yaml": Entry("A", composition=id)})})
        (tmp_path / name).write_text(dump(lock))
    ran = compose("lock", "--merge", "base", "ours", "theirs", at=tmp_path)
    assert (ran.status, ran.out, "a.yaml" in ran.err) == (0, "", True), ran
    merged = parse((tmp_path / "ours").read_text()).target("local").recipes["a.yaml"]
    assert merged.all_ids == ("y", "z")
    for name in ("theirs", "ours"):
        (tmp_path / name).write_text("{")
        ran = compose("lock", "--merge", "base", "ours", "theirs", at=tmp_path)
        assert (ran.status, f"{name}:1:" in ran.err) == (65, True), ran


@pytest.mark.parametrize("size", [2**27, 2**40])
@pytest.mark.parametrize("large", ["base", "ours", "theirs"])
def test_a_merge_driver_measures_each_version_before_it_reads_it(
    tmp_path: Path, large: str, size: int
) -> None:
    for name in ("base", "ours", "theirs"):
        (tmp_path / name).write_text(dump(Lock()))
    os.truncate(tmp_path / large, size)  # sparse: it takes no space
    tracemalloc.start()
    try:
        ran = compose("lock", "--merge", "base", "ours", "theirs", at=tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 72 * 2**20
    finally:
        tracemalloc.stop()
    if large == "base":  # as any ancestor that can't be read, it counts as an empty lock
        assert ran.status == 0, ran
    else:
        assert (ran.status, f"{large} is larger than 64 MiB" in ran.err) == (65, True), ran
        assert (tmp_path / large).stat().st_size == size


def test_a_newer_lock_is_never_repaired(applied: Path) -> None:
    edit(applied / LOCK_NAME, '"version": 2', '"version": 3')
    before = (applied / LOCK_NAME).read_bytes()
    ran = compose("lock", "--repair", at=applied)
    assert (ran.status, "newer compose" in ran.err) == (65, True)
    assert (applied / LOCK_NAME).read_bytes() == before


def test_a_repair_leaves_other_targets_ids_in_the_lock(applied: Path) -> None:
    """Both sides of every target's entries are kept; no target is asked."""
    sides = [
        Lock({"https://x/v1": TargetLock(None, {"a.yaml": Entry("A", composition=id)})})
        for id in ("ours", "theirs")
    ]
    lines = [dump(side).splitlines(keepends=True) for side in sides]
    text = "".join(
        a if a == b else f"<<<<<<< HEAD\n{a}=======\n{b}>>>>>>> x\n"
        for a, b in zip(*lines, strict=True)
    )
    (applied / LOCK_NAME).write_text(text)
    assert compose("lock", "--repair", at=applied).status == 0
    (other,) = read_lock(applied).target("https://x/v1").recipes.values()
    assert (other.composition, [old.id for old in other.replaced]) == ("ours", ["theirs"])


# --- drift -------------------------------------------------------------------------------


def test_status_tells_drift_from_a_change(applied: Path) -> None:
    assert compose("status", "--detailed-exitcode", at=applied).status == 0
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert compose("status", "--detailed-exitcode", at=applied).status == 0
    rename_there(applied, str(entry(applied, KNIGHT).composition), "Stranger")
    shown = compose("status", "--detailed-exitcode", at=applied)
    assert (shown.status, "drift: Storybook Knight" in shown.out) == (2, True)
    assert compose("status", at=applied).status == 0
    plain = json.loads(compose("status", "-o", "json", at=applied).out)
    assert plain["hasDrift"] is True
    assert [row["recipe"] for row in plain["recipes"] if "drift" in row] == [KNIGHT]


def rename_there(project: Path, id: str, name: str) -> None:

    with Engine(state_of(project), project / "recipes/loras") as engine:
        engine.update(id, name=name)


@pytest.mark.parametrize(
    ("name", "near"), [("Ink Linez", "Ink Lines"), ("pixel dust", "Pixel Dust")]
)
def test_a_name_that_no_lora_has_is_the_last_word_too(applied: Path, name: str, near: str) -> None:
    edit(applied / ROGUE, "- name: " + near, "- name: " + name)
    for more in ([], ["--dry-run"]):
        ran = compose("lock", *more, at=applied)
        file = near.lower().replace(" ", "-")
        meant = f"did you mean {near} ({file}.safetensors)?"
        assert (ran.status, meant in ran.out) == (1, True)
        assert ran.out.endswith("No changes: 1 recipe can't be pinned.\n")
    (applied / "compose.lock").unlink()
    ran = compose("lock", at=applied)
    assert (ran.status, ran.out.splitlines()[-1]) == (
        1,
        "Done: 7 pins added; 1 recipe can't be pinned.",
    )
    ran = compose("lock", "--locked", "--offline", at=applied)
    assert (ran.status, f"{name} ({ROGUE}; did you mean {near}?)" in ran.err) == (3, True)
