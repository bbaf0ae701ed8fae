"""No image is paid for twice and none is lost: every call with every fault and kill, every change
of the disk that fails or is the last, then one plain run."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import pytest
from support import paid_once
from support.disk_faults import NUMBERS
from support.failing_disk import Failure, failing_disk
from support.image_server import ImageServer
from support.paid_once import LATE, TROUBLES, Trouble
from support.sizes import size

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return paid_once.undisturbed(tmp_path_factory.mktemp("undisturbed"))


def test_the_calls_of_a_run(calls: list[str]) -> None:
    kinds = Counter(call.split("/")[1] for call in calls)
    assert kinds["generate"] == 3  # a dry run, and a job for each of two cells
    assert kinds["files"] == 2 and kinds["jobs"] and kinds["assets"]


@pytest.mark.parametrize("trouble", [*TROUBLES, LATE], ids=lambda trouble: trouble.name)
def test_every_call_with_every_fault(calls: list[str], tmp_path: Path, trouble: Trouble) -> None:
    met = [n for n, call in enumerate(calls, 1) if fnmatchcase(call, trouble.only or "*")]
    if trouble is LATE:
        some = met if size(0, 1) else [2, len(calls)]  # a job and a download: each takes seconds
        met = [at for at in met if at in some]
    fired = [paid_once.suffer(trouble, at, tmp_path / str(at)) for at in met]
    assert len(met) >= 2
    assert fired.count(True) >= len(met) - 1, "too few faults fired"  # the polls vary by one


def test_several_faults_in_several_runs(tmp_path: Path) -> None:
    count = size(8, 400)
    fired = [paid_once.suffer_several(seed, tmp_path / str(seed)) for seed in range(count)]
    assert sum(fired) > 2 * count, "too few faults fired"


def test_a_program_that_dies_before_any_change_of_the_disk(tmp_path: Path) -> None:
    changes = changes_of_the_disk(tmp_path)
    step = size(9, 1) if size(0, 1) == 0 else 1
    places = range(1, changes + 1, step)
    fired = [paid_once.suffer_at_disk(at, tmp_path / str(at), None) for at in places]
    assert fired.count(True) >= len(places) - 1 and len(places) >= 4


@pytest.mark.parametrize("lasting", [False, True])
def test_a_disk_that_fails_at_any_change(tmp_path: Path, *, lasting: bool) -> None:
    changes = changes_of_the_disk(tmp_path)
    failures = [Failure(at, number, lasting) for at in range(1, changes + 1) for number in NUMBERS]
    some = failures if size(0, 1) else failures[:: max(1, len(failures) // 12)]
    fired = [
        paid_once.suffer_at_disk(failure.at, tmp_path / str(number), failure)
        for number, failure in enumerate(some)
    ]
    assert fired.count(True) >= len(some) * 0.9, "too few failures fired"


def changes_of_the_disk(folder: Path) -> int:
    """How often a plain run changes its state folder."""
    state = folder / "plain"
    state.mkdir()
    with ImageServer() as server, failing_disk(state) as disk:
        paid_once.run(server.url, state)
    return len(disk.calls)
