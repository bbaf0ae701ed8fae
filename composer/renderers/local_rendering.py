"""The renderer of the kind `diffusers`: cells become tasks, which this process or others carry out.

Nothing is charged. Without an executor this process makes the images, one after the other; with one
its workers do, and say themselves what they render with.
"""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from math import isfinite
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, NamedTuple, Protocol

from composer.errors import ComposeError, TargetError, UsageError
from composer.renderers.base import Rendered, Rendering
from composer.renderers.prompts import KEPT
from composer.renderers.rendering_tasks import (
    RenderSetup,
    RenderTask,
    Worker,
    carry_out_there,
    describe_there,
)
from composer.targets.local.executors import find_executor
from composer.targets.local.service import Engine
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Self

    from composer.previews.cells import Cell, RendererInfo
    from composer.renderers.base import Keep, RenderRequest
    from composer.targets.base import Target
    from composer.targets.local.executors import Executor

    Watch = Callable[[float], None]

STEP, LEAST, MOST = 16, 64, 4096  # pixels: what a size is a multiple of, and its limits
MOST_STEPS, MOST_SEED = 1000, 2**63 - 1


class LocalRenderer:
    """A `Renderer` for one base model, whose name is absolute if it is a folder. Thread-safe."""

    charges = False

    def __init__(self, request: RenderRequest, base_model: str) -> None:
        self._request = request
        self._runner: RenderRunner = _runner_for(request)
        notes = None if request.dry_run else request.state
        self._setup = RenderSetup(base_model, max(1, request.batch), notes, self._runner.library)
        try:
            self.info: RendererInfo = self._runner.describe(self._setup, self._watch)
        except BaseException:
            self._runner.close()
            raise

    def check(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            if problem := _problem(cell):
                raise UsageError(f"this image can't be made: {problem}")

    def price(self, cells: Sequence[Cell]) -> float | None:
        return None

    def render(
        self,
        cells: Sequence[Cell],
        keep: Keep,
        *,
        max_cost: float | None = None,
        tell: Callable[[Rendering], None] = lambda rendering: None,
    ) -> Rendered:
        errors: dict[Cell, ComposeError] = {}

        def make(group: Group) -> None:
            self._watch(0.0)
            for cell in group.cells:
                tell(Rendering(cell, "rendering"))
            for cell, image in zip(group.cells, self._make(group), strict=True):
                if isinstance(image, ComposeError):
                    errors[cell] = image
                    tell(Rendering(cell, "failed", error=image))
                else:
                    keep(cell, image)

        self._each(make, list(groups(cells, self._setup.batch)))
        return Rendered(errors)

    def _each(self, make: Callable[[Group], None], all_groups: Sequence[Group]) -> None:
        """As many at once as there are slots; the first exception ends it."""
        if self._runner.slots() == 1:
            for group in all_groups:
                make(group)
            return
        pool = ThreadPoolExecutor(self._runner.slots(), "compose-render")
        try:
            futures = [pool.submit(make, group) for group in all_groups]
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _make(self, group: Group) -> Sequence[bytes | ComposeError]:
        """An image for each cell, or the reason why there is none."""
        cell = group.cells[0]
        try:
            engine = _engine(self._request.target)
            loras = tuple((engine.lora(c.model_id).fingerprint, c.scale) for c in cell.concepts)
        except TargetError as error:
            return [error] * len(group.cells)
        seeds = tuple(cell.seed for cell in group.cells)
        task = RenderTask(self._setup, self.info, loras, cell.prompt, seeds, cell.look, group.ahead)
        images = self._runner.carry_out(task, self._watch)
        return [images] * len(seeds) if isinstance(images, ComposeError) else images

    def _watch(self, progress: float) -> None:
        self._request.sleep(0)

    def close(self) -> None:
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


# --- cells -------------------------------------------------------------------------------


class Group(NamedTuple):
    """Cells that differ in their seeds alone. `ahead` are prompts that are encoded with theirs."""

    cells: tuple[Cell, ...]
    ahead: tuple[str, ...]


def groups(cells: Iterable[Cell], batch: int) -> Iterator[Group]:
    """At most `batch` cells each, in their order; but prompts come in runs of `KEPT`, which are
    encoded together."""
    alike: dict[tuple[object, ...], list[Cell]] = {}
    for cell in dict.fromkeys(cells):
        alike.setdefault((cell.concepts, cell.prompt, cell.look), []).append(cell)
    prompts = list(dict.fromkeys(cell.prompt for cell in cells))
    for first in range(0, len(prompts), KEPT):
        ahead = tuple(prompts[first : first + KEPT])
        for same in alike.values():
            if same[0].prompt in ahead:
                for n in range(0, len(same), batch):
                    yield Group(tuple(same[n : n + batch]), ahead)


def _problem(cell: Cell) -> str:
    """What is wrong with this cell, in words; "" if nothing is."""
    look = cell.look
    if any(size % STEP or not LEAST <= size <= MOST for size in (look.width, look.height)):
        size = f"{look.width} x {look.height}"
        return f"its size {size} must be multiples of {STEP}, from {LEAST} to {MOST}"
    if not 1 <= look.steps <= MOST_STEPS:
        return f"its steps are {look.steps}, and must be from 1 to {MOST_STEPS}"
    if not 0 <= cell.seed <= MOST_SEED:
        return f"its seed {cell.seed} must be from 0 to {MOST_SEED}"
    if not isfinite(look.guidance) or not all(isfinite(one.scale) for one in cell.concepts):
        return "its guidance and scales must be finite numbers"
    if epochs := [one.epoch for one in cell.concepts if one.epoch]:
        return f"it asks for the epoch {visible(epochs[0])}, and local LoRAs have none"
    return ""


# --- who makes the images ----------------------------------------------------------------


class RenderRunner(Protocol):
    """This process, or an executor's workers. `watch` may raise to end the work."""

    library: str

    def slots(self) -> int:
        """How many tasks can be carried out at once."""

    def describe(self, setup: RenderSetup, watch: Watch) -> RendererInfo: ...

    def carry_out(self, task: RenderTask, watch: Watch) -> list[bytes] | ComposeError: ...

    def close(self) -> None: ...


def _runner_for(request: RenderRequest) -> RenderRunner:
    """Raises `UsageError` for another executor, `Unreachable` for one that does not answer."""
    if request.executor is None:
        return _ThisProcess()
    library = _engine(request.target).library_url
    return _Workers(find_executor(request.executor, library=library)())


def _engine(target: Target) -> Engine:
    assert isinstance(target, Engine)  # see `renders_for`
    return target


class _ThisProcess:
    """This process."""

    library = ""

    def __init__(self) -> None:
        self._worker = Worker()

    def slots(self) -> int:
        return 1

    def describe(self, setup: RenderSetup, watch: Watch) -> RendererInfo:
        return self._worker.describe(setup)

    def carry_out(self, task: RenderTask, watch: Watch) -> list[bytes] | ComposeError:
        return self._worker.carry_out(task, watch)

    def close(self) -> None:
        self._worker.close()


class _Workers:
    """The workers of an executor."""

    def __init__(self, executor: Executor) -> None:
        self._executor, self.library = executor, executor.library

    def slots(self) -> int:
        return self._executor.slots()

    def describe(self, setup: RenderSetup, watch: Watch) -> RendererInfo:
        return self._executor.call(describe_there, setup, watch=watch)

    def carry_out(self, task: RenderTask, watch: Watch) -> list[bytes] | ComposeError:
        task = task.by_place() if self.library else task
        if not self._executor.shares_files:
            return self._executor.call(carry_out_there, task, watch=watch)
        with NamedTemporaryFile(prefix="compose-") as ticket:
            return self._executor.call(carry_out_there, task, ticket.name, watch=watch)

    def close(self) -> None:
        self._executor.close()
