"""Reads safetensors files in a process of its own, whose memory is limited and measured.

For each path on its input it prints a line of JSON: how reading ended (`read`, `refused`, or the
name of an exception that should never have been), in which words, what was in the file, the
seconds of processor time and the most bytes of memory that it took.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from composer.lora.container import Source
from composer.lora.dtypes import NUMPY
from composer.lora.errors import LoraFormatError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

ROOM = 200 * 1000 * 1000  # bytes that reading may take, on top of what Python and numpy have
LARGE = 1024 * 1024  # bytes of a tensor that isn't read whole


def limit_memory() -> None:
    """Let no more memory be had than `ROOM`, where the system can say no."""
    if resource is None:
        return
    most = psutil.Process().memory_info().vms + ROOM
    with suppress(ValueError, OSError):  # macOS has the limit, and doesn't take it
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def forget_peak() -> None:
    """Measure the peak from here on, where the system can; elsewhere it is that of all files."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """The most bytes of memory that this process had."""
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    if resource is None:
        return int(psutil.Process().memory_info().peak_wset)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: in bytes


def look(path: Path) -> dict[str, Any]:
    """Read what is in the file, but of large tensors only the first rows."""
    with Source(path) as source:
        tensors = source.header.tensors
        for tensor in tensors.values():
            if tensor.dtype in NUMPY and tensor.stop - tensor.start <= LARGE:
                assert source.array(tensor).nbytes == tensor.stop - tensor.start
            elif tensor.dtype in NUMPY and len(tensor.shape) == 2:
                source.rows(tensor, 0, 1)
    few = list(tensors.values())[:50]
    return {tensor.name: [tensor.dtype, list(tensor.shape)] for tensor in few}


def judge(path: Path) -> dict[str, Any]:
    forget_peak()
    started = time.process_time()
    outcome, words, tensors = "read", "", {}
    try:
        tensors = look(path)
    except LoraFormatError as flaw:
        outcome, words = "refused", flaw.of(path).message
    except Exception as error:  # what the tests are looking for
        outcome, words = type(error).__name__, str(error)
    seconds = time.process_time() - started
    return {
        "outcome": outcome,
        "words": words,
        "tensors": tensors,
        "seconds": seconds,
        "peak": peak(),
    }


if __name__ == "__main__":
    limit_memory()
    for line in sys.stdin:
        print(json.dumps(judge(Path(line.rstrip("\n")))), flush=True)
