"""The worker that makes the images that clients of the server ask for, with a renderer.

`compose serve --base-model` runs one. It carries one job out after the other, in a thread. Of
several servers on one state folder one works at a time, under a lock; if it dies, another one.
"""

from __future__ import annotations

import io
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from composer.errors import ComposeError, TargetError, Unreachable
from composer.files.atomic import write_atomically
from composer.images.decoding import decode
from composer.model import Concept
from composer.previews.cells import Cell, Look
from composer.targets.local.generations import Generations, Picture, asset_id, image_seed

if TYPE_CHECKING:
    from typing import Self

    from PIL.Image import Image

    from composer.previews.cells import RendererInfo
    from composer.renderers.base import Renderer
    from composer.targets.local.generations import Generation
    from composer.targets.local.service import Engine

log = logging.getLogger(__name__)

LAST = 5.0  # seconds for the job that runs when the server stops


class RenderWorker:
    """Carries out the jobs of an engine that make images, from `start` to `stop`."""

    def __init__(self, engine: Engine, renderer: Renderer) -> None:
        """Raises `TargetError` if the folder of images is a link or can't be made."""
        self._generations = Generations(engine.store)
        self._folder = engine.folder
        self._renderer = renderer
        self._poll = engine.poll_interval
        self._lock = FileLock(self._folder.root / "rendering.lock")
        self._condition = threading.Condition()
        self._awake = True  # an earlier server may have left jobs
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="compose-rendering", daemon=True)
        self._folder.refuse_links()
        try:
            self._folder.assets.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise TargetError(
                f"cannot create the folder {self._folder.assets}: {error.strerror or error}",
                hint="make that folder writable",
            ) from error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End the thread. A job that takes longer than a moment is done again by the next start."""
        self._rouse(stop=True)
        self._thread.join(LAST)

    def wake(self) -> None:
        """Tell the thread that there is a job."""
        self._rouse()

    def _rouse(self, *, stop: bool = False) -> None:
        with self._condition:
            self._awake, self._stopping = True, self._stopping or stop
            self._condition.notify()

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._work()
            except Unreachable:
                pass  # the store is busy: it is tried again
            except Exception as error:  # what can't even be recorded; the jobs stay in the queue
                if not self._stopping:
                    log.warning("no image can be made now: %s: %s", type(error).__name__, error)
            with self._condition:
                self._condition.wait_for(lambda: self._awake or self._stopping, self._poll)
                self._awake = False

    def _work(self) -> None:
        """Carry out all queued jobs, unless another process does."""
        if not self._generations.waiting():
            return
        with suppress(Timeout), self._lock.acquire(timeout=0):
            for left in self._folder.assets.glob(".*.tmp"):  # by a server that was killed
                left.unlink(missing_ok=True)
            while not self._stopping and (job := self._generations.claim()):
                self._do(job)

    def _do(self, job: Generation) -> None:
        try:
            self._finish(job, self._images(job))
        except Unreachable:
            self._generations.put_back(job.id)
            raise
        except ComposeError as error:
            self._generations.fail(job.id, error.message)
        except OSError as error:
            self._generations.fail(job.id, f"{self._folder.assets}: {error.strerror or error}")
        except Exception as error:  # an internal error ends its job, not the worker
            if not self._stopping:
                self._generations.fail(job.id, f"unexpected {type(error).__name__}: {error}")

    def _images(self, job: Generation) -> list[Image]:
        """What the renderer makes of a job, in the order of its images. Raises `ComposeError`."""
        cells = cells_of(job, self._renderer.info)
        made: dict[Cell, Image] = {}

        def keep(cell: Cell, image: bytes) -> None:
            made[cell] = decode(image)
            self._generations.report(job.id, len(made) / len(cells))

        self._renderer.check(cells)
        rendered = self._renderer.render(cells, keep)
        for error in rendered.errors.values():
            raise error
        if missing := [cell for cell in cells if cell not in made]:
            raise TargetError(f"the renderer made no image for the seed {missing[0].seed}")
        return [made[cell] for cell in cells]

    def _finish(self, job: Generation, images: list[Image]) -> None:
        """Write the images, and end the job; if it was canceled meanwhile, remove them."""
        pictures = []
        files = [self._folder.asset(asset_id(job.id, number)) for number in range(len(images))]
        for file, image in zip(files, images, strict=True):
            written = io.BytesIO()
            image.save(written, "PNG")
            write_atomically(file, written.getvalue())
            pictures.append(Picture(*image.size, written.tell()))
        if not self._generations.succeed(job.id, pictures):
            for file in files:
                file.unlink(missing_ok=True)


def cells_of(job: Generation, renderer: RendererInfo) -> list[Cell]:
    """The cells of a job's images. A LoRA that is named twice counts with both its scales."""
    input = job.input
    scales: dict[str, float] = {}
    for id, scale in zip(input["loras"], input["lorasScale"], strict=True):
        scales[id] = scales.get(id, 0.0) + float(scale)
    concepts = [Concept(id, scale) for id, scale in scales.items()]
    steps, guidance = input["numInferenceSteps"], float(input["guidance"])
    look = Look(input["width"], input["height"], steps, guidance)
    seeds = [image_seed(input, number) for number in range(input["numOutputs"])]
    return [Cell.of(concepts, input["prompt"], seed, look, renderer) for seed in seeds]
