"""The lock is never lost: a disk that fails at any call of an apply, and a journal that is cut.

The calls of an undisturbed apply are counted; then each of them fails, with each error number, once
and for good, and one plain apply must bring everything right. The default size takes some of all
cases, `.ci/soak` takes all.
"""

from __future__ import annotations

import copy
import itertools
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from support import disk_faults, exactly_once
from support.applying import DUST, INK
from support.disk_faults import Ended, failures, suffer_local, suffer_served, undisturbed
from support.fake_target import FakeTarget
from support.rehearsal import Fate, Killed, Stage, recipe
from support.sizes import soak_factor
from support.state import made_state, state_of

from composer.errors import InvalidInput
from composer.lock import LOCK_NAME
from composer.lock.journal import NAME as JOURNAL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.failing_disk import Failure

    from composer.model import Recipe

T = TypeVar("T")

linux = pytest.mark.skipif(sys.platform != "linux", reason="descriptors have names in /proc only")


def some(cases: Sequence[T], small: int) -> Sequence[T]:
    """So many of the cases, the same ones each time; all in the long run."""
    return cases if soak_factor() else random.Random(small).sample(cases, small)


# --- a disk that fails -------------------------------------------------------------------


def all_of(
    suffer: Callable[[Failure, Path], Ended], cases: Sequence[Failure], folder: Path
) -> None:
    """All of them, in the long run in processes of their own; raises what is wrong."""
    folders = [folder / str(number) for number in range(len(cases))]
    if soak_factor():
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as pool:
            ended = list(pool.map(suffer, cases, folders))
    else:
        ended = list(map(suffer, cases, folders))
    wrong = [one.wrong for one in ended if one.wrong]
    assert not wrong, "\n\n".join(wrong[:20])
    unfired = [str(case) for case, one in zip(cases, ended, strict=True) if not one.fired]
    assert not unfired, f"never fired: {unfired}"
    if soak_factor():
        assert {0, 1} <= {one.status for one in ended}, "the faults were too weak"


@linux
def test_the_disk_fails_at_any_call_of_a_local_apply(tmp_path: Path) -> None:
    start = disk_faults.local_start(tmp_path / "start")
    expected, calls = undisturbed(start, tmp_path / "undisturbed")
    suffer = partial(_local, start, expected)
    all_of(suffer, some(failures(calls), 3), tmp_path)


def _local(start: Path, expected: disk_faults.Outcome, failure: Failure, folder: Path) -> Ended:
    return suffer_local(start, failure, folder, expected)


@linux
def test_the_disk_fails_at_any_call_of_an_apply_to_a_server(tmp_path: Path) -> None:
    start = exactly_once.build(tmp_path / "start")
    whole, calls = suffer_served(start, None, tmp_path / "undisturbed")
    assert (whole.status, whole.wrong) == (0, "")
    all_of(partial(_served, start), some(failures(calls), 2), tmp_path)


def _served(start: exactly_once.Start, failure: Failure, folder: Path) -> Ended:
    return suffer_served(start, failure, folder)[0]


# --- a disk that is full -----------------------------------------------------------------

FULL_DISK = Path(disk_faults.__file__).with_name("full_disk.py")
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
MOST = 90  # pages of room, above which an apply finds all that it needs for its records


def may_mount(folder: Path) -> bool:
    mount = ("mount", "-t", "tmpfs", "none", str(folder))
    try:
        return subprocess.run([*UNSHARE, *mount], capture_output=True).returncode == 0
    except OSError:
        return False


@linux
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """Journal, lock and SQLite find room for so many pages and no more."""
    if not may_mount(tmp_path):
        pytest.skip("no file system may be mounted here")
    project = disk_faults.local_start(tmp_path / "start")
    shutil.copytree(state_of(project), tmp_path / "start/state")
    (tmp_path / "disk").mkdir()
    rooms = [str(room) for room in some(range(MOST), 2)]
    ran = subprocess.run(
        [*UNSHARE, sys.executable, FULL_DISK, tmp_path / "start", tmp_path / "disk", *rooms],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    ended = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [str(room) for room, _, _ in ended] == rooms
    assert not [wrong for _, _, wrong in ended if wrong], ran.stdout
    assert {status for _, status, _ in ended} == {1}  # it was too full for each


# --- a journal that is cut ---------------------------------------------------------------

TAILS = (b"", b"\x00\x00\x00", b'{"event": "entry", "target"', b"\xff\xfe\n", b'{"event": 1}\n')
TARGETS = {
    "local": {"grants_ids": True},
    "remote": {"remote": True, "list_hides": frozenset({"concepts"})},
}


def recipes(scale: float, *more: str) -> list[Recipe]:
    """One to replace, which was made at another scale, one to keep, and more to create."""
    first = recipe("a.yaml", "Replaced", {"Ink": scale}, tags=["x"])
    second = recipe("b.yaml", "Kept", {"Ink": 0.5, "Dust": 0.25})
    return [first, second, *(recipe(f"{n.lower()}.yaml", n, {"Dust": 0.75}) for n in more)]


WANTED = recipes(0.75, "Resumed", "Created")


@dataclass(frozen=True)
class Interrupted:
    """A run that was killed: the lock and the journal that it left, and its target."""

    lock: bytes
    journal: bytes
    target: FakeTarget

    def last_line(self) -> int:
        """Where it begins."""
        return self.journal[:-1].rfind(b"\n") + 1


def interrupted(
    root: Path, instant: int | None, options: dict[str, Any]
) -> tuple[Interrupted, int]:
    """One that died at this instant, and how many instants it had."""
    target, fate = FakeTarget(**options), Fate(instant)
    target.put(INK, DUST)
    root.mkdir()
    stage = Stage(root, target)
    stage.run(recipes(0.5))
    target.failing = {"Resumed"}
    stage.run(recipes(0.5, "Resumed"))
    target.failing, target.watch = set(), fate.watch
    with suppress(Killed):
        stage.run(WANTED, fate=fate)
    target.watch = lambda verb, when: None
    return Interrupted(stage.lock, stage.journal.encode(), target), fate.instants


def cuts(root: Path, options: dict[str, Any]) -> list[tuple[Interrupted, int]]:
    """Each byte of the last line of each journal that a kill leaves; and each of the last one."""
    _, instants = interrupted(root / "whole", None, options)
    before_the_lock = instants - 3  # its writing and the journal's folding have two each
    found = []
    for instant in (*some(range(1, before_the_lock), 2), before_the_lock):
        run, _ = interrupted(root / str(instant), instant, options)
        first = 0 if instant == before_the_lock else run.last_line()
        found += [(run, cut) for cut in range(first, len(run.journal) + 1)]
    return found


@pytest.mark.parametrize("kind", TARGETS)
def test_a_journal_that_is_cut_or_torn_at_any_byte(tmp_path: Path, kind: str) -> None:
    (tmp_path / "project").mkdir()
    refused = 0
    cases = zip(cuts(tmp_path, TARGETS[kind]), itertools.cycle(TAILS), strict=False)
    for (run, cut), tail in some(list(cases), 10):
        target = clone(run.target, TARGETS[kind])
        stage = Stage(tmp_path / "project", target)
        (stage.root / LOCK_NAME).write_bytes(run.lock)
        journal = made_state(stage.root) / JOURNAL
        journal.write_bytes(run.journal[:cut] + tail)
        try:
            _, report = stage.run(WANTED)
        except InvalidInput as error:
            refused += 1
            assert tail.endswith(b"\n") and "move the file away" in str(error.hint)
            journal.unlink()
            _, report = stage.run(WANTED)
        assert report.exit_status == 0
        judge(stage, target)
    assert refused


def clone(target: FakeTarget, options: dict[str, Any]) -> FakeTarget:
    """The same models, and a clock that goes on from there."""
    twin = FakeTarget(**options, models=dict(target.models), made=list(target.made))
    twin.put(*twin.models.values())
    twin._counter = copy.copy(target._counter)
    return twin


def judge(stage: Stage, target: FakeTarget) -> None:
    """One trained composition of each recipe, named by the lock as all others; nothing to do."""
    there, entries = target.compositions(), stage.entries
    assert sorted(entries) == sorted(one.path for one in WANTED)
    for one in WANTED:
        entry = entries[one.path]
        assert entry.next is None and entry.content is not None and entry.composition is not None
        made_of = (one.name, entry.content.concepts)
        assert [m.id for m in there.values() if (m.name, m.concepts) == made_of] == [
            entry.composition
        ]
        assert there[entry.composition].trained
    assert {id for entry in entries.values() for id in entry.ids} == set(there)
    assert len(there) == len(WANTED) + 1 and not stage.journal
    writes = len(target.writes)
    planned, report = stage.run(WANTED)
    assert not planned.changes and not report.lock_changed and len(target.writes) == writes
