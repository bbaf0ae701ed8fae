"""200 clients that poll `compose serve` while 20 models are trained and it is killed twice.

The models are made by `compose apply`, half of them with `rank`, which takes much arithmetic. The
clients are one process beside the server; the time of a request is that until its last byte.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import full
from support import serving
from support.crowd import HANGS, Crowd, Poll, errors, trainings_of
from tables import limit, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from support.crowd import Asked
    from support.serving import Process

CLIENTS, MODELS, PAUSE = 200, 20, 1.0
MANY = 600  # more than the server has connections
POLLS = [
    Poll("/models?type=flux.1-composition&pageSize=20"),
    Poll("/jobs?pageSize=20"),
    Poll("/models?type=flux.1-composition&status=trained&pageSize=5"),
    Poll("/jobs?status=success&pageSize=5"),
]


def run(folder: Path) -> None:
    print(f"{CLIENTS} clients; {MODELS} models of 57 MB, every second one with rank 2\n")
    rows = []
    for executor in ("", "processes:2"):
        root = folder / f"project-{executor[-1:]}"
        _project(root)
        options = ["--executor", executor] if executor else []
        env = {"COMPOSE_STATE_DIR": str(folder / f"state-{executor[-1:]}")}
        with serving.process(root, *options, env=env) as served:
            rows += _trainings(served, executor or "in the server")
            if not executor:
                rows += _flood(served)
    table(["", "requests a second", "p50", "p99", "longest", "told to wait", "errors"], rows)


def _project(root: Path) -> None:
    library = root / "recipes" / "loras"
    library.mkdir(parents=True)
    (root / ".git").mkdir()
    for number, rank in enumerate((4, 3)):
        full.write(library / f"style{number}.safetensors", rank, seed=number, layers=full.LAYERS)
    for number in range(MODELS):
        lines = [f"name: Hero {number}", "concepts:"]
        for lora, scale in (("style0", 0.01 * (number + 1)), ("style1", 0.5)):
            lines += [f"  - name: {lora}", f"    scale: {scale:.2f}"]
        lines += ["training:", "  parameters: {rank: 2}"] if number % 2 else []
        (root / "recipes" / f"hero{number}.yaml").write_text("\n".join(lines) + "\n")


def _trainings(served: Process, words: str) -> list[list[str]]:
    """Train all, with a kill while they are created and one while they are trained."""
    served.loras()
    outages, begin = [], time.monotonic()
    with Crowd(served, CLIENTS, POLLS, PAUSE) as crowd:
        apply, runs = _apply(served), 1
        for what, path in (("created", "/models"), ("trained", "/models?status=trained")):
            _until(served, path, MODELS // 4)
            outages.append(_restart(served))
            print(f"killed when {MODELS // 4} were {what}", flush=True)
            if apply.poll() not in (None, 0):  # no server was there: the next run goes on
                apply, runs = _apply(served), runs + 1
        while apply.wait() != 0:
            apply, runs = _apply(served), runs + 1
        took = time.monotonic() - begin
    print(f"compose apply ran {runs} times\n")
    result = trainings_of(served, MODELS)
    fine = [one for one in crowd.asked if not any(one.overlaps(*outage) for outage in outages)]
    _claims(words, fine, {"jobs lost": result.lost, "jobs doubled": result.doubled})
    print()
    took -= sum(end - start for start, end in outages)
    return [_row(f"trained {words}, {PAUSE:g} s between two polls", fine, took)]


def _apply(served: Process) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "composer", "apply", "--target", served.url, "--grace", "1s"],
        cwd=served.root,
        env=served.client_env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _until(served: Process, path: str, count: int) -> None:
    """Until the server lists so many compositions."""
    query = {"type": "flux.1-composition", "pageSize": str(MODELS)}
    while len(served.ok("GET", path, params=query)["models"]) < count:
        time.sleep(0.02)


def _restart(served: Process) -> tuple[float, float]:
    """Kill it and start it again: when it was away."""
    begin = time.monotonic()
    served.kill()
    served.start()
    return begin, time.monotonic()


def _flood(served: Process) -> list[list[str]]:
    """As many requests as can be sent, by a few clients, by all, and by too many."""
    rows = []
    for clients in (8, CLIENTS, MANY):
        begin = time.monotonic()
        with Crowd(served, clients, POLLS) as crowd:
            time.sleep(10)
        took = time.monotonic() - begin
        rows.append(_row(f"{clients} clients that never pause", crowd.asked, took))
        hanging = sum(one.status == HANGS for one in crowd.asked)
        if clients == MANY:
            told = crowd.answers(429)
            limit(f"{MANY} clients without a pause: told to wait", told, "some", told > 0)
            limit("the same: requests that hang", hanging, "0", hanging == 0)
            wrong = len(errors(crowd.asked))
            limit("the same: requests without an answer", wrong, "0", wrong == 0)
            print()
    return rows


def _claims(words: str, asked: Sequence[Asked], counts: dict[str, int]) -> None:
    told = sum(one.status == 429 for one in asked)
    wrong = len(errors(asked))
    zeros = {"errors outside the restarts": wrong, "polls told to wait": told, **counts}
    for name, count in zeros.items():
        limit(f"{name}, trained {words}", count, "0", count == 0)
    late = _share(asked, 0.99)
    limit(f"p99 of the polls in seconds, trained {words}", late, "at most 1", late <= 1)


def _row(words: str, asked: Sequence[Asked], took: float) -> list[str]:
    answered = [one for one in asked if one.status == 200]
    milliseconds = [f"{_share(asked, share) * 1000:.0f} ms" for share in (0.5, 0.99, 1)]
    told = sum(one.status == 429 for one in asked)
    return [words, f"{len(answered) / took:.0f}", *milliseconds, str(told), str(len(errors(asked)))]


def _share(asked: Sequence[Asked], share: float) -> float:
    """The seconds within which this share of the answers came."""
    times = sorted(one.seconds for one in asked if one.status == 200)
    return times[min(int(len(times) * share), len(times) - 1)]
