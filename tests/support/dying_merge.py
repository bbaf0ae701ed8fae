"""`compose merge` in a process of its own, to which something happens while it writes.

dying_merge.py SIGNAL COUNT OUT LORA...     this signal, once so many tensors are written
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composer.cli.main import guarded

if TYPE_CHECKING:
    from types import FrameType


class Fate:
    """Counts what `Output.put` has written, in whichever thread: a profiler, as Python has it."""

    def __init__(self, tensors: int, number: int) -> None:
        self._tensors = tensors
        self._number = number
        self._written = count(1)  # one step of it is never shared by two threads

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event != "return" or frame.f_code.co_qualname != "Output.put":
            return
        if next(self._written) == self._tensors:
            os.kill(os.getpid(), self._number)


def main(name: str, tensors: int, out: Path, *loras: str) -> int:
    # Where the tests run in the background, a shell has them ignore SIGINT, which is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fate = Fate(tensors, getattr(signal, name, signal.SIGTERM))
    threading.setprofile(fate)
    sys.setprofile(fate)
    return guarded(["merge", *loras, "-o", str(out)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:]))
