"""The rules of applying that hold on any target, each where it could break."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.fake_target import FakeTarget, composition, lora
from support.rehearsal import Fate, Killed, Stage, recipe
from support.state import made_state

from composer.errors import Ambiguous, CredentialsError, TargetError, Unreachable
from composer.executor import Settings, Stopped, apply
from composer.lock import LOCK_NAME, Ledger, flattened, read_conflicted, write_lock
from composer.model import MARK, Concept, Model, Recipe
from composer.planner import Deletions, Options, Plan, Report
from composer.targets.base import observe

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

INK, DUST = lora("lora_ink", "Ink"), lora("lora_dust", "Dust")


def stage(
    root: Path, *models: Model, grace: float = 0.0, **options: Any
) -> tuple[Stage, FakeTarget]:
    target = FakeTarget(grace=grace, **options)
    target.put(INK, DUST, *models)
    return Stage(root, target, grace=grace), target


def knight(scale: float = 0.5, **more: Any) -> Recipe:
    return recipe("a.yaml", "Knight", {"Ink": scale}, **more)


def verbs(target: FakeTarget) -> list[str]:
    return [verb for verb, _ in target.calls]


def state_of(report: Report, path: str = "a.yaml") -> str:
    return next(outcome.state for outcome in report.outcomes if outcome.action.path == path)


# --- 1: twice ------------------------------------------------------------------------------


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


# --- 2: exactly once -----------------------------------------------------------------------


@pytest.mark.parametrize("hides", [frozenset(), frozenset({"concepts"})])
def test_a_lost_answer_makes_no_second_model(tmp_path: Path, hides: frozenset[str]) -> None:
    project, target = stage(tmp_path, grace=0.3, list_hides=hides, late=0.05)
    target.fail("create", Ambiguous("time-out"), after=True)
    _, report = project.run([knight()])
    assert report.exit_status == 0
    assert len(target.made) == 1 and len(target.compositions()) == 1
    assert MARK in (target.models[target.made[0]].tags or ())


def test_a_lost_request_is_sent_again_only_after_the_grace(tmp_path: Path) -> None:
    project, target = stage(tmp_path, grace=0.3)
    target.fail("create", Ambiguous("time-out"))
    times: list[float] = []
    target.watch = lambda verb, when: times.append(time.monotonic()) if verb == "create" else None
    _, report = project.run([knight()])
    first, second, _ = times  # before the lost one; before and after the other
    assert report.exit_status == 0
    assert second - first >= 0.3
    assert len(target.made) == 1


def test_a_request_that_is_always_lost_ends(tmp_path: Path) -> None:
    project, target = stage(tmp_path)
    target.fail("create", Ambiguous("time-out"), times=99)
    _, report = project.run([knight()])
    assert report.exit_status == 69
    assert verbs(target).count("create") == 3
    assert project.journal == ""


def test_an_intent_stays_open_while_the_target_cannot_be_asked(tmp_path: Path) -> None:
    project, target = stage(tmp_path)
    target.fail("create", Ambiguous("broken pipe"), after=True)
    target.fail("list_models", Unreachable("no route"), nth=2)
    _, report = project.run([knight()])
    assert report.exit_status == 69
    assert "intent" in project.journal
    _, report = project.run([knight()])
    assert report.exit_status == 0
    assert len(target.made) == 1 and project.journal == ""


def test_a_foreign_model_of_other_training_is_no_lost_answer(tmp_path: Path) -> None:
    """Trained with other parameters, it can't be what our POST made a moment ago."""
    theirs = composition("theirs", "Knight", {"lora_ink": 0.5}, parameters=(("rank", 4),))
    project, target = stage(tmp_path, theirs)
    target.fail("create", Ambiguous("time-out"), after=True)
    project.run([knight(training={"rank": 8})])
    assert project.entries["a.yaml"].composition == target.made[0]
    assert target.models["theirs"].tags == frozenset()


def test_an_intent_is_found_even_if_its_recipe_changed(tmp_path: Path) -> None:
    project, target = stage(tmp_path)
    with pytest.raises(Killed):
        kill_after_post(project, target, [knight(0.5)])
    _, report = project.run([knight(0.6)])
    assert report.exit_status == 0
    assert list(target.compositions()) == [project.entries["a.yaml"].composition]
    assert len(target.made) == 2  # the first was never trained: dropped


def kill_after_post(project: Stage, target: FakeTarget, recipes: list[Recipe]) -> None:
    """Die right after the POST took effect, before its answer is read."""
    fate = Fate()

    def watch(verb: str, when: str) -> None:
        if (verb, when) == ("create", "after"):
            fate.last = fate.instants + 1
        fate.instant()

    target.watch = watch
    try:
        project.run(recipes, fate=fate)
    finally:
        target.watch = lambda verb, when: None


def test_a_new_model_that_is_not_seen_yet_is_waited_for(tmp_path: Path) -> None:
    project, target = stage(tmp_path, grace=0.3, late=0.1)
    with pytest.raises(Killed):
        kill_after_post(project, target, [knight()])
    _, report = project.run([knight()])
    assert report.exit_status == 0
    assert len(target.made) == 1


def test_an_id_in_the_lock_that_is_not_seen_is_given_its_grace(tmp_path: Path) -> None:
    """A 404's grace runs from the first look, where the journal has no record of the POST."""
    project, target = stage(tmp_path, grace=0.2)
    project.run([knight()])
    target.hide(target.made[0], 0.05)
    planned, _ = project.run([knight()])
    assert not planned.changes and len(target.made) == 1
    target.lose(target.made[0])
    begun = time.monotonic()
    planned, _ = project.run([knight()])
    assert time.monotonic() - begun >= 0.2
    assert (
        planned.actions[0].explanation.reason.startswith("not on the target;")
        and len(target.made) == 2
    )


def test_another_owners_credentials_are_not_waited_with(tmp_path: Path) -> None:
    project, target = stage(tmp_path, team="team_a", remote=True)
    project.run([knight()])
    target.team = "team_b"
    target.lose(target.made[0])
    project.grace = 60.0
    with pytest.raises(CredentialsError, match="team_a"):
        project.run([knight()])


def test_a_wait_for_the_grace_can_be_stopped(tmp_path: Path) -> None:
    project, target = stage(tmp_path, grace=60.0)
    project.grace = 0.0
    project.run([knight()])
    target.lose(target.made[0])
    project.grace, stop = 60.0, threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        project.run([knight()], stop=stop)


class Racing(FakeTarget):
    """Another runner creates the same composition, a moment before we do."""

    def create(self, name: str, concepts: Iterable[Concept], **more: Any) -> Model:
        concepts = tuple(concepts)
        if not self.made:
            made_of = {concept.model_id: concept.scale for concept in concepts}
            self.put(composition("theirs", name, made_of, "new", created_at=self.now()))
        return super().create(name, concepts, **more)


@pytest.mark.parametrize("hides", [frozenset(), frozenset({"concepts"})])
def test_of_two_racing_twins_the_older_is_used(tmp_path: Path, hides: frozenset[str]) -> None:
    target = Racing(remote=True, list_hides=hides)
    target.put(INK)
    project = Stage(tmp_path, target)
    recipes = [knight(tags=["x"], description="d")]
    _, report = project.run(recipes)
    assert report.exit_status == 0
    assert list(target.compositions()) == ["theirs"]
    assert project.entries["a.yaml"].composition == "theirs"
    assert target.models["theirs"].tags == frozenset({"x"}), "their model doesn't get our mark"
    planned, _ = project.run(recipes)
    assert not planned.changes and project.journal == ""


def test_a_younger_twin_that_trains_already_is_kept(tmp_path: Path) -> None:
    target = Racing(remote=True)
    target.put(INK)

    def train_ours(verb: str, when: str) -> None:
        if target.made and target.models[target.made[0]].status == "new":
            target.change(target.made[0], status="training")

    target.watch = train_ours
    project = Stage(tmp_path, target)
    project.run([knight()])
    entry = project.entries["a.yaml"]
    assert entry.composition == "theirs"
    assert [old.id for old in entry.replaced] == [target.made[0]]
    assert MARK in (target.models[target.made[0]].tags or ())


def test_a_local_target_is_not_searched_for_twins(tmp_path: Path) -> None:
    project, target = stage(tmp_path)
    project.run([knight()])
    assert verbs(target).count("list_models") == 1


def test_requested_ids_are_granted_before_others_can_take_them(tmp_path: Path) -> None:
    """A new recipe's derived id may be the one that another recipe's lock remembers."""
    project, target = stage(tmp_path, grants_ids=True)
    late = recipe("z.yaml", "Late", {"Dust": 0.5})
    project.run([late])
    requested = str(project.entries["z.yaml"].composition)
    target.lose(requested)
    target.made.clear()  # the next id that it derives is the same again
    lock = project.entries["z.yaml"]
    project.run([knight(), late], parallelism=2)
    assert project.entries["z.yaml"] == lock


# --- 3: on disk first ----------------------------------------------------------------------


def test_the_intent_is_on_disk_before_the_post_and_the_id_before_the_next_request(
    tmp_path: Path,
) -> None:
    project, target = stage(tmp_path)
    seen: list[str] = []

    def watch(verb: str, when: str) -> None:
        if when != "before":
            return
        journal = project.journal
        if verb == "create":
            assert '"event": "intent"' in journal
        if target.made:
            assert f'"made": "{target.made[-1]}"' in journal, f"unwritten before {verb}"
        seen.append(verb)

    target.watch = watch
    project.run([knight(), recipe("b.yaml", "Rogue", {"Dust": 0.4})])
    assert seen.count("create") == 2


class Rounding(FakeTarget):
    """Keeps one decimal of a scale only."""

    def create(self, name: str, concepts: Iterable[Concept], **more: Any) -> Model:
        kept = [replace(concept, scale=round(concept.scale, 1)) for concept in concepts]
        return super().create(name, kept, **more)


def test_content_that_the_target_changes_blocks_its_recipe_for_good(tmp_path: Path) -> None:
    target = Rounding()
    target.put(INK)
    project = Stage(tmp_path, target)
    _, report = project.run([knight(0.55)])
    coming = project.entries["a.yaml"].next
    assert report.exit_status == 1
    assert coming is not None and coming.state == "mismatch"
    assert MARK in (target.models[coming.composition].tags or ())
    for _ in range(2):
        planned, report = project.run([knight(0.55)])
        assert report.exit_status == 1 and "compose forget" in planned.blocked[0].explanation.reason
    assert len(target.made) == 1
    _, report = project.run([knight(0.5)])
    assert report.exit_status == 0
    assert list(target.compositions()) == [project.entries["a.yaml"].composition]


def test_a_field_left_out_of_the_answer_is_no_difference(tmp_path: Path) -> None:
    project, _ = stage(tmp_path, hides=frozenset({"concepts", "tags", "parameters", "description"}))
    _, report = project.run([knight(tags=["x"])])
    assert report.exit_status == 0


# --- 4: independent ------------------------------------------------------------------------


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


def test_a_failed_training_is_tried_once_per_apply(tmp_path: Path) -> None:
    project, target = stage(tmp_path)
    target.failing = {"Knight"}
    for runs in (1, 2, 3):
        _, report = project.run([knight()])
        assert report.exit_status == 1
        assert verbs(target).count("train") == runs


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


# --- 5: stopped ----------------------------------------------------------------------------


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


def test_a_wait_is_left_at_once_when_stopped(tmp_path: Path) -> None:
    project, _ = stage(tmp_path, polls=10**6)
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    begun = time.monotonic()
    _, report = project.run([knight()], stop=stop, poll_interval=30.0)
    assert time.monotonic() - begun < 10
    assert report.exit_status == 130 and state_of(report) == "training"


# --- 6: waiting ----------------------------------------------------------------------------


def test_a_wait_that_runs_out_is_no_failure(tmp_path: Path) -> None:
    project, target = stage(tmp_path, polls=10**6)
    _, report = project.run([knight()], timeout=0.02)
    assert report.exit_status == 75 and state_of(report) == "training"
    target.change(target.made[0], status="trained")
    _, report = project.run([knight()])
    assert report.exit_status == 0 and len(target.made) == 1
    assert verbs(target).count("train") == 1


def test_no_wait_asks_once(tmp_path: Path) -> None:
    project, _ = stage(tmp_path, polls=10**6)
    _, report = project.run([knight()], no_wait=True)
    assert report.exit_status == 75


def test_all_that_train_are_polled_together(tmp_path: Path) -> None:
    asked = []
    for count in (1, 6):
        folder = tmp_path / str(count)
        folder.mkdir()
        project, target = stage(folder, polls=5)
        recipes = [recipe(f"{n}.yaml", f"N{n}", {"Ink": 0.5}) for n in range(count)]
        project.run(recipes)
        trained = max(n for n, verb in enumerate(verbs(target)) if verb == "train")
        asked.append(len(target.calls) - trained)
    assert asked[0] == asked[1]


def test_a_model_deleted_while_it_trains_is_not_waited_for(tmp_path: Path) -> None:
    project, target = stage(tmp_path, polls=10**6)
    target.watch = lambda verb, when: (
        target.change(target.made[0], status="deleted")
        if (verb, when) == ("train", "after")
        else None
    )
    _, report = project.run([knight()], timeout=60.0)
    assert report.exit_status == 1 and "disappeared" in str(report.outcomes[0].error)


def test_training_is_preceded_by_a_look(tmp_path: Path) -> None:
    """Somebody else has started it meanwhile: no second request."""
    project, target = stage(tmp_path)

    def start(verb: str, when: str) -> None:
        if (verb, when) == ("tag", "after"):
            target.train(target.made[0])

    target.watch = start
    project.run([knight()])
    assert verbs(target).count("train") == 1


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


# --- 7: letting go -------------------------------------------------------------------------


def created_only(root: Path, **options: Any) -> tuple[Stage, FakeTarget, str]:
    """A project whose training failed: `next` is untrained."""
    project, target = stage(root, **options)
    target.failing = {"Knight"}
    project.run([knight(0.5)])
    target.failing = set()
    return project, target, target.made[0]


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


# --- the sides of a conflict ---------------------------------------------------------------


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


def test_a_mismatch_is_remembered_through_a_kill(tmp_path: Path) -> None:
    """No second POST, although the lock was never written."""
    target = Rounding()
    target.put(INK)
    project = Stage(tmp_path, target)
    fate = Fate()

    def die_at_the_tag(verb: str, when: str) -> None:
        if verb == "tag":
            fate.last = fate.instants + 1
        fate.instant()

    target.watch = die_at_the_tag
    with pytest.raises(Killed):
        project.run([knight(0.55)], fate=fate)
    target.watch = lambda verb, when: None
    for _ in range(2):
        planned, _ = project.run([knight(0.55)])
        assert "kept other content" in planned.blocked[0].explanation.reason
    assert len(target.made) == 1


def test_a_successor_that_fails_does_not_lose_the_one_before(tmp_path: Path) -> None:
    """The untrained `next` of the lock is still known when its successor fails half-way."""
    project, target, old = created_only(tmp_path)
    target.watch = lambda verb, when: (
        target.fail("tag", Unreachable("no route")) if (verb, when) == ("create", "after") else None
    )
    _, report = project.run([knight(0.6)])
    target.watch = lambda verb, when: None
    assert report.exit_status == 69 and old in target.models
    assert old in project.entries["a.yaml"].ids or old in project.journal


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
    ledger.found(ledger.known_state.intents[0], "made_3")
    prune_earlier(project, target)
    planned, _ = project.run([knight(0.7)])
    assert planned.actions[0].verb == "train" and len(target.made) == 3
    assert [old.id for old in project.entries["a.yaml"].replaced] == ["made_2"]


def test_a_killed_runs_post_that_never_was_expires(tmp_path: Path) -> None:
    project, target = stage(tmp_path, grace=0.2)
    fate = Fate()

    def die_before_the_post(verb: str, when: str) -> None:
        if verb == "create":
            fate.last = fate.instants + 1
        fate.instant()

    target.watch = die_before_the_post
    with pytest.raises(Killed):
        project.run([knight()], fate=fate)
    target.watch = lambda verb, when: None
    begun = time.monotonic()
    _, report = project.run([knight()])
    assert time.monotonic() - begun > 0.1 and report.exit_status == 0
    assert len(target.made) == 1 and project.journal == ""


def test_what_was_made_and_is_gone_leaves_the_journal(tmp_path: Path) -> None:
    project, target = stage(tmp_path)
    target.fail("tag", Unreachable("no route"))
    project.run([knight()])
    target.lose(target.made[0])
    project.run([knight(0.6)])
    assert project.journal == "" and list(target.compositions()) == ["made_2"]
