"""What came of a preview or a sweep: an image or an error for each cell, and what was spent."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from composer.errors import ExitStatus, gravest
from composer.text import percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from composer.errors import ComposeError
    from composer.previews.grid import Grid


@dataclass(frozen=True, slots=True)
class CellImage:
    """A cell's image: a PNG in the cache of this machine, or the reason why there is none."""

    file: Path | None = None
    error: ComposeError | None = None


@dataclass(frozen=True, slots=True)
class GridResult:
    """A grid with its images, by the cells' digests.

    `differences` are how much *before* and *after* differ in each row: the mean over all pixels
    and channels, 0..1; None where one of them is missing.
    """

    grid: Grid
    images: Mapping[str, CellImage]
    differences: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Price:
    """What rendering takes: how many `cells` are missing, and how many are there already.

    `total` is what the missing ones cost together, in the target's units; None where nothing is
    charged, or the renderer gives no price.
    """

    cells: int = 0
    reused: int = 0
    total: float | None = None


@dataclass(frozen=True, slots=True)
class PreviewReport:
    """All grids, those that differ most first. Of all different cells, `made` are new.

    `price` was said before, `spent` is what was charged; None where nothing is charged. `notes`
    are about recipes without a grid, as one that is blocked. After a dry run, or if it was
    interrupted, some images have neither a file nor an error.
    """

    target: str = ""
    grids: tuple[GridResult, ...] = ()
    made: int = 0
    price: Price = Price()
    spent: float | None = None
    notes: tuple[str, ...] = field(default=())
    interrupted: bool = False

    @property
    def failures(self) -> dict[str, ComposeError]:
        """The errors by the cells' digests."""
        images = {d: image for grid in self.grids for d, image in grid.images.items()}
        return {d: image.error for d, image in images.items() if image.error is not None}

    @property
    def exit_status(self) -> int:
        """0 if no cell failed. A signal's own status is the caller's."""
        statuses = {error.exit_status for error in self.failures.values()}
        return gravest([*statuses, *([ExitStatus.INTERRUPTED] if self.interrupted else [])])


def difference_words(share: float | None) -> str:
    """How much two images differ; empty if that is not known."""
    if share is None:
        return ""
    return f"{percent(share)} different" if share else "no difference"


def most_different_first(results: Iterable[GridResult]) -> tuple[GridResult, ...]:
    """Grids and their rows, those whose *before* and *after* differ most first; a row without a
    difference comes last, and what is alike stays in its order.
    """
    ordered = [_rows_ordered(result) for result in results]
    return tuple(sorted(ordered, key=lambda one: -max(map(_size, one.differences), default=-1.0)))


def _rows_ordered(result: GridResult) -> GridResult:
    if not result.differences:
        return result
    grid, order = result.grid, range(len(result.differences))
    order_of_rows = sorted(order, key=lambda row: -_size(result.differences[row]))
    rows = tuple(grid.rows[row] for row in order_of_rows)
    cells = tuple(grid.cells[row] for row in order_of_rows)
    differences = tuple(result.differences[row] for row in order_of_rows)
    return GridResult(replace(grid, rows=rows, cells=cells), result.images, differences)


def _size(difference: float | None) -> float:
    return -1.0 if difference is None else difference
