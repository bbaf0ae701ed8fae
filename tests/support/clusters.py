"""A Dask cluster of real processes, as docs/cluster.md starts them."""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
from support.engine_files import PATIENCE, trained
from support.model_types import COMPOSITION, LORA

from composer.model import Concept

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from composer.targets.local.service import Engine

WORKERS = 2


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait_for(port: int, process: psutil.Popen) -> None:
    """Until the process listens there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < deadline and process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)


@dataclass
class Cluster:
    """A scheduler and its workers, each a process of its own."""

    folder: Path
    path: str  # where they find compose and its packages
    port: int = field(default_factory=free_port)
    scheduler: psutil.Popen | None = None
    workers: list[psutil.Popen] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"dask://127.0.0.1:{self.port}"

    def start(self) -> None:
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"]
        self.scheduler = self._run("scheduler", *options)
        wait_for(self.port, self.scheduler)

    def start_workers(self) -> None:
        """They wait for the scheduler, and end some time after it."""
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
        options += ["--local-directory", str(self.folder)]
        address = f"tcp://127.0.0.1:{self.port}"
        self.workers = [self._run("worker", address, *options) for _ in range(WORKERS)]

    def _run(self, *words: str) -> psutil.Popen:
        env = {**os.environ, "PYTHONPATH": self.path}
        with (self.folder / f"{words[0]}.log").open("a") as log:
            command = [sys.executable, "-P", "-m", "dask", *words]
            return psutil.Popen(command, env=env, stdout=log, stderr=log)

    def alive(self) -> list[psutil.Process]:
        """The workers that nobody has killed."""
        return [worker for worker in self.workers if worker.poll() is None]

    def stop(self) -> None:
        running = [*self.workers, *([self.scheduler] if self.scheduler else [])]
        for process in running:
            with suppress(psutil.NoSuchProcess):
                process.kill()
            process.wait()


@contextmanager
def cluster_in(
    folder: Path, path: str = os.pathsep.join(filter(None, sys.path)), *, workers: int = WORKERS
) -> Iterator[Cluster]:
    folder.mkdir()
    cluster = Cluster(folder, path)
    try:
        cluster.start()
        if workers:
            cluster.start_workers()
        yield cluster
    finally:
        cluster.stop()


def make(engine: Engine, count: int = 4) -> list[str]:
    """So many compositions in training, the same in every state folder."""
    loras = sorted(lora.id for lora in engine.list_models(LORA))
    ids = []
    for number in range(count):
        concepts = [Concept(id, (number + 1) / 10) for id in loras]
        ids.append(engine.create(f"K{number}", concepts, type=COMPOSITION).id)
        engine.train(ids[-1])
    return ids


def results(engine: Engine, ids: list[str]) -> dict[str, bytes]:
    assert [(trained(engine, id).status, trained(engine, id).error) for id in ids] == [
        ("trained", None)
    ] * len(ids)
    return {id: engine.result(id).read_bytes() for id in ids}
