"""The protocol of a renderer, and what a kind of renderer is.

A renderer is given cells and hands each image over as soon as it has it, so that the caller keeps
it at once. The caller never asks which renderer it is.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    from composer.errors import ComposeError
    from composer.previews.cells import Cell, RendererInfo
    from composer.targets.base import Target


DONE = "done"  # the state of a cell whose image is kept; it is told by who keeps it


class Keep(Protocol):
    """Takes an image for good: when it returns, the image is on this machine's disk."""

    def __call__(self, cell: Cell, image: bytes) -> None:
        """`image` is a file of any format that Pillow reads. Raises `TargetError` if it is none."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """What is told while images are made: cells that are done or have failed, and the cost.

    `state` says in a word or two what happens to the cell now, as `queued` or `downloading`, and
    `DONE` once its image is kept.
    """

    cell: Cell
    state: str
    cost: float | None = None
    error: ComposeError | None = None


@dataclass(frozen=True, slots=True)
class Rendered:
    """What came of all cells: the errors of those without an image, and what all together cost."""

    errors: Mapping[Cell, ComposeError] = field(default_factory=dict)
    spent: float | None = None  # None where nothing is charged


class Renderer(Protocol):
    """Makes images. Close it when done.

    `Project` lets only one renderer at a time work in a state folder: from `price` until `render`
    returns, never between `open` and `price`. So what is read from there is read then.
    """

    @property
    def info(self) -> RendererInfo:
        """Its name, its version and its base model, which are part of every cell."""

    @property
    def charges(self) -> bool:
        """Whether images cost something. Then none is made without a limit of the cost."""

    def check(self, cells: Sequence[Cell]) -> None:
        """Raise `UsageError` for a cell that it can't make, or that its service would not make as
        asked. Nothing is sent."""

    def price(self, cells: Sequence[Cell]) -> float | None:
        """What all these cells cost together, asked once for each kind; None: no price is known.

        What was paid before a kill, and is still to be fetched, costs nothing again."""

    def render(
        self,
        cells: Sequence[Cell],
        keep: Keep,
        *,
        max_cost: float | None = None,
        tell: Callable[[Rendering], None] = lambda rendering: None,
    ) -> Rendered:
        """Make these images, each once, and give each to `keep`, from any thread.

        Where images are charged it is called without cells, too: what an interrupted run paid for
        is given to `keep`, whether it is among `cells` or not.

        What fails for one cell is in the result, and the others go on; `keep` raises `TargetError`
        for bytes that are no image, or if the disk is full. No job is started that would bring the
        cost above `max_cost`. `tell` gets each cost once, so that what was spent is known after an
        interruption, too. Raises what concerns all of them, as `CredentialsError`, and `Stopped`
        from `sleep` of its request.
        """

    def close(self) -> None:
        """Release connections, memory and files."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """All that a kind of renderer gets to open one.

    `target` is open; the cells' LoRAs are its models. `state` is the folder of this machine's
    `previews/`, which exists; with `dry_run` it may not, and nothing is written or rendered.
    `base_model` is an id of the target, or the folder or id of a local pipeline, and may come from
    a stranger's `compose.toml`; None: the renderer's default. `executor` is as in `TargetOptions`.
    `sleep` takes seconds, and raises `Stopped` to end the work: call `sleep(0)` between images.
    `batch` is how many seeds a local renderer makes at once; it is part of its version.
    """

    target: Target
    state: Path
    base_model: str | None = None
    executor: str | None = None
    parallelism: int = 8
    sleep: Callable[[float], None] = time.sleep
    dry_run: bool = False
    batch: int = 1


@dataclass(frozen=True, slots=True)
class RendererKind:
    """A kind of renderer. `open(request)` raises `UsageError` where it can't work.

    `renders_for(target)` tells whether it can show the LoRAs of this target, `takes_executor`
    whether an executor's workers can make the images; else no request has one.
    """

    name: str
    open: Callable[[RenderRequest], Renderer]
    renders_for: Callable[[Target], bool]
    takes_executor: bool = False
