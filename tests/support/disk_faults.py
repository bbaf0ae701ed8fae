"""One apply on a disk that fails, on the local target and on a served one, and what must hold.

`local_start` makes a project for the local target, `exactly_once.build` one for a server. Each case
is a copy of it: an apply while the disk fails, then a plain one, then `check_local` or
`exactly_once.check`.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from support import exactly_once, serving
from support.cli import Ran, compose
from support.engine_files import write_lora
from support.exactly_once import CREATE, LORAS, REPLACE, RESUME, Start, write_recipe
from support.failing_disk import Failure, failing_disk
from support.sizes import size
from support.state import copy_project, state_of

from composer.lock import LOCK_NAME, dump, read_lock
from composer.model import Entry, Lock, TargetLock
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NUMBERS = (errno.ENOSPC, errno.EIO, errno.ESTALE)
CLEAN = (0, 1, 65, 69, 75)  # with which an apply may end that the disk failed
KEPT = "recipes/kept.yaml"
APPLY = ("apply", "--target", "local", "--parallelism", "1", "--timeout", "30s")
OTHER = TargetLock("team_other", {"recipes/other.yaml": Entry("Other", composition="model_other")})


@dataclass(frozen=True, slots=True)
class Ended:
    """How an apply ended that the disk failed, and what was wrong after the next one."""

    status: int
    wrong: str
    fired: bool = True


def failures(calls: int) -> list[Failure]:
    """Each of so many calls, with each error number, once and from then on."""
    return [
        Failure(at, number, lasting)
        for at in range(1, calls + 1)
        for number in NUMBERS
        for lasting in (False, True)
    ]


def until_fired(suffer: Callable[[], Ended]) -> Ended:
    """The threads of an apply share its calls by chance, so one may have had fewer."""
    return next(
        (ended for ended in (suffer() for _ in range(3)) if ended.fired), Ended(0, "", fired=False)
    )


# --- the local target --------------------------------------------------------------------


def local_start(folder: Path) -> Path:
    """A project with a recipe to create, one to replace, one in training and one up to date."""
    project = folder / "project"
    (project / ".git").mkdir(parents=True)
    for seed, name in enumerate(LORAS):
        write_lora(project / "recipes/loras" / f"{name}.safetensors", seed, title=name)
    write_recipe(project, REPLACE, exactly_once.BEFORE)
    (project / KEPT).write_text("name: Kept\nconcepts: [{name: Stone, scale: 0.5}]\n")
    assert compose(*APPLY, at=project).status == 0
    write_recipe(project, RESUME)
    assert compose(*APPLY, "--no-wait", at=project).status in (0, 75)
    write_recipe(project, REPLACE)
    write_recipe(project, CREATE)
    lock = read_lock(project)
    (project / LOCK_NAME).write_text(dump(Lock({**lock.targets, "https://other.example": OTHER})))
    return project


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an apply leaves; equal wherever and however often the project was applied."""

    lock: str
    models: dict[str, Any]
    results: dict[str, str]
    left: list[str]  # temporary files, and the journal


def outcome(project: Path) -> Outcome:
    state = state_of(project)
    with Engine(state, project / "recipes/loras", run_jobs=False) as engine:
        assert engine.store.problems() == []
        models = {r.id: (r.name, r.status, sorted(r.tags), r.job_status) for r in engine.records()}
    results = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in (state / "models").glob("*.safetensors")
    }
    return Outcome((project / LOCK_NAME).read_text(), models, results, left_behind(project))


def left_behind(project: Path) -> list[str]:
    state = state_of(project)
    files = [*project.rglob("*.tmp"), *state.rglob("*.tmp"), *state.glob("journal.jsonl")]
    return sorted(file.name for file in files)


def undisturbed(start: Path, folder: Path) -> tuple[Outcome, int]:
    """What an apply leaves if nothing fails, and how many calls it makes at least."""
    counts = []
    for number in range(size(1, 3)):
        project = copy_project(start, folder / str(number))
        with failing_disk(project, state_of(project)) as disk:
            ran = compose(*APPLY, at=project)
        assert ran.status == 0, ran
        counts.append(len(disk.calls))
    return outcome(project), min(counts)


def suffer_local(start: Path, failure: Failure, folder: Path, expected: Outcome) -> Ended:
    """One case; what isn't as it should be is said, not raised."""

    def once() -> Ended:
        project = copy_project(start, folder)
        with failing_disk(project, state_of(project), failure=failure) as disk:
            ran = compose(*APPLY, at=project)
        wrong = judged(failure, disk.calls, ran, lambda: check_local(project, expected))
        shutil.rmtree(state_of(project))
        shutil.rmtree(project)
        return Ended(ran.status, wrong, bool(disk.fired))

    return until_fired(once)


def check_local(project: Path, expected: Outcome) -> None:
    plain = compose(*APPLY, at=project)
    assert plain.status == 0, plain
    found = outcome(project)
    for part in fields(Outcome):
        was, wanted = getattr(found, part.name), getattr(expected, part.name)
        assert was == wanted, f"{part.name}: {was}, not {wanted}\n{plain}"


def judged(failure: Failure, calls: Sequence[str], ran: Ran, check: Callable[[], None]) -> str:
    """What is wrong with how it ended, or after the next apply; empty if nothing is."""
    try:
        assert ran.status in CLEAN, "another exit status"
        assert "Traceback" not in ran.err and "internal error" not in ran.err, "no plain message"
        check()
    except Exception as error:
        return f"{failure} ({calls[failure.at - 1 :][:1]}): {type(error).__name__}: {error}\n{ran}"
    return ""


# --- a served target ---------------------------------------------------------------------


def suffer_served(start: Start, failure: Failure | None, folder: Path) -> tuple[Ended, int]:
    """One case, and how many calls there were; the server's own disk is sound."""
    server = start.copy("server", folder / "server")
    with serving.thread(server, start.library) as served:
        project = exactly_once.moved(
            start.copy("project", folder / "project"), start.url, served.url
        )

        def check() -> None:
            plain = exactly_once.apply(project, served)
            assert plain.status == 0, plain
            exactly_once.check(project, served, start)
            exactly_once.check_at_rest(project, served)
            assert left_behind(project) == []

        with failing_disk(project, state_of(project), failure=failure) as disk:
            ran = exactly_once.apply(project, served, "--parallelism", "1")
        wrong = judged(failure or Failure(0, 0), disk.calls, ran, check)
        exactly_once.keep_said(folder, ran, wrong, *served.lines)
    return Ended(ran.status, wrong, bool(disk.fired)), len(disk.calls)
