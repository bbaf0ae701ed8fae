"""`compose lock`: pins without an apply, what became of pinned LoRAs, and repairs."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.cli import compose, edit, samples, snapshot
from support.engine_files import write_lora
from support.fake_target import FakeTarget, composition, lora
from support.rehearsal import Fate, Killed, Stage, recipe
from support.state import state_of

from composer.lock import NAME, Ledger, dump, parse, read_lock, salvage
from composer.lock.sides import texts
from composer.model import Concept, Content, Entry, KnownState, Lock, TargetLock
from composer.planner import Options, outdated_pins, pinned
from composer.targets.base import observe
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from pathlib import Path

KNIGHT, ROGUE = "recipes/storybook-knight.yaml", "recipes/pixel-rogue.yaml"
INK = "recipes/loras/ink-lines.safetensors"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return samples(tmp_path)


@pytest.fixture
def applied(project: Path) -> Path:
    assert compose("apply", at=project).status == 0
    return project


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
    before = (applied / NAME).read_bytes()
    assert compose("lock", at=applied).out == "No changes: the lock has every pin.\n"
    assert (applied / NAME).read_bytes() == before


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
    assert (shown.status, "it would be 9 pins added" in shown.out) == (0, True)
    assert snapshot(project) == before


def test_an_unknown_name_stops_its_recipe_alone(project: Path) -> None:
    edit(project / ROGUE, "Ink Lines", "Ink Linse")
    done = compose("lock", at=project)
    assert (done.status, "did you mean Ink Lines?" in done.out) == (1, True)
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
    old = Entry("Knight", (("Ink", "lora_ink"),), "comp", content=Content.of([Concept("x", 0.5)]))
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
    assert (quiet.status, "Every pinned LoRA is as it was." in quiet.out) == (0, True)
    write_lora(applied / INK, title="Ink Lines", seed=7)
    before = snapshot(applied)
    shown = compose("lock", "--upgrade", "--dry-run", at=applied)
    assert (shown.status, shown.out.count("deleted")) == (0, 3)
    assert "Ink Lines now means model_" in shown.out
    assert "it would be 3 pins moved" in shown.out
    assert snapshot(applied) == before
    kinds = {
        one["kind"]
        for one in json.loads(
            compose("lock", "--upgrade", "--dry-run", "-o", "json", at=applied).out
        )["news"]
    }
    assert kinds == {"deleted", "another id"}


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"name": "Inkwell"}, "renamed", "is named Inkwell now"),
        ({"status": "training"}, "retrained", "status training"),
        ({"updated_at": "2026-02-01T00:00:00.000Z"}, "retrained", "may have been trained anew"),
        ({"epoch": "000020"}, "another epoch", "is at epoch 000020, and was at 000010"),
        ({"status": "deleted"}, "deleted", "is gone from the target"),
    ],
)
def test_news_of_a_pinned_lora(change: dict[str, str], kind: str, words: str) -> None:
    target = FakeTarget(remote=True)
    target.put(lora("lora_ink", "Ink", epoch="000010", updated_at="2025-01-02T00:00:00.000Z"))
    target.put(composition("comp", "Knight", {"lora_ink": 0.5}))
    content = Content.of([Concept("lora_ink", 0.5, "000010")])
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
    (tmp_path / NAME).write_text(dump(Lock({"local": TargetLock(None, {"a.yaml": locked})})))
    Ledger(tmp_path, "local", state_of(tmp_path)).record("a.yaml", locked)
    merged = Lock({"local": TargetLock(None, {"a.yaml": replace(locked, pins=theirs)})})
    (tmp_path / NAME).write_text(dump(merged))
    assert Ledger(tmp_path, "local", state_of(tmp_path)).memory.entries["a.yaml"].pins == theirs


# --- repairs -----------------------------------------------------------------------------


def conflicted(project: Path, *, diff3: bool) -> None:
    """Two sides of the rogue's entry, as git leaves them: ours is the older model."""
    old = (project / NAME).read_text()
    edit(project / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert compose("apply", at=project).status == 0
    new = (project / NAME).read_text()
    start, end = (new.index(line) for line in (f'      "{ROGUE}"', f'      "{KNIGHT}"'))
    before = old[old.index(f'      "{ROGUE}"') : old.index(f'      "{KNIGHT}"')]
    base = f"||||||| 1234567\n{before}" if diff3 else ""
    middle = f"<<<<<<< HEAD\n{before}{base}=======\n{new[start:end]}>>>>>>> branch\n"
    (project / NAME).write_text(new[:start] + middle + new[end:])


@pytest.mark.parametrize("diff3", [True, False])
def test_a_conflict_is_repaired_by_what_the_target_says(applied: Path, diff3: bool) -> None:
    older = entry(applied).composition
    conflicted(applied, diff3=diff3)
    for arguments in (["lock"], ["lock", "--locked", "--offline"]):
        refused = compose(*arguments, at=applied)
        assert (refused.status, "compose lock --repair" in refused.err) == (65, True)
    shown = compose("lock", "--repair", "--dry-run", at=applied)
    assert (shown.status, "1 entry would be repaired" in shown.out) == (0, True)
    assert "<<<<<<<" in (applied / NAME).read_text()
    done = compose("lock", "--repair", at=applied)
    assert (done.status, "Repaired: 1 entry." in done.out) == (0, True)
    lock = (applied / NAME).read_text()
    assert lock == dump(parse(lock))
    assert entry(applied).composition != older
    assert [old.id for old in entry(applied).replaced] == [older]
    assert compose("plan", "--detailed-exitcode", at=applied).status == 0
    assert "as it should be" in compose("lock", "--repair", at=applied).out


def test_offline_a_repair_brings_the_sides_together(applied: Path) -> None:
    conflicted(applied, diff3=False)
    older, newer = (
        parse(side).target("local").recipes[ROGUE].composition
        for side in (texts_of(applied)[0], texts_of(applied)[1])
    )
    assert compose("lock", "--repair", "--offline", at=applied).status == 0
    assert entry(applied).composition == older
    assert newer in {old.id for old in entry(applied).replaced}
    assert "adopted  Pixel Rogue" in compose("apply", at=applied).out
    assert entry(applied).composition == newer


def texts_of(project: Path) -> list[str]:

    return texts((project / NAME).read_text())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("scale: 0.6\n", 'scale: "0.6"\n'),
        ("        protect: false\n", "        protect: false\n        price: 3\n"),
        ("    recipes:\n", "    recipes:\n<<<<<<< HEAD\n"),
        ("    recipes:\n", "    recipes:\n=======\n>>>>>>> theirs\n"),
        ('      "recipes/pixel-rogue.yaml":\n', '      "recipes/../pixel-rogue.yaml":\n'),
        ("version: 1\n", "version: one\n"),
        ("targets:\n", "targets: [\n"),
        ('name: "Pixel Rogue"', "name: Pixel Rogue # mine"),
    ],
)
def test_edits_by_hand_are_repaired(applied: Path, before: str, after: str) -> None:
    lock = (applied / NAME).read_text()
    (applied / NAME).write_text(lock.replace(before, after))
    assert (applied / NAME).read_text() != lock
    done = compose("lock", "--repair", at=applied)
    assert done.status == 0, done
    assert (applied / NAME).read_text() == lock
    assert compose("plan", "--detailed-exitcode", at=applied).status == 0


def test_a_key_that_stands_twice_has_two_sides(applied: Path) -> None:
    """As `merge=union` leaves it: both are looked at, and the right one is kept."""
    lock, right = (applied / NAME).read_text(), entry(applied).composition
    line = f'        composition: "{right}"\n'
    (applied / NAME).write_text(lock.replace(line, f'        composition: "gone"\n{line}'))
    assert compose("plan", at=applied).status == 65
    assert compose("lock", "--repair", at=applied).status == 0
    assert entry(applied).composition == right


def test_lost_entries_are_found_again_on_the_target(applied: Path) -> None:
    lock = (applied / NAME).read_text()
    (applied / NAME).unlink()
    assert "Repaired: 4 entries." in compose("lock", "--repair", at=applied).out
    assert (applied / NAME).read_text() == lock


def test_an_id_that_a_hand_put_in_the_wrong_place_is_put_right(applied: Path) -> None:
    lock = (applied / NAME).read_text()
    keep = str(entry(applied, "recipes/castle-keep.yaml").composition)
    edit(applied / NAME, keep, str(entry(applied).composition))
    assert compose("apply", at=applied).status == 1
    assert compose("lock", "--repair", at=applied).status == 0
    assert (applied / NAME).read_text() == lock


def test_what_could_not_be_read_is_kept_aside(applied: Path) -> None:
    edit(applied / NAME, "scale: 0.6\n", "scale: wrong\n")
    broken = (applied / NAME).read_bytes()
    done = compose("lock", "--repair", at=applied)
    assert "could not be read: compose.lock: recipes/pixel-rogue.yaml: content" in done.out
    assert (state_of(applied) / "compose.lock.broken").read_bytes() == broken


def test_a_newer_lock_is_never_repaired(applied: Path) -> None:
    edit(applied / NAME, "version: 1", "version: 2")
    before = (applied / NAME).read_bytes()
    ran = compose("lock", "--repair", at=applied)
    assert (ran.status, "newer compose" in ran.err) == (65, True)
    assert (applied / NAME).read_bytes() == before


def test_a_repair_leaves_other_targets_ids_in_the_lock(applied: Path) -> None:
    """Both sides of another target's entry are kept, though only one target was asked."""
    sides = [
        Lock({"https://x/v1": TargetLock(None, {"a.yaml": Entry("A", composition=id)})})
        for id in ("ours", "theirs")
    ]
    lines = [dump(side).splitlines(keepends=True) for side in sides]
    text = "".join(
        a if a == b else f"<<<<<<< HEAD\n{a}=======\n{b}>>>>>>> x\n"
        for a, b in zip(*lines, strict=True)
    )
    (applied / NAME).write_text(text)
    assert salvage(text).torn
    assert compose("lock", "--repair", "--target", "local", at=applied).status == 0
    (other,) = read_lock(applied).target("https://x/v1").recipes.values()
    assert (other.composition, [old.id for old in other.replaced]) == ("ours", ["theirs"])
    assert len(read_lock(applied).target("local").recipes) == 4


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


# --- repairs of what is no YAML any more -------------------------------------------------

PROD, STAGE = "https://api.test/v1#production", "https://api.test/v1#staging"


def two_targets(project: Path, first: str = PROD, second: str = STAGE) -> Lock:
    """A lock of two remote targets, with the entries that the local one has."""
    target = read_lock(project).target("local")
    lock = Lock({first: replace(target, owner="team_a"), second: target})
    (project / NAME).write_text(dump(lock), encoding="utf-8")
    return lock


GARBAGE = "garbage: [\n"


@pytest.mark.parametrize("flags", [["--offline"], ["--target", "local"]])
def test_garbage_at_the_end_costs_no_entry(applied: Path, flags: list[str]) -> None:
    lock = two_targets(applied, second="local")
    with (applied / NAME).open("a", encoding="utf-8") as file:
        file.write(GARBAGE)
    done = compose("lock", "--repair", *flags, at=applied)
    assert (done.status, "0 entries" in done.out) == (0, False), done
    assert read_lock(applied) == lock


BREAKS = {
    "a bracket": ("          concepts:\n", "          concepts: [\n"),
    "a tab": ("          concepts:\n", "\t\t  concepts:\n"),
    "a quote": ('        name: "Pixel Rogue"', '        name: "Pixel Rogue'),
    "its key": (f'      "{ROGUE}":\n', f'      "{ROGUE}\n'),
    "an outdented field": ('        composition: "', 'composition: ["'),
}


def broken(project: Path, key: str, how: str) -> bytes:
    """The rogue's entry of this target with one line broken."""
    text = (project / NAME).read_text(encoding="utf-8")
    start = text.index(f'      "{ROGUE}":', text.index(f'  "{key}":'))
    before, after = BREAKS[how]
    assert before in text[start:]
    (project / NAME).write_text(text[:start] + text[start:].replace(before, after, 1), "utf-8")
    return (project / NAME).read_bytes()


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("key", [PROD, STAGE])
def test_offline_nothing_is_lost_that_nobody_could_find_again(
    applied: Path, key: str, how: str
) -> None:
    two_targets(applied)
    text = broken(applied, key, how)
    refused = compose("lock", "--repair", "--offline", at=applied)
    assert (refused.status, key in refused.err, "(line " in refused.err) == (65, True, True)
    assert "--target" in refused.err
    assert (applied / NAME).read_bytes() == text


@pytest.mark.parametrize("how", BREAKS)
def test_another_target_s_broken_entry_refuses_and_the_asked_one_s_is_found_again(
    applied: Path, how: str
) -> None:
    lock = two_targets(applied, second="local")
    text = broken(applied, PROD, how)
    refused = compose("lock", "--repair", "--target", "local", at=applied)
    assert (refused.status, f"of {PROD} (line " in refused.err) == (65, True), refused
    assert (applied / NAME).read_bytes() == text
    (applied / NAME).write_text(dump(lock), encoding="utf-8")
    broken(applied, "local", how)
    done = compose("lock", "--repair", "--target", "local", at=applied)
    assert (done.status, "of local (line " in done.out) == (0, True), done
    assert read_lock(applied) == lock


def test_what_was_lost_and_is_not_found_again_is_1(applied: Path) -> None:
    lock = two_targets(applied, second="local")
    (applied / ROGUE).unlink()
    broken(applied, "local", "a quote")
    done = compose("lock", "--repair", "--target", "local", at=applied)
    assert (done.status, f"entry {ROGUE} of local (line " in done.out) == (1, True), done
    assert read_lock(applied).target(PROD) == lock.target(PROD)


def test_half_a_file_keeps_the_other_half(applied: Path) -> None:
    lock = two_targets(applied, second="local")
    text = (applied / NAME).read_text(encoding="utf-8")
    cut = text.index('"', text.index("modelId", text.index('  "local":'))) + 4
    (applied / NAME).write_text(text[:cut], encoding="utf-8")
    done = compose("lock", "--repair", "--target", "local", at=applied)
    assert (done.status, "no end" in done.out) == (1, True), done
    assert read_lock(applied) == lock
    (applied / NAME).write_text(text[: text.index("modelId") + 12], encoding="utf-8")
    refused = compose("lock", "--repair", "--target", "local", at=applied)
    assert (refused.status, PROD in refused.err) == (65, True)


@pytest.mark.parametrize("text", ["lol: [\n", 'target:\n  - "https://x/v1": [\n'])
def test_a_text_in_which_no_entry_is_seen_is_not_overwritten(applied: Path, text: str) -> None:
    (applied / NAME).write_text(text, encoding="utf-8")
    assert compose("lock", "--repair", "--offline", at=applied).status == 65
    assert (applied / NAME).read_text(encoding="utf-8") == text


def test_a_misspelt_top_costs_no_entry(applied: Path) -> None:
    lock = two_targets(applied)
    edit(applied / NAME, "\ntargets:", "\ntarget:")
    assert compose("lock", "--repair", "--offline", at=applied).status == 0
    assert read_lock(applied) == lock


def test_what_a_repair_cannot_settle_is_not_called_well(applied: Path) -> None:
    ids = dict(entry(applied).pins)
    text = (applied / NAME).read_text("utf-8")
    wrong = text.replace(
        f'"Pixel Dust": "{ids["Pixel Dust"]}"', f'"Pixel Dust": "{ids["Ink Lines"]}"'
    )
    assert wrong != text
    (applied / NAME).write_text(wrong, "utf-8")
    ran = compose("lock", "--repair", at=applied)
    assert (ran.status, "two concepts are one model" in ran.out) == (1, True), ran.out
    assert "as it should be" not in ran.out
