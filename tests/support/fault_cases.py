"""Every fault that a call may meet, and one apply under one of them.

`cases` says which faults meet which calls, `suffer` carries one case out: an apply under the fault,
then a plain one, then all that must hold. It runs in a process of its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support import serving
from support.cli import Ran, spawned
from support.exactly_once import (
    GRACE,
    Start,
    apply,
    arguments,
    check,
    check_at_rest,
    is_read,
    keep_said,
    kill_at_pause,
    moved,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from support.serving import Served

LATE = 0.2  # seconds for which answers lag behind
CLEAN = (0, 1, 69, 75)  # with which a run may end that a fault met


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault at one call. `kill`: the client dies there. `only`: the calls that it can meet.

    `then` is a fault at the next call, which is the same recipe's only where requests are sent one
    by one. `unmarked`: so many compositions may lack our mark.
    """

    fault: Mapping[str, Any]
    kill: bool = False
    only: str = ""  # "" every call, "POST /models", or "writes"
    then: Mapping[str, Any] = field(default_factory=dict)
    unmarked: int = 0

    def meets(self, call: str, *, parallelism: int) -> bool:
        if self.then and parallelism > 1:
            return False
        if self.only == "writes":
            return not is_read(call)
        return self.only in ("", call)


def _held(at: str, *, only: str = "", **more: Any) -> Kind:
    return Kind({"pause": {"at": at, "until": "go"}, **more}, kill=True, only=only)


def _throttled(headers: Mapping[str, str], body: Mapping[str, Any]) -> Kind:
    return Kind({"status": 429, "headers": headers, "body": body})


_CEILING = {"actionName": "parallel-training", "actionLimit": 1}
_POST, _LOOK = "POST /models", "POST /models/get-bulk"
CLASSES: Mapping[str, Mapping[str, Kind]] = {
    "drop": {
        "drop before": Kind({"drop": "before"}),
        "drop after": Kind({"drop": "after"}),
    },
    "500": {
        "500 before": Kind({"error": "before"}),
        "500 after": Kind({"error": "after"}),
    },
    "429": {
        "rate limit": _throttled({"Retry-After": "0.1"}, {"error": "slow down"}),
        "ceiling": _throttled({}, {"error": "no more", "details": _CEILING}),
        "cooldown": _throttled({}, {"error": "cool down", "remainingSeconds": 0.1}),
    },
    "late replica": {
        "late replica": Kind({"late_replica": LATE}, only=_POST),
        "hardly late replica": Kind({"late_replica": LATE / 10}, only=_POST),
        "lost and late": Kind({"drop": "after", "late_replica": LATE}, only=_POST),
        "500 and late": Kind({"error": "after", "late_replica": LATE}, only=_POST),
        "slow, lost and late": Kind(
            {"delay": GRACE, "drop": "after", "late_replica": LATE}, only=_POST
        ),
    },
    "stale list": {
        "stale list": Kind({"stale_list": LATE}),
        "lost and stale": Kind({"drop": "after", "stale_list": LATE}),
    },
    "malformed": {
        "truncated": Kind({"body": "truncated"}),
        "malformed": Kind({"body": "malformed"}),
        "not JSON": Kind({"body": "not-json"}),
    },
    "kill": {
        "kill before": _held("before", drop="before"),
        "kill during": _held("before"),
        "kill after": _held("after"),
        "kill after, stale": _held("after", stale_list=LATE),
    },
    "kill, late": {
        "kill after, late": _held("after", late_replica=LATE, only=_POST),
        "kill after, slow, late": _held("after", delay=GRACE, late_replica=LATE, only=_POST),
        "slow, late, killed next": Kind(
            {"delay": GRACE, "late_replica": LATE},
            kill=True,
            only=_POST,
            then={"pause": {"at": "before", "until": "go"}, "drop": "before"},
        ),
    },
    "for good": {  # five tries are what the client has: this call comes to nothing
        "drops before": Kind({"drop": "before", "times": 5}),
        "drops after": Kind({"drop": "after", "times": 5}),
        "500s after": Kind({"error": "after", "times": 5}),
    },
    "duplicate": {
        "duplicate": Kind({"duplicate": True}, only="writes", unmarked=1),
    },
}


@dataclass(frozen=True, slots=True)
class Case:
    """One fault at one call, and how many requests the client sends at once."""

    call: int
    kind: str
    what: Kind
    parallelism: int = 1

    def __str__(self) -> str:
        return f"{self.kind} at call {self.call}, {self.parallelism} at once"


@dataclass(slots=True)
class Suffered:
    """What came of a case: the faulty run's exit status, and what was wrong in the end."""

    case: Case
    status: int | None = None
    wrong: str = ""


def cases(calls: Sequence[str], *, all_kinds: bool, parallelism: int = 1) -> list[Case]:
    """For every call every kind of fault; or one kind of each class, another at each call."""
    chosen = []
    for number, call in enumerate(calls, 1):
        for kinds in CLASSES.values():
            fitting = [
                (name, kind)
                for name, kind in kinds.items()
                if kind.meets(call, parallelism=parallelism)
            ]
            if not all_kinds:
                fitting = fitting[number % len(fitting) :][:1] if fitting else []
            chosen += [Case(number, name, kind, parallelism) for name, kind in fitting]
    return chosen


def record(start: Start, folder: Path, *, parallelism: int = 1) -> list[str]:
    """The calls of the apply when nothing goes wrong, up to the first look at what trains.

    How often it looks again depends on the machine.
    """
    server = start.copy("server", folder / "server")
    with serving.thread(server, start.library) as served:
        project = moved(start.copy("project", folder / "project"), start.url, served.url)
        done = apply(project, served, "--parallelism", str(parallelism))
        assert done.status == 0, done
        calls = served.calls
        check(project, served, start)
        check_at_rest(project, served)
    while calls[-2:] == [_LOOK, _LOOK]:
        calls.pop()
    return calls


def suffer(start: Start, case: Case, folder: Path) -> Suffered:
    """Apply under the fault, then plainly; what isn't as it should be is said, not raised."""
    suffered = Suffered(case)
    for again in range(3):  # a run whose trainings were fast may have ended before that call
        try:
            if _suffer(start, case, folder / str(again), suffered):
                return suffered
        except Exception as error:
            suffered.wrong = f"{type(error).__name__}: {error}"
            return suffered
    suffered.wrong = "the fault never fired"
    return suffered


def _suffer(start: Start, case: Case, folder: Path, suffered: Suffered) -> bool:
    """Whether the fault fired; raises what is wrong."""
    server, kind = start.copy("server", folder / "server"), case.what
    faults = [{"call": case.call, **kind.fault}]
    faults += [{"call": case.call + 1, **kind.then}] if kind.then else []
    with serving.thread(server, start.library, faults=faults) as served:
        project = moved(start.copy("project", folder / "project"), start.url, served.url)
        first = _faulty(case, project, served, server)
        suffered.status = first.status
        if len(set(served.faults)) < len(faults):
            return False
        plain = apply(project, served)
        keep_said(folder, first, plain, *served.lines)
        if "stale_list" in kind.fault or "late_replica" in kind.fault:
            time.sleep(LATE)  # the check shall see the truth
        try:
            assert plain.status == 0 and not _bug(plain.out + plain.err)
            check(project, served, start, unmarked=kind.unmarked)
            check_at_rest(project, served)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{first}\n{plain}\n{served.calls}") from error
        assert not _bug("\n".join(served.lines)), served.lines
    return True


def _faulty(case: Case, project: Path, served: Served, server: Path) -> Ran:
    """The apply that meets the fault: killed there, or ended cleanly."""
    more = ("--parallelism", str(case.parallelism))
    if case.what.kill:
        client = spawned(*arguments(served, *more), at=project, **served.env)
        ran = kill_at_pause(client, served, server)
    else:
        ran = apply(project, served, *more)
        assert ran.status in CLEAN, ran
    assert not _bug(ran.out + ran.err), ran
    return ran


def _bug(said: str) -> bool:
    return "Traceback" in said or "internal error" in said
