"""The worker that makes the images that clients of the server ask for, with a renderer.

`compose serve --base-model` runs one, in a thread. Of several servers on one state folder one works
at a time, under a lock; if it dies, another one. What a server had begun when it was killed is done
again, as the same job.
"""

from __future__ import annotations

import io
import logging
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from composer.errors import ComposeError, Stopped, TargetError, Unreachable
from composer.files.atomic import write_atomically
from composer.images.decoding import decode
from composer.model import Concept
from composer.previews.cells import Cell, Look
from composer.targets.local.executors import NoExecutor
from composer.targets.local.generations import Generations, ImageSize, asset_id, image_seed
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

    from composer.images.decoding import DecodedImage
    from composer.previews.cells import RendererInfo
    from composer.renderers.base import Rendered, Renderer
    from composer.targets.local.generations import Generation
    from composer.targets.local.service import Engine

log = logging.getLogger(__name__)

STOP_TIMEOUT = 5.0  # seconds for the image that is being made when the server stops
MOST_AT_ONCE = 32  # jobs that an executor gets together


class Interrupt:
    """Ends what the renderer does: its `sleep` is that of the renderer's request."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def sleep(self, seconds: float) -> None:
        """Wait so long; raise `Stopped` as soon as the rendering must end."""
        if self._event.wait(seconds):
            raise Stopped

    def set(self, on: bool = True) -> None:
        """Let the rendering end, or the next one begin."""
        if on:
            self._event.set()
        else:
            self._event.clear()


@dataclass(slots=True)
class Work:
    """A job that is carried out: its cells, and the images that there are of them."""

    job: Generation
    cells: list[Cell]
    images: dict[Cell, DecodedImage] = field(default_factory=dict)
    is_done: bool = False

    def add(self, cell: Cell, image: DecodedImage) -> None:
        if cell in self.cells:
            self.images[cell] = image

    @property
    def share(self) -> float:
        """How much there is, 0..1."""
        return len(self.images) / len(self.cells)


class RenderWorker:
    """Carries out the jobs of an engine that make images, while its context lasts.

    `at_once` is how many jobs the renderer is given together: one, unless it has several workers.
    """

    def __init__(
        self,
        engine: Engine,
        renderer: Renderer,
        interrupt: Interrupt | None = None,
        *,
        at_once: int = 1,
    ) -> None:
        """Raises `TargetError` if the folder of images is a link or can't be made."""
        self._generations = Generations(engine.store)
        self._folder = engine.folder
        self._renderer = renderer
        self._interrupt = interrupt or Interrupt()
        self._at_once = at_once
        self._poll = engine.poll_interval
        self._lock = FileLock(self._folder.root / "rendering.lock")
        self._condition, self._keeping = threading.Condition(), threading.Lock()
        self._awake = True  # an earlier server may have left jobs
        self._stopping = False
        self._running: frozenset[str] = frozenset()
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="compose-rendering", daemon=True)
        self._prepare()

    def _prepare(self) -> None:
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
        """End the thread; the jobs that it carries out go back to the queue."""
        with self._condition:
            self._stopping = True
            self._interrupt.set()
            self._condition.notify()
        self._thread.join(STOP_TIMEOUT)

    def wake(self) -> None:
        """Tell the thread that there is a job."""
        with self._condition:
            self._awake = True
            self._condition.notify()

    def end(self, job: str) -> None:
        """Tell the thread that this job was canceled."""
        with self._condition:
            if job in self._running:
                self._interrupt.set()

    # --- the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._work()
                self._trouble = ""
            except Exception as error:  # the jobs stay in the queue, and are tried again
                self._warn(error)
            with self._condition:
                self._condition.wait_for(lambda: self._awake or self._stopping, self._poll)
                self._awake = False

    def _warn(self, error: Exception) -> None:
        """Tell the operator why no image can be made now, once until that is over."""
        words = _words(error)
        if words != self._trouble and not self._stopping:
            log.warning("images can't be made now: %s", visible(words))
        self._trouble = words

    def _work(self) -> None:
        """Carry out all queued jobs, unless another process does."""
        if not self._generations.waiting():
            return
        with suppress(Timeout), self._lock.acquire(timeout=0):
            for left in self._folder.assets.glob(".*.tmp"):  # by a server that was killed
                left.unlink(missing_ok=True)
            while not self._stopping and (jobs := self._generations.claim(self._at_once)):
                self._carry_out([Work(job, cells_of(job, self._renderer.info)) for job in jobs])

    def _carry_out(self, works: Sequence[Work]) -> None:
        """Carry these jobs out together; each ends as soon as it has its images."""
        self._begin(works)
        try:
            possible = [work for work in works if self._can_be_made(work)]
            if cells := list(dict.fromkeys(cell for work in possible for cell in work.cells)):
                rendered = self._renderer.render(cells, partial(self._keep, possible))
                for work in possible:
                    self._end_rendered(work, rendered)
        except Stopped:
            self._put_back(works)
        except (Unreachable, NoExecutor):
            self._put_back(works)
            raise
        except Exception as error:  # it ends the jobs, not the worker
            for work in works:
                self._fail(work, error)
        finally:
            self._begin(())

    def _put_back(self, works: Sequence[Work]) -> None:
        for work in works:
            self._generations.put_back(work.job.id)

    def _begin(self, works: Sequence[Work]) -> None:
        """Note what is carried out now, and may be canceled."""
        with self._condition:
            self._running = frozenset(work.job.id for work in works)
            self._interrupt.set(self._stopping)

    def _can_be_made(self, work: Work) -> bool:
        try:
            self._renderer.check(work.cells)
        except ComposeError as error:
            self._fail(work, error)
            return False
        return True

    def _keep(self, works: Sequence[Work], cell: Cell, file: bytes) -> None:
        """Take an image; where the store is busy, `_end_rendered` ends the job."""
        image = decode(file)
        with self._keeping, suppress(Unreachable):
            for work in works:
                work.add(cell, image)
                if work.share < 1:
                    self._generations.report(work.job.id, work.share)
                elif not work.is_done:
                    self._finish(work)

    def _end_rendered(self, work: Work, rendered: Rendered) -> None:
        """End a job that the renderer is through with."""
        errors = [rendered.errors[cell] for cell in work.cells if cell in rendered.errors]
        missing = [cell for cell in work.cells if cell not in work.images]
        if errors:
            self._fail(work, errors[0])
        elif missing:
            self._fail(work, TargetError(f"the renderer made no image of seed {missing[0].seed}"))
        elif not work.is_done:
            self._finish(work)

    def _fail(self, work: Work, error: Exception) -> None:
        self._generations.fail(work.job.id, _words(error))

    def _finish(self, work: Work) -> None:
        """Write the images, and end the job; if it was canceled meanwhile, remove them."""
        ids = [asset_id(work.job.id, number) for number in range(len(work.cells))]
        files = [self._folder.asset(id) for id in ids]
        try:
            sizes = [_write(work.images[c], f) for c, f in zip(work.cells, files, strict=True)]
        except OSError as error:
            raise TargetError(f"{self._folder.assets}: {error.strerror or error}") from error
        if not self._generations.succeed(work.job.id, sizes):
            for file in files:
                file.unlink(missing_ok=True)
        work.is_done = True


def _write(image: DecodedImage, file: Path) -> ImageSize:
    written = io.BytesIO()
    image.save(written, "PNG")
    write_atomically(file, written.getvalue())
    return ImageSize(*image.size, written.tell())


def _words(error: Exception) -> str:
    if isinstance(error, ComposeError):
        return error.message
    return f"unexpected {type(error).__name__}: {error}"


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
