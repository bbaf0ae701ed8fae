"""The targets of a soak: the local one, a server that runs throughout, and one that is killed."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
from support.serving import KEY, SECRET, Process, write_script
from support.state import made_state, state_of

from composer.targets.local.service import Engine

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping
    from pathlib import Path

# What goes wrong on the way; seconds are short, so that lists lag less than the grace.
FAULTS: tuple[Mapping[str, Any], ...] = (
    {"drop": "before"},
    {"drop": "after"},
    {"error": "before"},
    {"error": "after"},
    {"status": 429, "headers": {"Retry-After": "1"}, "body": {"error": "slow down"}},
    {"status": 503, "body": {"error": "busy"}},
    {"body": "truncated"},
    {"body": "malformed"},
    {"body": "not-json"},
    {"delay": 0.3},
)
LATE: tuple[Mapping[str, Any], ...] = ({"stale_list": 0.2}, {"late_replica": 0.2})
# How many calls of a kind lie between two faults, on average.
GAPS = {
    "* **": 60,
    "GET /models": 40,
    "POST /models/get-bulk": 40,
    "POST /models": 12,
    "PUT /models/*/tags": 20,
    "PUT /models/*/train": 20,
    "PUT /models/*": 20,
    "DELETE /models/*": 15,
}
PORTS = range(20_000, 30_000)  # below those that clients and other servers are given


@dataclass
class SoakTarget:
    """A target as commands reach it. `state` holds its database and results."""

    name: str
    key: str  # in the lock
    options: tuple[str, ...]
    state: Path
    library: Path
    env: Mapping[str, str] = field(default_factory=dict)
    typical: float = 1.5  # seconds that an apply takes

    @property
    def faults(self) -> int:
        """How many faults have fired."""
        return 0

    def engine(self) -> Engine:
        """Its database and results, for reading."""
        return Engine(self.state, self.library, run_jobs=False, remember=False)

    def note(self, seconds: float) -> None:
        """An undisturbed apply took so long."""
        self.typical += (seconds - self.typical) / 4


def local(project: Path, library: Path) -> SoakTarget:
    return SoakTarget(
        "local", "local", ("--target", "local", "--library", str(library)),
        made_state(project), library,
    )  # fmt: skip


@dataclass
class ServedTarget(SoakTarget):
    """`compose serve` in a process; its fault script is drawn anew at each start."""

    served: Process = field(kw_only=True)
    chance: random.Random = field(kw_only=True)
    faults_per_kind: int = 100
    _log_end: int = 0
    _faults: int = 0

    def start(self, *, faults: bool = True) -> None:
        """Start it, with a new fault script or without faults; `pid` is another one then."""
        script = drawn_faults(self.chance, self.faults_per_kind) if faults else []
        write_script(self.served.root, script)
        self.served.lines.clear()
        self.served.start()

    @property
    def faults(self) -> int:
        with self.served.log.open("rb") as log:
            log.seek(self._log_end)
            for line in log.read().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    self._log_end += len(line)
                    self._faults += line.startswith(b'{"event": "fault"')
        return self._faults

    def usage(self) -> Usage:
        """What its process uses now, and how much it stores."""
        process = psutil.Process(self.served.pid)
        with self.engine() as engine:
            records = engine.records(deleted=True)
        alive = sum(record.deleted_at is None for record in records)
        info = process.memory_info()
        return Usage(
            time.monotonic(), info.rss, process.num_fds(), process.num_threads(), alive,
            len(records),
        )  # fmt: skip


@dataclass(frozen=True)
class Usage:
    """A server at a quiet point; memory in bytes, `rows` with the deleted models."""

    at: float
    memory: int
    files: int
    threads: int
    models: int
    rows: int


def served(
    name: str, folder: Path, library: Path, chance: random.Random, faults_per_kind: int
) -> ServedTarget:
    """A server with its state in a folder of its own, not started yet."""
    root = folder / name
    root.mkdir(parents=True)
    log = root / "faults.jsonl"
    log.touch()
    options = ("--library", str(library), "--fault-log", str(log))
    options += ("--fault-script", str(root / "faults.yaml"))
    url = f"http://127.0.0.1:{_free_port(chance)}/v1"
    process = Process(url, log, root=root, options=options)
    env = {"SCENARIO_SDK_API_KEY": KEY, "SCENARIO_SDK_API_SECRET": SECRET}
    return ServedTarget(
        name, url, ("--target", url), state_of(root), library, env,
        served=process, chance=chance, faults_per_kind=faults_per_kind,
    )  # fmt: skip


def _free_port(chance: random.Random) -> int:
    while True:
        port = PORTS[(chance.randrange(len(PORTS)) + os.getpid()) % len(PORTS)]
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


def drawn_faults(chance: random.Random, count: int) -> list[dict[str, Any]]:
    """A fault script: for each kind of call so many faults, at calls drawn by chance."""
    script = []
    for when, gap in GAPS.items():
        nth = 0
        for _ in range(count):
            nth += chance.randint(gap // 3, 2 * gap)
            kinds = FAULTS + (LATE if when == "POST /models" else ())
            script.append({"when": when, "nth": nth, **chance.choice(kinds)})
    return script
