"""Training: when it starts, how it is waited for, and what a failure leaves behind."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from support.applying import created_only, knight, stage, state_of, verbs
from support.rehearsal import recipe

from composer.errors import Unreachable

if TYPE_CHECKING:
    from pathlib import Path


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
