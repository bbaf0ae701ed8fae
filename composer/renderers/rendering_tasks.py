"""Images as tasks: what one says, and who carries it out, in this process or in another.

A task carries paths and digests, and its images come back as bytes. Whoever carries tasks out keeps
the pipeline for the next one. What concerns one image comes back as a value; what concerns all of
them, as a worker without torch, is raised.
"""

from __future__ import annotations

import gc
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from composer.errors import BadLora, ComposeError, TargetError, UsageError
from composer.previews.cells import RendererInfo
from composer.renderers.base_models import find_base_model
from composer.renderers.hash_notes import HashNotes
from composer.renderers.pipeline import ImageSet, Pipeline
from composer.renderers.prompts import Wording
from composer.renderers.runtime import NAME, Runtime, check_installed
from composer.targets.local.tasks import part_here, stored_lora
from composer.targets.local.tickets import NotWanted
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from composer.lora.fingerprint import Fingerprint
    from composer.previews.cells import Look
    from composer.targets.local.tasks import StoredLora


@dataclass(frozen=True, slots=True)
class RenderSetup:
    """What images are made with: the base model's name, and how many at a time.

    `notes` is the folder where hashes of the base model's files are noted. `library` is the URL of
    the object store that has the LoRAs; without one they have paths.
    """

    base_model: str
    batch: int = 1
    notes: Path | None = None
    library: str = ""
    version: str = __version__


@dataclass(frozen=True, slots=True)
class RenderTask:
    """Images of one mix and prompt, of each seed one. `ahead` are prompts of later tasks.

    `info` is what the cells say of the renderer.
    """

    setup: RenderSetup
    info: RendererInfo
    loras: tuple[tuple[Fingerprint | StoredLora, float], ...]
    prompt: str
    seeds: tuple[int, ...]
    look: Look
    ahead: tuple[str, ...] = ()

    def by_place(self) -> RenderTask:
        """The same for workers that read the LoRAs from an object store."""
        loras = ((stored_lora(lora), scale) for lora, scale in self.loras)
        return replace(self, loras=tuple(loras))


class Worker:
    """Carries tasks out, one at a time, with the pipeline of the last one. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._name: str | None = None
        self._pipeline: Pipeline | None = None

    def describe(self, setup: RenderSetup) -> RendererInfo:
        """What it would render with. Raises `UsageError`."""
        with self._lock:
            return self._info(setup)

    def carry_out(
        self, task: RenderTask, watch: Callable[[int], None] = lambda step: None
    ) -> list[bytes] | ComposeError:
        """The images, or why there are none; `watch` is told of each step.

        Raises `UsageError` and `TargetError` for what would fail for all other images, too.
        """
        with self._lock:
            pipeline = self._fitting(task)
            try:
                parts = (part_here(task.setup.library, *lora) for lora in task.loras)
                wanted = ImageSet(
                    tuple(parts), task.prompt, task.seeds, task.look, task.setup.batch
                )
                with suppress(BadLora, TargetError):  # of another prompt, or told again
                    prompts = (task.prompt, *task.ahead)
                    pipeline.prepare({Wording.of(p, wanted.mix): wanted.mix for p in prompts})
                return pipeline.images(wanted, watch)
            except (BadLora, TargetError) as error:
                return error

    def close(self) -> None:
        """Release the pipeline's memory."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        if self._pipeline is not None:
            runtime = self._pipeline.runtime
            self._name = self._pipeline = None
            gc.collect()
            runtime.free()

    def _fitting(self, task: RenderTask) -> Pipeline:
        """The pipeline that the cells name. Raises `TargetError` if it can't be had here."""
        if self._info(task.setup) != task.info:
            self._forget()  # was the folder replaced since it was read?
        found = self._info(task.setup)
        if found != task.info:
            wanted = f"{task.info.version} and {task.info.base_model}"
            raise TargetError(
                f"renders with {found.version} and {found.base_model}, not with {wanted}",
                hint="packages, devices and base model must be the same everywhere, and stay so",
            )
        return self._opened(task.setup)

    def _info(self, setup: RenderSetup) -> RendererInfo:
        pipeline = self._opened(setup)
        batches = f", batches of {setup.batch}" if setup.batch > 1 else ""
        version = pipeline.runtime.version + batches
        return RendererInfo(NAME, version, pipeline.base_model.identity)

    def _opened(self, setup: RenderSetup) -> Pipeline:
        if self._pipeline is None or self._name != setup.base_model:
            self._forget()  # two pipelines rarely fit
            check_installed()
            notes = HashNotes(setup.notes)
            base_model = find_base_model(setup.base_model, notes)
            self._pipeline = Pipeline(base_model, Runtime.find())
            self._name = setup.base_model
            notes.save()
        return self._pipeline


# --- in another process ------------------------------------------------------------------

_worker = Worker()  # of this process


def describe_there(setup: RenderSetup) -> RendererInfo:
    """What this process would render with. Raises `TargetError`, which names the machine."""
    with _NamingMachine(setup):
        return _worker.describe(setup)


def carry_out_there(task: RenderTask, ticket: str | None = None) -> list[bytes] | ComposeError:
    """As `Worker.carry_out`; it ends once the file `ticket` is gone.

    Raises `TargetError`, which names the machine.
    """

    def watch(step: int) -> None:
        if ticket and not os.path.exists(ticket):
            raise NotWanted

    with _NamingMachine(task.setup):
        return _worker.carry_out(task, watch)


@dataclass(frozen=True, slots=True)
class _NamingMachine:
    """What concerns this machine names it, and another version of compose is refused."""

    setup: RenderSetup

    def __enter__(self) -> None:
        if self.setup.version != __version__:
            raise TargetError(
                f"{socket.gethostname()} has compose {__version__}, not {self.setup.version}",
                hint=f"on the workers: pip install 'lora-compose[render]=={self.setup.version}'",
            )

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if isinstance(error, UsageError | TargetError):
            raise TargetError(f"{socket.gethostname()}: {error.message}", hint=error.hint) from None
