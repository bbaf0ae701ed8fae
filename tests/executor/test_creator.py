"""Creating compositions: exactly once, although answers are lost and several runs compete."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.applying import INK, kill_after_post, knight, stage, verbs
from support.fake_target import FakeTarget, composition
from support.rehearsal import Fate, Killed, Stage, recipe

from composer.errors import Ambiguous, CredentialsError, Stopped, Unreachable
from composer.model import MARK, Concept, Model

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


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
