"""Does something in the middle of the writing of a result, in this process or in one of its own.

    midway.py kill STATE LIBRARY STEPS    die, as of kill -9, after so many steps of the writing
    midway.py full STATE LIBRARY BYTES    let no file become larger than that, as on a full disk

Both make one composition of all the library's LoRAs and train it, and print its id and its error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.engine_files import free, trained
from support.model_types import COMPOSITION, LORA

from composer.model import Concept
from composer.targets.local.service import Engine

try:
    import resource
except ImportError:  # Windows, where nobody asks for it
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

MODELS = "models"


class Midway:
    """After so many `steps` of the writing of a result in `folder`, it calls `then`, once.

    A step is a call that the module that writes makes or gets, while part of the file is there.
    """

    def __init__(self, folder: Path, steps: int, then: Callable[[], object]) -> None:
        self.taken = 0
        self._folder = folder
        self._steps = steps
        self._then = then

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        """A profiler, as Python has it: called at every call and return."""
        if Path(frame.f_code.co_filename).name != "writer.py":
            return
        with suppress(OSError):
            if any(path.stat().st_size for path in self._folder.glob(".*.tmp")):
                self.taken += 1
                if self.taken == self._steps:
                    self._then()


@contextmanager
def watching(midway: Midway) -> Iterator[None]:
    """Threads that are started meanwhile are watched."""
    threading.setprofile(midway)
    try:
        yield
    finally:
        threading.setprofile(None)


def make(engine: Engine) -> str:
    """A composition of all the library's LoRAs, in training."""
    id = engine.create(
        "K", [Concept(lora.id, 0.5) for lora in engine.list_models(LORA)], type=COMPOSITION
    ).id
    engine.train(id)
    return id


def die() -> None:
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def fill_disk(size: int) -> None:
    """From now on a write beyond `size` bytes of a file fails, and SQLite's files are small."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def main(verb: str, state: Path, library: Path, number: int) -> None:
    if verb == "full":
        fill_disk(number)
    midway = Midway(state / MODELS, number, die if verb == "kill" else lambda: None)
    with watching(midway), Engine(state, library, free_space=free) as engine:
        id = make(engine)
        print(json.dumps([id, trained(engine, id).error]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
