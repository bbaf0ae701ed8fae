"""An engine in a process of its own, which tests run and kill.

    dying_engine.py run STATE LIBRARY NAME [LINE]   make and train NAME; die at the LINE-th line
                                                    of the engine's code that is run, as of kill -9
    dying_engine.py hang STATE LIBRARY NAME         hang in the middle of the training
    dying_engine.py loop STATE LIBRARY NAME         train, remove the result, train again, ...
    dying_engine.py processes STATE LIBRARY NAME    train a few in a process of its own
    dying_engine.py diary STATE LIBRARY NAME FILE   write into FILE when composing begins and ends

`run` prints how many lines it ran, `hang` that it hangs, `loop` that it is `ready`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.engine_files import free, trained
from support.model_types import COMPOSITION, LORA

from composer.model import Concept
from composer.targets.local.executors import Processes
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

# Where a kill could do harm: what writes rows and files.
WATCHED = ("worker", "store", "records", "folder", "database", "service", "writer")


class Fate:
    """Counts lines of the watched modules, and kills the process at the given one."""

    def __init__(self, last: int) -> None:
        self.lines = 0
        self._last = last
        self._files = {f"{name}.py" for name in WATCHED}

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        place = Path(frame.f_code.co_filename)
        if place.name not in self._files or "composer" not in place.parts:
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self._last:
                os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        return self.trace


def main(verb: str, state: str, library: str, name: str, *rest: str) -> None:
    fate = Fate(int(rest[0]) if verb == "run" and rest else 0)
    if verb == "run":
        threading.settrace(fate.trace)
        sys.settrace(fate.trace)
    space = hang if verb == "hang" else diary(Path(rest[0])) if verb == "diary" else free
    executor = Processes(1) if verb == "processes" else None
    with Engine(Path(state), Path(library), free_space=space, executor=executor) as engine:
        id = start(engine, name)
        if verb == "processes":
            for number in range(3):
                start(engine, f"{name}{number}")
        sys.settrace(None)
        if verb == "loop":
            print("ready", flush=True)
        model = trained(engine, id)
        while verb == "loop":
            engine.result(id).unlink()
            engine.train(id)
            model = trained(engine, id)
        if verb == "run":
            sys.settrace(fate.trace)
    sys.settrace(None)
    assert model.trained, model.error
    print(fate.lines)


def start(engine: Engine, name: str) -> str:
    """Make the composition NAME of all the library's LoRAs, and train it."""
    concepts = [Concept(lora.id, 0.5) for lora in engine.list_models(LORA)]
    id = engine.create(name, concepts, type=COMPOSITION).id
    engine.train(id)
    return id


def hang(folder: Path) -> int:
    """Asked for the free space, which is when composing begins, it never answers."""
    print("hangs", flush=True)
    time.sleep(600)
    return 0


def diary(file: Path) -> Callable[[Path], int]:
    """Notes when composing begins, takes its time, and notes the end of that."""

    def space(folder: Path) -> int:
        with file.open("a") as book:
            book.write(f"{os.getpid()} begins {time.monotonic_ns()}\n")
        time.sleep(0.1)
        with file.open("a") as book:
            book.write(f"{os.getpid()} ends {time.monotonic_ns()}\n")
        return free(folder)

    return space


if __name__ == "__main__":
    main(*sys.argv[1:])
