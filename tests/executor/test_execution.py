"""A whole run: what it leaves, how it stops, and what it deletes, on any target."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.applying import created_only, kill_after_post, knight, stage, state_of, verbs
from support.fake_target import FakeTarget, composition
from support.rehearsal import Killed, Stage, recipe
from support.state import made_state

from composer.errors import CredentialsError, TargetError, Unreachable
from composer.executor import Settings, apply
from composer.lock import LOCK_NAME, Ledger, flattened, read_conflicted, write_lock
from composer.model import MARK, Recipe
from composer.planner import Deletions, Options, Plan, Report
from composer.targets.base import observe

if TYPE_CHECKING:
    from pathlib import Path


def test_a_second_run_writes_nothing(tmp_path: Path) -> None:
    project, target = stage(tmp_path)
    recipes = [knight(tags=["x"], description="d", training={"rank": 8})]
    project.run(recipes)
    lock, stamp = project.lock, (tmp_path / LOCK_NAME).stat().st_mtime_ns
    target.calls.clear()
    planned, report = project.run(recipes)
    assert not planned.changes and not report.lock_changed and report.exit_status == 0
    assert target.writes == []
    assert project.lock == lock and (tmp_path / LOCK_NAME).stat().st_mtime_ns == stamp
    assert project.journal == ""


def test_one_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    project, target = stage(tmp_path)
    target.failing = {"Knight"}
    recipes = [knight(), recipe("b.yaml", "Rogue", {"Dust": 0.4})]
    _, report = project.run(recipes)
    assert report.exit_status == 1
    assert (state_of(report), state_of(report, "b.yaml")) == ("failed", "created")
    assert "out of memory" in str(report.outcomes[0].error)
    coming = project.entries["a.yaml"].next
    assert coming is not None and coming.composition == target.made[0]
    target.failing = set()
    _, report = project.run(recipes)
    assert report.exit_status == 0 and len(target.made) == 2


@pytest.mark.parametrize(
    ("error", "status"),
    [(Unreachable("no route"), 69), (TargetError("no"), 1), (CredentialsError("who?"), 77)],
)
def test_the_gravest_exit_status_is_told(tmp_path: Path, error: TargetError, status: int) -> None:
    project, target = stage(tmp_path)
    target.fail("create", error)
    target.failing = {"Rogue"}
    recipes = [knight(), recipe("b.yaml", "Rogue", {"Dust": 0.4})]
    _, report = project.run(recipes)
    assert report.exit_status == status
    assert project.entries["b.yaml"].next is not None, "the lock is written all the same"
    assert project.journal == "", "a POST that was refused leaves no intent"


def test_a_failing_tag_keeps_the_journals_record(tmp_path: Path) -> None:
    """The tag is set before the record of our POST is folded away."""
    project, target = stage(tmp_path)
    target.fail("tag", Unreachable("no route"))
    _, report = project.run([knight()])
    assert report.exit_status == 69 and target.made[0] in project.journal
    project.run([knight()])
    assert MARK in (target.models[target.made[0]].tags or ()) and project.journal == ""


def test_once_stopped_nothing_new_starts(tmp_path: Path) -> None:
    project, target = stage(tmp_path)
    stop = threading.Event()
    target.watch = lambda verb, when: stop.set() if verb == "create" else None
    recipes = [knight(), recipe("b.yaml", "Rogue", {"Dust": 0.4})]
    _, report = project.run(recipes, stop=stop)
    assert report.interrupted and report.exit_status == 130
    assert verbs(target).count("create") == 1 and "train" not in verbs(target)
    assert state_of(report, "b.yaml") == "not started"
    coming = project.entries["a.yaml"].next
    assert coming is not None and coming.composition == target.made[0]
    target.watch = lambda verb, when: None
    _, report = project.run(recipes)
    assert report.exit_status == 0 and len(target.made) == 2


def test_parallelism_is_kept(tmp_path: Path) -> None:
    project, target = stage(tmp_path)
    inside, most, guard = [0], [0], threading.Lock()

    def watch(verb: str, when: str) -> None:
        if verb != "create":
            return
        with guard:
            inside[0] += 1 if when == "before" else -1
            most[0] = max(most[0], inside[0])
        time.sleep(0.02)

    target.watch = watch
    recipes = [recipe(f"{n}.yaml", f"N{n}", {"Ink": 0.5}) for n in range(9)]
    _, report = project.run(recipes, parallelism=3)
    assert report.exit_status == 0 and len(project.entries) == 9
    assert 1 < most[0] <= 3


def test_an_untrained_one_is_dropped_once_its_successor_is_on_disk(tmp_path: Path) -> None:
    project, target, old = created_only(tmp_path)

    def watch(verb: str, when: str) -> None:
        if verb == "delete":
            assert f'"made": "{target.made[-1]}"' in project.journal
            assert target.made[-1] != old

    target.watch = watch
    project.run([knight(0.6)])
    assert old not in target.models
    assert project.entries["a.yaml"].replaced == ()


@pytest.mark.parametrize("status", ["training", "trained"])
def test_one_that_was_trained_meanwhile_is_kept(tmp_path: Path, status: str) -> None:
    project, target, old = created_only(tmp_path)
    target.watch = lambda verb, when: (
        target.change(old, status=status) if (verb, when) == ("create", "after") else None
    )
    project.run([knight(0.6)])
    assert old in target.models
    assert [one.id for one in project.entries["a.yaml"].replaced] == [old]


def test_one_whose_mark_was_taken_off_meanwhile_is_kept(tmp_path: Path) -> None:
    project, target, old = created_only(tmp_path)
    target.watch = lambda verb, when: (
        target.change(old, tags=frozenset()) if (verb, when) == ("create", "after") else None
    )
    project.run([knight(0.6)])
    assert old in target.models
    assert [one.id for one in project.entries["a.yaml"].replaced] == [old]


def test_a_drop_that_fails_stays_in_the_lock(tmp_path: Path) -> None:
    project, target, old = created_only(tmp_path)
    target.fail("delete", TargetError("no"))
    _, report = project.run([knight(0.6)])
    assert report.exit_status == 0
    assert [one.id for one in project.entries["a.yaml"].replaced] == [old]


def run_prune(project: Stage, target: FakeTarget, recipes: list[Recipe], meddle: Any) -> Report:
    """A run with --prune in which somebody meddles just before the first look at what goes."""
    target.watch = lambda verb, when: meddle() if verb == "get_models" else None
    try:
        _, report = project.run(recipes, Options(prune=True))
    finally:
        target.watch = lambda verb, when: None
    return report


def gone_recipe(root: Path) -> tuple[Stage, FakeTarget, list[Recipe]]:
    project, target = stage(root)
    rogue = recipe("b.yaml", "Rogue", {"Dust": 0.4})
    project.run([knight(), rogue])
    return project, target, [rogue]


def test_prune_deletes_what_is_ours(tmp_path: Path) -> None:
    project, target, rest = gone_recipe(tmp_path)
    report = run_prune(project, target, rest, lambda: None)
    assert report.exit_status == 0
    assert "made_1" not in target.models and list(project.entries) == ["b.yaml"]


@pytest.mark.parametrize("change", [{"tags": frozenset()}, {"type": "flux.1-lora"}])
def test_a_look_just_before_a_deletion_decides(tmp_path: Path, change: dict[str, Any]) -> None:
    project, target, rest = gone_recipe(tmp_path)
    looks = [0]

    def meddle() -> None:
        looks[0] += 1
        if looks[0] > 2:  # after the plan's own look
            target.change("made_1", **change)

    report = run_prune(project, target, rest, meddle)
    assert report.exit_status == 1 and "made_1" in target.models
    assert "compose forget" in str(report.outcomes[0].error)
    assert "a.yaml" in project.entries


def test_one_in_training_is_canceled_before_it_is_deleted(tmp_path: Path) -> None:
    project, target, rest = gone_recipe(tmp_path)
    target.change("made_1", status="training")
    run_prune(project, target, rest, lambda: None)
    assert verbs(target)[-2:] == ["cancel", "delete"] or "made_1" not in target.models
    assert verbs(target).index("cancel") < verbs(target).index("delete")


def test_pruning_earlier_ones_takes_gone_ids_off_the_list(tmp_path: Path) -> None:
    project, target = stage(tmp_path)
    for scale in (0.5, 0.6, 0.7):
        project.run([knight(scale)])
    assert [old.id for old in project.entries["a.yaml"].replaced] == ["made_1", "made_2"]
    target.lose("made_1")
    assert prune_earlier(project, target).exit_status == 0
    assert project.entries["a.yaml"].replaced == () and list(target.compositions()) == ["made_3"]


def test_pruning_when_all_earlier_ones_are_gone(tmp_path: Path) -> None:
    project, target = stage(tmp_path)
    project.run([knight(0.5)])
    project.run([knight(0.6)])
    target.lose("made_1")
    prune_earlier(project, target)
    assert project.entries["a.yaml"].replaced == ()


def prune_earlier(project: Stage, target: FakeTarget) -> Report:
    """As `compose prune` does it."""
    ledger = Ledger(project.root, target.key, made_state(project.root))
    removal = Deletions(ledger.known_state, observe(target, [], ledger.known_state))
    entry = ledger.known_state.entries["a.yaml"]
    action = removal.earlier("a.yaml", entry)
    assert action is not None
    return apply(Plan(target.key, (action,)), target, ledger, Settings(grace=0.0))


def conflicted(root: Path) -> tuple[Stage, FakeTarget]:
    """The merged lock of two sides that name different compositions for a.yaml."""
    ours = composition("ours", "Knight", {"lora_ink": 0.5}, tags=frozenset({MARK}))
    theirs = composition("theirs", "Knight", {"lora_ink": 0.6}, tags=frozenset({MARK}))
    project, target = stage(root, ours, theirs)
    project.run([knight(0.5)])
    lock = project.lock.decode()
    other = lock.replace('"ours"', '"theirs"').replace('"scale": 0.5', '"scale": 0.6')
    assert '"theirs"' in other
    text = f"<<<<<<< HEAD\n{lock}=======\n{other}>>>>>>> branch\n"
    (root / LOCK_NAME).write_text(text, encoding="utf-8")
    write_lock(root, flattened(read_conflicted(root)))
    return project, target


def test_the_side_that_matches_the_recipe_wins(tmp_path: Path) -> None:
    project, target = conflicted(tmp_path)
    target.calls.clear()
    planned, _ = project.run([knight(0.6)])
    assert [a.verb for a in planned.actions] == ["adopt"]
    assert not {verb for verb, _ in target.writes} & {"create", "train", "delete"}
    entry = project.entries["a.yaml"]
    assert entry.composition == "theirs" and [old.id for old in entry.replaced] == ["ours"]


@pytest.mark.parametrize("trouble", ["not selected", "failing", "blocked"])
def test_the_other_side_is_not_lost_while_its_recipe_is_not_dealt_with(
    tmp_path: Path, trouble: str
) -> None:
    project, target = conflicted(tmp_path)
    mine, options = knight(0.7), None
    if trouble == "not selected":
        options = Options(selected=frozenset())
    elif trouble == "failing":
        target.fail("create", TargetError("no"))
    else:
        mine = replace(mine, concepts=recipe("", "", {"Nothing": 0.5}).concepts)
    project.run([mine], options)
    assert {"ours", "theirs"} == {*project.entries["a.yaml"].ids}
    project.run([knight(0.7)])
    assert {"ours", "theirs", "made_1"} == {*project.entries["a.yaml"].ids}


def test_the_journal_is_json_lines(tmp_path: Path) -> None:
    project, target = stage(tmp_path)
    with pytest.raises(Killed):
        kill_after_post(project, target, [knight()])
    events = [json.loads(line) for line in project.journal.splitlines()]
    assert [event["event"] for event in events] == ["intent"]


def test_a_drop_that_fails_when_all_is_trained_stays_in_the_lock(tmp_path: Path) -> None:
    project, target = stage(tmp_path)
    project.run([knight(0.5)])
    target.failing = {"Knight"}
    project.run([knight(0.6)])
    target.fail("delete", TargetError("no"))
    project.run([knight(0.5)])  # a revert: the composition in use is the right one again
    entry = project.entries["a.yaml"]
    assert entry.composition == "made_1" and entry.next is None
    assert [old.id for old in entry.replaced] == ["made_2"]


def test_pruning_earlier_ones_keeps_what_a_killed_run_left(tmp_path: Path) -> None:
    """The journal's candidates are the next apply's to judge."""
    project, target = stage(tmp_path)
    project.run([knight(0.5)])
    project.run([knight(0.6)])
    with pytest.raises(Killed):
        kill_after_post(project, target, [knight(0.7)])
    ledger = Ledger(project.root, target.key, made_state(project.root))
    ledger.record_found(ledger.known_state.intents[0], "made_3")
    prune_earlier(project, target)
    planned, _ = project.run([knight(0.7)])
    assert planned.actions[0].verb == "train" and len(target.made) == 3
    assert [old.id for old in project.entries["a.yaml"].replaced] == ["made_2"]
