"""One run of the Scenario renderer under a fault, then a plain one, and what must hold after it.

A case is a `Trouble` at one call, or at one change of the state folder. Runs that are killed are
processes, which a small server of processes starts in some milliseconds.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from support import failing_disk
from support.cli import REPO
from support.image_server import ENDS, Fault, ImageServer, paint, target_at
from support.wire_server import Reply

from composer.errors import ComposeError
from composer.images.decoding import as_png
from composer.model import Concept
from composer.previews.cells import Cell, Look
from composer.renderers.base import RenderRequest
from composer.renderers.cache import CellCache
from composer.renderers.job_journal import NAME as JOURNAL
from composer.renderers.scenario import KIND
from composer.renderers.scenario_input import image_input
from composer.targets.http.session import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess

    from composer.renderers.base import Rendered

SEEDS = (1, 2)
LIMIT = 18.0  # the price of both: a cell that is paid for twice passes it
PATIENCE = 30.0  # seconds for a process
DEADLINE, SHORT = 10.0, 1.5  # seconds for one answer: a busy machine may take some


@dataclass(frozen=True)
class Trouble:
    """What goes wrong at a call. `kill`: the program dies there. `only`: calls it can meet.

    `deadline` is how long the program waits for an answer.
    """

    name: str
    fault: Fault
    kill: bool = False
    only: str = ""
    deadline: float = DEADLINE


def _reply(name: str, status: int, body: object = "", **headers: str) -> Trouble:
    headers = {key.replace("_", "-"): value for key, value in headers.items()}
    return Trouble(name, Fault(reply=Reply({"reason": body}, status, headers)))


CEILING = {"details": {"actionName": "parallel-generation", "actionLimit": 1}}
TROUBLES = (
    Trouble("the connection breaks before the effect", Fault(drop="before")),
    Trouble("the connection breaks after the effect", Fault(drop="after")),
    Trouble("the answer breaks off", Fault(drop="body")),
    Trouble("500 after the effect", Fault(reply=Reply({"error": "oops"}, 500), after=True)),
    Trouble("200 that is not JSON", Fault(reply=Reply(b"<html>", 200), after=True)),
    Trouble("200 of another shape", Fault(reply=Reply({"ok": True}, 200), after=True)),
    _reply("502 before the effect", 502),
    _reply("503 with a wait", 503, Retry_After="0"),
    _reply("a rate limit", 429, Retry_After="0"),
    Trouble("a cooldown", Fault(reply=Reply({"remainingSeconds": 0.02}, 429))),
    Trouble("the plan's ceiling", Fault(reply=Reply(CEILING, 429)), only="POST /generate/*"),
    _reply("credentials are refused", 401),
    _reply("forbidden", 403),
    _reply("not found", 404),
    _reply("a redirect", 302, Location="https://example.com/"),
    Trouble("killed before the effect", Fault(drop="before"), kill=True),
    Trouble("killed after the effect", Fault(drop="after"), kill=True),
)
LATE = Trouble("no answer in time", Fault(delay=SHORT + 0.3), deadline=SHORT)


# --- runs --------------------------------------------------------------------------------


def cells_of(url: str, lora: str = "lora_ink") -> list[Cell]:
    with target_at(url) as target:
        info = KIND.open(RenderRequest(target, Path())).info
    mix, look = [Concept(lora, 0.65)], Look(width=128, height=128, steps=2)
    return [Cell.of(mix, "a knight", seed, look, info) for seed in SEEDS]


def run(url: str, state: Path, lora: str = "lora_ink", *, deadline: float = DEADLINE) -> Rendered:
    """Price and render what is missing, as a command does, one request at a time."""
    cache = CellCache(state)
    options = SessionOptions(connections=1, deadline=deadline)
    grace = 0.2 if deadline == DEADLINE else 2.0  # what is late may still take effect
    with target_at(url, options=options, grace=grace) as target:
        renderer = KIND.open(RenderRequest(target, state, parallelism=1))
        missing = [cell for cell in cells_of(url, lora) if cell not in cache]
        renderer.price(missing)
        return renderer.render(missing, cache.keep, max_cost=LIMIT)


def run_quietly(
    url: str, state: Path, lora: str = "lora_ink", *, deadline: float = DEADLINE
) -> None:
    """The same; only what users are told in a line may end it."""
    with suppress(ComposeError):
        run(url, state, lora, deadline=deadline)


def run_until(url: str, state: Path, dies_at: int) -> None:
    """The same in a process that dies before this change of the state folder, from 1."""
    count = 0

    def die(disk: failing_disk.Disk, call: str, path: Any) -> None:
        nonlocal count
        name = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fsdecode(path)
        if name.startswith(disk.folders):
            count += 1
            if count == dies_at:
                os._exit(9)

    with patch.object(failing_disk.Disk, "call", die), failing_disk.failing_disk(state):
        run_quietly(url, state)


@cache
def _processes() -> Any:
    """A server of processes that has imported everything already."""
    names = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in names else "spawn")
    if hasattr(context, "set_forkserver_preload"):
        context.set_forkserver_preload(["pytest", "support.paid_once"])
    return context


def process(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A started process; `target` may be a function of a test's own module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(REPO))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        started = _processes().Process(target=target, args=arguments)
        started.start()
    assert isinstance(started, multiprocessing.process.BaseProcess)
    return started


# --- cases -------------------------------------------------------------------------------


def undisturbed(folder: Path) -> list[str]:
    """The calls of a run in which nothing goes wrong."""
    with ImageServer() as server:
        run(server.url, folder)
        check(server, folder)
        return server.lines


def suffer(trouble: Trouble, at: int, state: Path) -> bool:
    """One case: the trouble at the call number `at` of all. Whether there was such a call."""
    state.mkdir()
    with ImageServer() as server:
        if trouble.kill:
            _suffer_kill(server, trouble, at, state)
        else:
            server.fault("*", trouble.fault, nth=at)
            run_quietly(server.url, state, deadline=trouble.deadline)
        server.forget_faults()
        fired = bool(server.fired)
        plain_run(server, state)
        return fired


def suffer_several(seed: int, state: Path) -> int:
    """A few runs with several troubles in each, then a plain one. How many fired."""
    random = Random(seed)
    state.mkdir()
    with ImageServer() as server:
        for _ in range(random.randint(1, 3)):
            for _ in range(random.randint(1, 4)):
                trouble = random.choice([one for one in TROUBLES if not one.kill])
                server.fault(trouble.only or "*", trouble.fault, nth=random.randint(1, 8))
            run_quietly(server.url, state)
            server.forget_faults()
        plain_run(server, state)
        return len(server.fired)


def _suffer_kill(server: ImageServer, trouble: Trouble, at: int, state: Path) -> None:
    dying: list[BaseProcess] = []

    def kill(server: ImageServer) -> None:
        dying[0].kill()
        assert wait([dying[0].sentinel], PATIENCE)

    fault = Fault(drop=trouble.fault.drop, then=kill)
    server.fault("*", fault, nth=at)
    dying.append(process(run_quietly, server.url, state))
    dying[0].join(PATIENCE)
    assert dying[0].exitcode == (-9 if server.fired else 0), dying[0].exitcode


def suffer_at_disk(at: int, state: Path, failure: failing_disk.Failure | None) -> bool:
    """One case: the disk fails, or without a failure the program dies, at this change."""
    state.mkdir()
    with ImageServer() as server:
        if failure is None:
            dying = process(run_until, server.url, state, at)
            dying.join(PATIENCE)
            fired = dying.exitcode == 9
            assert fired or dying.exitcode == 0, dying.exitcode
        else:
            with failing_disk.failing_disk(state, failure=failure) as disk:
                run_quietly(server.url, state)
            fired = bool(disk.fired)
        plain_run(server, state)
        return fired


def plain_run(server: ImageServer, state: Path) -> None:
    """Runs once more; then all must be well."""
    rendered = run(server.url, state)
    assert rendered.errors == {}, rendered.errors
    check(server, state)


def check(server: ImageServer, state: Path) -> None:
    """Each cell has its own image, was paid for once by the server's count, and nothing is open."""
    cache = CellCache(state)
    cells = cells_of(server.url)
    assert set(server.paid.values()) == {1} and len(server.jobs) == len(cells), server.paid
    for cell in cells:
        assert cache.path(cell).read_bytes() == as_png(paint(image_input(cell)))
    assert not (state / JOURNAL).exists(), (state / JOURNAL).read_text()
    assert all(job.status in ENDS for job in server.jobs.values())
