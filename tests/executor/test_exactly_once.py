"""Exactly once, whatever goes wrong: every call of an apply meets every fault, over a real socket.

The project and what must hold are in `exactly_once`, the faults in `fault_cases`. `.ci/soak` runs
all kinds of faults at each call, `.ci/run` one of each class.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import pytest
from support import exactly_once, fault_cases, serving
from support.exactly_once import CREATE, REPLACE, WANTED, Start, apply, check_at_rest, ids_of, moved
from support.fake_target import FakeTarget, lora
from support.model_types import COMPOSITION
from support.rehearsal import Stage, recipe
from support.sizes import size
from support.state import state_of

from composer.errors import Ambiguous
from composer.executor import recover
from composer.lock import Ledger
from composer.model import Concept, Content, CreatedRecord, Entry, KnownState
from composer.targets.base import Search, observe

if TYPE_CHECKING:
    from pathlib import Path

    from support.fault_cases import Case, Suffered
    from support.serving import Served

FOREVER = 3600  # seconds


@pytest.fixture
def start(tmp_path: Path) -> Start:
    return exactly_once.build(tmp_path / "start")


def test_exactly_once_whatever_goes_wrong(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    cases: list[Case] = []
    for at_once in (1, 8)[: size(1, 2)]:
        calls = fault_cases.record(start, tmp_path / f"record {at_once}", parallelism=at_once)
        cases += fault_cases.cases(calls, all_kinds=bool(size(0, 1)), parallelism=at_once)
    done = suffered(start, cases[:: 2 - size(0, 1)], tmp_path)  # every other one, or all
    with capsys.disabled():
        print(f"\n{summary(len(calls), done)} in {time.monotonic() - began:.0f} s")
    wrong = [f"{one.case}, exit status {one.status}: {one.wrong}" for one in done if one.wrong]
    assert not wrong, "\n\n".join(wrong)
    ends = {one.status for one in done}
    assert {0, 1, 69} < ends, "the faults were too weak to fail a run"


def suffered(start: Start, cases: list[Case], folder: Path) -> list[Suffered]:
    """All of them, in processes of their own: an apply changes the working directory."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor((os.cpu_count() or 1) + 1, mp_context=spawn) as pool:
        folders = [folder / str(number) for number in range(len(cases))]
        return list(pool.map(fault_cases.suffer, [start] * len(cases), cases, folders))


def summary(calls: int, done: list[Suffered]) -> str:
    ends = Counter(
        "killed" if one.case.what.kill else "done all the same" if one.status == 0 else "failed"
        for one in done
    )
    counts = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    return f"exactly once: {calls} calls, {len(done)} combinations of call and fault ({counts})"


# --- from when the grace is counted ------------------------------------------------------


CONTENT = Content.of(COMPOSITION, [Concept("lora_ink", 0.5)])


class Watch:
    """A clock that tests set; with `ticks`, each look at it takes so many seconds."""

    def __init__(self) -> None:
        self.now, self.ticks = 0.0, 0.0

    def __call__(self) -> float:
        self.now += self.ticks
        return self.now


def test_a_slow_post_does_not_use_up_the_grace(tmp_path: Path) -> None:
    """From the answer, or from when none came: until then it may have taken effect."""
    watch = Watch()
    ledger = Ledger(tmp_path, "local", state_of(tmp_path), clock=watch)
    answered, lost = (ledger.intend(f"{name}.yaml", name, CONTENT) for name in ("a", "b"))
    watch.now = 50.0
    ledger.record("a.yaml", Entry("a"), closes=answered, made="made_1")
    ledger.unanswered(lost)
    memory = Ledger(tmp_path, "local", state_of(tmp_path), clock=watch).known_state
    assert memory.made["made_1"].at == 50.0
    assert [(intent.token, intent.at) for intent in memory.intents] == [(lost.token, 50.0)]


@pytest.mark.parametrize(("age", "waits"), [(0.0, 10.0), (50.0, 10.0), (65.0, 5.0), (71.0, 0.0)])
def test_a_killed_run_s_post_may_have_taken_effect_later(
    tmp_path: Path, age: float, waits: float
) -> None:
    watch = Watch()
    Ledger(tmp_path, "local", state_of(tmp_path), clock=watch).intend("a.yaml", "a", CONTENT)
    watch.now, watch.ticks = age, 0.1
    ledger = Ledger(tmp_path, "local", state_of(tmp_path), clock=watch)
    recover([], FakeTarget(), ledger, grace=10.0, stop=Impatient())
    assert not ledger.known_state.intents
    assert waits <= watch.now - age <= waits + 1


@pytest.mark.parametrize("wall", [-86_400.0, -25.0, 25.0, 86_400.0])
@pytest.mark.parametrize("rebooted", [False, True])
def test_an_intent_is_as_old_as_the_clock_that_nobody_sets_says(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wall: float,
    *,
    rebooted: bool,
) -> None:
    """The time of day went back or ahead between a kill and the next run."""
    Ledger(tmp_path, "local", state_of(tmp_path)).intend("a.yaml", "Knight", CONTENT)
    clock, uptime = time.time, time.monotonic
    monkeypatch.setattr(time, "time", lambda: clock() + wall)
    if rebooted:
        start = uptime() - 1.0
        monkeypatch.setattr(time, "monotonic", lambda: uptime() - start)
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    began = uptime()
    recover([], FakeTarget(), ledger, grace=0.5, stop=threading.Event())
    assert 0.45 <= uptime() - began < 2.0
    assert not ledger.known_state.intents
    assert caplog.text.count("an interrupted run may have created Knight (a.yaml)") == 1


@pytest.mark.parametrize("ahead", [25.0, 86_400.0])
def test_an_intent_without_uptime_is_never_younger_than_now(tmp_path: Path, ahead: float) -> None:
    ledger = Ledger(tmp_path, "local", state_of(tmp_path), clock=lambda: time.time() + ahead)
    intent = ledger.intend("a.yaml", "Knight", CONTENT)
    journal = state_of(tmp_path) / "journal.jsonl"
    event = json.loads(journal.read_text())
    del event["uptime"]  # as earlier versions wrote it
    journal.write_text(json.dumps(event) + "\n")
    began = time.monotonic()
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    assert ledger.known_state.intents[0].token == intent.token
    recover([], FakeTarget(), ledger, grace=0.4, stop=threading.Event())
    assert 0.35 <= time.monotonic() - began < 2.0


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_clock_that_is_set_during_a_run_changes_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """Neither is a lost answer looked for longer, nor is the model created again too early."""
    clock = time.time
    target = FakeTarget(grace=0.5, late=0.3)
    target.put(lora("lora_ink", "Ink"))
    project = Stage(tmp_path, target, grace=0.5)

    def set_clock(verb: str, when: str) -> None:
        if verb == "create" and when == "after":
            monkeypatch.setattr(time, "time", lambda: clock() + jump)

    target.watch = set_clock
    target.fail("create", Ambiguous("no answer"), after=True)
    began = time.monotonic()
    _, report = project.run([recipe("a.yaml", "Knight", {"Ink": 0.5})])
    assert time.monotonic() - began < 3.0
    assert (report.exit_status, len(target.made)) == (0, 1)
    assert time.time() - clock() == pytest.approx(jump, abs=1.0)  # it was set


@pytest.mark.parametrize("recorded", [True, False])
def test_a_late_replica_is_searched_for_once_for_the_grace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, recorded: bool
) -> None:
    """Also where the record of its POST is from a clock that was ahead, and an intent is open."""
    ahead = time.time() + 86_400
    entry = Entry("Knight", composition="model_gone")
    made = {"model_gone": CreatedRecord("Knight", CONTENT, ahead)} if recorded else {}
    memory = KnownState(None, {"a.yaml": entry}, made)
    search = Search(0.4).started()
    began = time.monotonic()
    for _ in range(3):
        observe(FakeTarget(), [], memory, search)
    assert 0.35 <= time.monotonic() - began < 1.0
    assert caplog.text.count("waiting up to 1 s for models of the lock") == 1
    assert "model_gone" in caplog.text


class Impatient(threading.Event):
    """Never set, and never waited for."""

    def wait(self, timeout: float | None = None) -> bool:
        return False


# --- beyond the grace --------------------------------------------------------------------


def test_twins_of_two_runners_that_saw_stale_lists_are_kept_and_shown(
    start: Start, tmp_path: Path
) -> None:
    """The list is as of before the first runner's POST for longer than any grace."""
    ours, theirs = (start.copy("project", tmp_path / name) for name in ("ours", "theirs"))
    server = start.copy("server", tmp_path / "server")
    stale = {"when": "POST /models", "stale_list": FOREVER}
    with serving.thread(server, start.library, faults=[stale]) as served:
        for project in (ours, theirs):
            done = apply(moved(project, start.url, served.url), served)
            assert done.status == 0, done
        before = served.url
        assert served.faults == [1]
    with serving.thread(server, start.library) as served:
        twins = {path: set(ids_of(served, path)) for path in WANTED}
        assert [len(twins[path]) for path in (CREATE, REPLACE)] == [2, 2]
        for project in (ours, theirs):
            named = exactly_once.entries(moved(project, before, served.url), served)
            shown = planned(project, served)
            for path in (CREATE, REPLACE):
                (other,) = twins[path] - {named[path].composition}
                assert f"the lock does not name its twins: {other}\n" in shown
            assert shown.count("note:") == 2
            check_at_rest(project, served)
        assert {path: set(ids_of(served, path)) for path in WANTED} == twins


def test_a_post_that_shows_up_after_the_grace_is_shown(start: Start, tmp_path: Path) -> None:
    server = start.copy("server", tmp_path / "server")
    lost = {"when": "POST /models", "drop": "after", "late_replica": FOREVER}
    with serving.thread(server, start.library, faults=[lost]) as served:
        project = moved(start.copy("project", tmp_path / "project"), start.url, served.url)
        assert apply(project, served).status == 0
        before, known = served.url, len(exactly_once.compositions(served))
        assert served.faults == [1]
    with serving.thread(server, start.library) as served:
        moved(project, before, served.url)
        assert len(exactly_once.compositions(served)) == known + 1
        assert planned(project, served).count("its twins: ") == 1
        check_at_rest(project, served)


def planned(project: Path, served: Served) -> str:
    """What `compose plan` shows; there must be nothing to do."""
    command = ("plan", "--detailed-exitcode", "--target", served.url)
    ran = exactly_once.run(project, served, *command)
    assert ran.status == 0, ran
    return ran.out
