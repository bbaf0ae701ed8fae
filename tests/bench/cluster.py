"""Many compositions of about 60 MB by one and two processes, and by one and two Dask workers.

The machine's own ratio stands beside it: that of one and two processes which only count, measured
in the same rounds. Where others use the machine too, nothing can scale better than that.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING

import full
from tables import limit, table

from composer.model import Concept
from composer.targets.local.executors import find_executor
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROUNDS, EACH = 8, 25  # 200 compositions for each executor
RANKS = (4, 3)
COUNTED = 20_000_000


def run(folder: Path) -> None:
    library = folder / "loras"
    library.mkdir(exist_ok=True)
    for number, rank in enumerate(RANKS):
        full.write(library / f"rank{rank}.safetensors", rank, seed=number, layers=full.LAYERS)
    time.sleep(2.1)  # files that were just written are hashed again and again
    with ExitStack() as stack:
        work = {
            "counting, 1 process": lambda: _count(1),
            "counting, 2 processes": lambda: _count(2),
            **{name: stack.enter_context(_engine(folder, name)) for name in _executors(stack)},
        }
        times: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(ROUNDS):
            for name, one in work.items():
                os.sync()
                begin = time.perf_counter()
                one()
                times[name].append(time.perf_counter() - begin)
    _report(times)


def _executors(stack: ExitStack) -> list[str]:
    names = ["", "processes:1", "processes:2"]
    if find_spec("distributed"):
        names += [stack.enter_context(_dask(count)) for count in (1, 2)]
    return names


def _report(times: dict[str, list[float]]) -> None:
    names = [name for name in times if not name.startswith("counting")]
    seconds = {name: sum(times[name]) for name in times}
    one = seconds["processes:1"]
    rows = [
        [_words(name), f"{seconds[name]:.1f} s", f"{one / seconds[name]:.2f}"] for name in names
    ]
    print(f"{ROUNDS * EACH} compositions for each, in {ROUNDS} rounds in which each has a turn\n")
    table(["", "all", "processes:1 / this"], rows)
    own = _ratio(times, "counting, 1 process", "counting, 2 processes") * 2
    limit("what two processes count / what one does, in the same time", own, "2 if idle", own > 1.9)
    pairs = [names[number : number + 2] for number in range(1, len(names), 2)]
    for first, second in pairs:
        ratio = _ratio(times, first, second)
        words = f"{_words(first)} / {_words(second)}, median of the rounds"
        limit(words, ratio, "at least 1.7", ratio >= 1.7)


def _ratio(times: dict[str, list[float]], first: str, second: str) -> float:
    return median(a / b for a, b in zip(times[first], times[second], strict=True))


def _words(name: str) -> str:
    if name.startswith("dask"):
        return f"Dask, {name.rpartition('#')[2]} worker(s)"
    return name or "in this process"


@contextmanager
def _engine(folder: Path, name: str) -> Iterator[Callable[[], None]]:
    """Makes compositions, waits for them and deletes them."""
    state = folder / f"state-{name.replace(':', '-').replace('/', '')}"
    executor = find_executor(name.partition("#")[0])() if name else None
    with Engine(state, folder / "loras", executor=executor, one_scan=True) as engine:
        _compose(engine, 2)  # whoever works has started
        yield lambda: _compose(engine, EACH)
    shutil.rmtree(state)


def _compose(engine: Engine, count: int) -> None:
    loras = [model.id for model in engine.list_models("flux.1-lora")]
    ids = []
    for number in range(count):
        concepts = [Concept(id, (number + 1) / 100) for id in loras]
        ids.append(engine.create(f"K{number}", concepts, type="flux.1-composition").id)
        engine.train(ids[-1])
    while engine.store.waiting():
        time.sleep(0.01)
    for id in ids:
        assert engine.get_models([id])[id].trained
        engine.delete(id)


def _count(processes: int) -> None:
    """The same number in each of the processes."""
    spawn = multiprocessing.get_context("spawn")
    counting = [spawn.Process(target=count_up) for _ in range(processes)]
    for process in counting:
        process.start()
    for process in counting:
        process.join()


def count_up() -> None:
    number = 0
    while number < COUNTED:
        number += 1


@contextmanager
def _dask(workers: int) -> Iterator[str]:
    """A scheduler and so many workers of one thread; the executor's name, with their number."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    at = [f"tcp://127.0.0.1:{port}", "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    commands = [["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]]
    commands += [["worker", *at]] * workers
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    quiet = subprocess.DEVNULL
    running = [
        subprocess.Popen([sys.executable, "-m", "dask", *one], env=env, stdout=quiet, stderr=quiet)
        for one in commands
    ]
    try:
        time.sleep(5)
        yield f"dask://127.0.0.1:{port}#{workers}"
    finally:
        for process in running:
            process.kill()
            process.wait()
