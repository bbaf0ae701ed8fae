"""From grids of cells to images: what previews and sweeps share.

    with open_renderer(project, target, RendererOptions(...)) as renderer:
        grids = ...  # whose cells are of `renderer.info`
        report = render_grids(project, renderer, grids, options, watcher)

`render_grids` checks every cell, counts those that this machine does not have, asks and tells the
price, refuses what was not allowed to cost so much, renders what is missing, keeps each image as
soon as it is there, and reports. It knows nothing of recipes: who calls it makes the grids, and
puts target and notes into the report.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from composer.errors import ComposeError, Refused, Stopped, TargetError, UsageError
from composer.files.delivery import unwritable
from composer.files.exclusive import only_one_rendering
from composer.files.repository import is_inside
from composer.images.decoding import BadImage
from composer.images.difference import mean_difference
from composer.previews.grid import AFTER, BEFORE
from composer.previews.report import (
    CellImage,
    GridResult,
    PreviewReport,
    Price,
    most_different_first,
)
from composer.project.options import DEFAULT_PARALLELISM, RENDER_DEFAULTS
from composer.renderers.base import DONE, Rendering, RenderRequest
from composer.renderers.cache import FOLDER, CellCache
from composer.renderers.registry import choose
from composer.text import SETTINGS_NAME, amount, counted, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from composer.previews.cells import Cell
    from composer.previews.grid import Grid
    from composer.project.options import RendererOptions, RenderOptions
    from composer.project.project import Project
    from composer.renderers.base import Renderer
    from composer.targets.base import Target


@dataclass(frozen=True, slots=True)
class RenderWatcher:
    """Who is told of the price before anything is rendered, and of each image, from any thread."""

    on_price: Callable[[Price], None] = lambda price: None
    on_rendering: Callable[[Rendering], None] = lambda rendering: None


NOBODY = RenderWatcher()


def open_renderer(project: Project, target: Target, options: RendererOptions) -> Renderer:
    """See `Project.open_renderer`."""
    kind = choose(target, options.renderer)
    if options.executor and not kind.takes_executor:
        raise UsageError(
            f"the renderer {kind.name} makes no images by an executor", hint="leave out --executor"
        )
    state = project.state / FOLDER
    if not options.dry_run:
        project.prepare_state()
        state.mkdir(mode=0o700, exist_ok=True)
    settings = project.settings
    return kind.open(
        RenderRequest(
            target,
            state,
            options.base_model or _base_model(settings.previews.base_model, project.root),
            options.executor,
            options.parallelism or settings.parallelism or DEFAULT_PARALLELISM,
            options.sleep,
            options.dry_run,
            options.batch,
        )
    )


def _base_model(name: str | None, root: Path) -> str | None:
    """What `compose.toml` names: a folder of the project, else an id. Raises `UsageError`."""
    if name is None or not os.path.lexists(root / name):
        return name
    if not is_inside(root / name, root):
        raise UsageError(
            f"{SETTINGS_NAME}: {visible(name)} leads out of the project through a link",
            hint="name the folder itself: --base-model FOLDER",
        )
    return str(root / name)


def render_grids(
    project: Project,
    renderer: Renderer,
    grids: Sequence[Grid],
    options: RenderOptions = RENDER_DEFAULTS,
    watcher: RenderWatcher = NOBODY,
) -> PreviewReport:
    """Make the images of these grids that this machine does not have, each once.

    With `options.dry_run` the price is asked and told, and nothing is written. Raises `UsageError`
    for a cell that the renderer can't make, `Refused` for what the options don't allow, or if
    another process renders for this project, and what concerns all cells, as `CredentialsError`.
    What fails for one cell is in the report.
    """
    for grid in grids:
        _check(renderer, grid)
    cache = CellCache(project.state / FOLDER)
    if options.dry_run:
        price = _price(renderer, grids, cache)
        watcher.on_price(price)
        return PreviewReport(grids=_results(grids, cache, {}), price=price)
    with only_one_rendering(project.root, project.state, wait=options.lock_timeout):
        price = _price(renderer, grids, cache)
        watcher.on_price(price)
        check_cost(price, options.max_cost, charges=renderer.charges)
        missing = [cell for cell in _different(grids) if cell not in cache]
        done = _Done()
        if missing or renderer.charges:  # what an interrupted run paid for is fetched in any case
            done = _render(renderer, missing, cache, options.max_cost, watcher)
        return PreviewReport(
            grids=_results(grids, cache, done.errors),
            made=sum(cell in cache for cell in missing),
            price=price,
            spent=done.spent,
            interrupted=done.interrupted,
        )


def _different(grids: Iterable[Grid]) -> list[Cell]:
    """The cells of all grids, each once."""
    return list(dict.fromkeys(cell for grid in grids for cell in grid))


def _check(renderer: Renderer, grid: Grid) -> None:
    """Raise `UsageError`, naming the recipe, for a cell that can't be made."""
    try:
        renderer.check(list(grid))
    except UsageError as error:
        raise UsageError(f"{visible(grid.path)}: {error.message}", hint=error.hint) from error


def _price(renderer: Renderer, grids: Iterable[Grid], cache: CellCache) -> Price:
    cells = _different(grids)
    missing = [cell for cell in cells if cell not in cache]
    total = renderer.price(missing) if missing and renderer.charges else None
    return Price(len(missing), len(cells) - len(missing), total)


def check_cost(price: Price, max_cost: float | None, *, charges: bool) -> None:
    """Raise `Refused` unless nothing is charged, or the price is known and allowed."""
    if not (charges and price.cells):
        return
    images = counted(price.cells, "image")
    if price.total is None:
        raise Refused(f"the price of {images} is not known, so that no limit would hold")
    if price.total == 0:
        return  # an interrupted run has paid for it
    total = amount(price.total)
    if max_cost is None:
        raise Refused(
            f"rendering {images} costs {total}, and no limit is given",
            hint=f"allow it with --max-cost {total}",
        )
    if not float(total) <= max_cost:
        raise Refused(
            f"rendering {images} costs {total}, more than --max-cost {amount(max_cost)}",
            hint=f"allow it with --max-cost {total}, or name fewer recipes, prompts or seeds",
        )


# --- rendering and what came of it -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Done:
    """What came of the missing cells."""

    errors: Mapping[Cell, ComposeError] = field(default_factory=dict)
    spent: float | None = None
    interrupted: bool = False


def _render(
    renderer: Renderer,
    missing: Sequence[Cell],
    cache: CellCache,
    max_cost: float | None,
    watcher: RenderWatcher,
) -> _Done:
    costs: list[float] = []

    def tell(rendering: Rendering) -> None:
        costs.extend([] if rendering.cost is None else [rendering.cost])
        watcher.on_rendering(rendering)

    def keep(cell: Cell, image: bytes) -> None:
        try:
            cache.keep(cell, image)
        except OSError as error:
            raise unwritable(cache.path(cell), error) from error
        watcher.on_rendering(Rendering(cell, DONE))

    try:
        rendered = renderer.render(missing, keep, max_cost=max_cost, tell=tell)
    except Stopped:
        return _Done({}, sum(costs) if renderer.charges else None, interrupted=True)
    silent = TargetError("the renderer made no image, and gave no reason")
    failed = {cell: rendered.errors.get(cell, silent) for cell in missing if cell not in cache}
    return _Done(failed, rendered.spent)


def _results(
    grids: Iterable[Grid], cache: CellCache, errors: Mapping[Cell, ComposeError]
) -> tuple[GridResult, ...]:
    """The grids with their images, those that differ most first."""
    return most_different_first(_result(grid, cache, errors) for grid in grids)


def _result(grid: Grid, cache: CellCache, errors: Mapping[Cell, ComposeError]) -> GridResult:
    images = {
        cell.digest: CellImage(cache.path(cell) if cell in cache else None, errors.get(cell))
        for cell in grid
    }
    before, after = grid.column(BEFORE), grid.column(AFTER)
    if before is None or after is None:
        return GridResult(grid, images)
    differences = tuple(_difference(row[before], row[after], images) for row in grid.cells)
    return GridResult(grid, images, differences)


def _difference(
    before: Cell | None, after: Cell | None, images: Mapping[str, CellImage]
) -> float | None:
    if before is None or after is None:
        return None
    one, other = images[before.digest].file, images[after.digest].file
    if one is None or other is None:
        return None
    with suppress(BadImage, OSError):  # sheets and pages say so of a file that can't be read
        return mean_difference(one, other)
    return None
