"""Training: when it starts, how it is waited for, and what a failure leaves behind."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from support.applying import created_only, knight, stage, state_of, verbs
from support.rehearsal import recipe

from composer.errors import Unreachable
from composer.executor import training

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from composer.model import Model, Recipe


def test_a_failed_training_is_tried_once_per_apply(tmp_path: Path) -> None:
    project, target = stage(tmp_path)
    target.failing = {"Knight"}
    for runs in (1, 2, 3):
        _, report = project.run([knight()])
        assert report.exit_status == 1
        assert verbs(target).count("train") == runs


def test_a_wait_is_left_at_once_when_stopped(tmp_path: Path) -> None:
    project, _ = stage(tmp_path, polls=10**6)
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    begun = time.monotonic()
    _, report = project.run([knight()], stop=stop, poll_interval=30.0)
    assert time.monotonic() - begun < 10
    assert report.exit_status == 130 and state_of(report) == "training"


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


@pytest.fixture
def tens(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """25 recipes, of which ten are looked at together, as a hundred of many are."""
    monkeypatch.setattr(training, "_AT_ONCE", 10)
    monkeypatch.setattr(training, "_AHEAD", 3)
    return [recipe(f"{n:02}.yaml", f"N{n:02}", {"Ink": 0.5}) for n in range(25)]


def test_each_of_many_trainings_is_preceded_by_one_look_at_several(
    tmp_path: Path, tens: list[Recipe]
) -> None:
    project, target = stage(tmp_path)
    looks: list[set[str]] = []
    looked_before: dict[str, set[str]] = {}  # by the id of what is trained
    read, train = target.get_models, target.train

    def get_models(ids: Collection[str]) -> dict[str, Model]:
        models = read(ids)
        looks.append({*ids})
        return models

    def train_after(id: str, *rest: Any) -> Model:
        looked_before[id] = set().union(*(ids for ids in looks if len(ids) < 25))
        return train(id, *rest)

    target.get_models, target.train = get_models, train_after  # type: ignore[method-assign]
    _, report = project.run(tens)
    assert report.exit_status == 0 and {*looked_before} == {*target.made}
    assert all(id in ids for id, ids in looked_before.items())
    assert [len(ids) for ids in looks if 0 < len(ids) < 25][:3] == [10, 10, 5]


def test_a_look_that_fails_is_the_outcome_of_its_trainings_alone(
    tmp_path: Path, tens: list[Recipe]
) -> None:
    project, target = stage(tmp_path)
    read, looks = target.get_models, []

    def get_models(ids: Collection[str]) -> dict[str, Model]:
        looks.append(len(ids))
        if (looks.count(10), len(ids)) == (2, 10):
            raise Unreachable("no route")
        return read(ids)

    target.get_models = get_models  # type: ignore[method-assign]
    _, report = project.run(tens)
    assert Counter(outcome.state for outcome in report.outcomes) == {"created": 15, "failed": 10}
    assert report.exit_status == 69 and verbs(target).count("train") == 15
    target.get_models = read  # type: ignore[method-assign]
    _, report = project.run(tens)
    assert report.exit_status == 0 and len(target.made) == 25
    assert verbs(target).count("train") == 25


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
