"""Running a child of the benchmark: its time, and the memory that is its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

CHILDREN = Path(__file__).with_name("children.py")
SAMPLES = 0.002  # seconds between two looks at the memory


@dataclass(frozen=True)
class Run:
    """Seconds of the work alone and of the whole process, and bytes of RssAnon at its peak."""

    work: float
    process: float
    anonymous: int


def run(name: str, folder: Path, files: list[Path]) -> Run:
    """One run in a process of its own; what it wrote is removed, and the disk is at rest before."""
    out = folder / "result.out"
    for old in folder.glob("*.out*"):
        old.unlink()
    os.sync()
    start = time.perf_counter()
    command = [sys.executable, str(CHILDREN), name, str(out), *map(str, files)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0
    while child.poll() is None:
        peak = max(peak, _anonymous(child.pid))
        time.sleep(SAMPLES)
    process = time.perf_counter() - start
    printed = child.communicate()[0]
    if child.returncode:
        raise SystemExit(f"{name} failed with {child.returncode}")
    return Run(float(printed.split()[-1]), process, peak)


def runs(names: list[str], folder: Path, files: list[Path], *, times: int = 5) -> dict[str, Run]:
    """The median of several rounds, in each of which everybody has a turn."""
    rounds = [{name: run(name, folder, files) for name in names} for _ in range(times)]
    return {
        name: Run(
            median(one[name].work for one in rounds),
            median(one[name].process for one in rounds),
            max(one[name].anonymous for one in rounds),
        )
        for name in names
    }


def _anonymous(pid: int) -> int:
    """RssAnon of a process, in bytes; 0 where it has ended, or the system doesn't tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = (line.split() for line in status.splitlines() if line.startswith("RssAnon:"))
    return next((int(fields[1]) * 1024 for fields in lines), 0)
