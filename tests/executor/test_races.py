"""Several `compose apply` at once, on clones of one repository, against one server.

Each in a process of its own, started and slowed down by chance; in the end there is one
composition of each recipe, and every clone's lock names it.
"""

from __future__ import annotations

import random
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from support import exactly_once, serving
from support.cli import spawned
from support.engine_files import PATIENCE
from support.exactly_once import (
    Start,
    apply,
    arguments,
    check,
    check_at_rest,
    entries,
    keep_said,
    moved,
)
from support.sizes import size

if TYPE_CHECKING:
    from pathlib import Path

    from support.serving import Served

LONGEST = 0.3  # seconds that a start, or a call, is put off by chance
SLOWED = {"GET /models": 2, "POST /models": 2, "PUT /models/*/tags": 2, "PUT /models/*/train": 6}


@pytest.mark.parametrize("runners", [2, 4])
def test_runners_that_race_make_one_of_each(
    runners: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start, began, rounds = exactly_once.build(tmp_path / "start"), time.monotonic(), size(2, 50)
    posts = sum(
        race(start, tmp_path / str(number), runners, random.Random(f"{runners} {number}"))
        for number in range(rounds)
    )
    with capsys.disabled():
        took = time.monotonic() - began
        print(f"\nraces: {rounds} of {runners} runners, {posts} twins made in {took:.0f} s")


def race(start: Start, folder: Path, runners: int, chance: random.Random) -> int:
    """One round; how many compositions more were made than are needed."""
    server = start.copy("server", folder / "server")
    with serving.thread(server, start.library, faults=slowed(runners, chance)) as served:
        clones = cloned(moved(start.copy("project", folder / "0"), start.url, served.url), runners)
        ended = together(clones, served, chance)
        keep_said(folder, *ended, *served.lines)
        for status, output in ended:
            assert status == 0 and "internal error" not in output and "Traceback" not in output, (
                output
            )
        posts = served.calls.count("POST /models")
        for clone in clones:
            once_more = apply(clone, served)
            assert once_more.status == 0, once_more
        for clone in clones:
            check(clone, served, start)
            check_at_rest(clone, served)
        agreed = {tuple((p, e.composition) for p, e in entries(c, served).items()) for c in clones}
        assert len(agreed) == 1, agreed
    return posts - 2


def slowed(runners: int, chance: random.Random) -> list[dict[str, Any]]:
    """Delays for the first calls of each kind, of all runners together."""
    return [
        {"when": when, "nth": nth, "delay": round(chance.uniform(0, LONGEST), 3)}
        for when, each in SLOWED.items()
        for nth in range(1, runners * each + 1)
    ]


def cloned(project: Path, runners: int) -> list[Path]:
    """The working copy, journal and all, and clones of what it committed."""
    who = ("-c", "user.name=Tester", "-c", "user.email=tester@example.com")
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "Begin"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    clones = [project.with_name(str(number)) for number in range(1, runners)]
    for clone in clones:
        subprocess.run(["git", "clone", "-q", str(project), str(clone)], check=True)
    return [project, *clones]


def together(clones: list[Path], served: Served, chance: random.Random) -> list[tuple[int, str]]:
    """Apply in all of them at once; each one's exit status, and what it printed."""
    clients = []
    for clone in clones:
        time.sleep(chance.uniform(0, LONGEST / len(clones)))
        clients.append(spawned(*arguments(served), at=clone, **served.env))
    output = [client.communicate(timeout=PATIENCE) for client in clients]
    return [(c.returncode, out + err) for c, (out, err) in zip(clients, output, strict=True)]
