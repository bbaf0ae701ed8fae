"""What came of a preview or a sweep: an image or an error for each cell, and what was spent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from composer.errors import ExitStatus, gravest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from composer.errors import ComposeError
    from composer.previews.grid import Grid


@dataclass(frozen=True, slots=True)
class Picture:
    """A cell's image: a PNG in the cache of this machine, or the reason why there is none."""

    file: Path | None = None
    error: ComposeError | None = None


@dataclass(frozen=True, slots=True)
class GridResult:
    """A grid with its pictures, by the cells' digests.

    `differences` are how much *before* and *after* differ in each row: the mean over all pixels
    and channels, 0..1; None where one of them is missing.
    """

    grid: Grid
    pictures: Mapping[str, Picture]
    differences: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Price:
    """What rendering costs, in the target's units: `each` cell that is missing, and in all."""

    cells: int
    total: float


@dataclass(frozen=True, slots=True)
class PreviewReport:
    """All grids, those that differ most first. Of all different cells, `made` are new, and
    `reused` were there. `price` was said before, `spent` is what the jobs answered; None where
    nothing is charged. `notes` are about recipes without a grid, as one that is blocked.
    """

    target: str
    grids: tuple[GridResult, ...] = ()
    made: int = 0
    reused: int = 0
    price: Price | None = None
    spent: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def failures(self) -> dict[str, ComposeError]:
        """The errors by the cells' digests."""
        pictures = {d: p for grid in self.grids for d, p in grid.pictures.items()}
        return {digest: p.error for digest, p in pictures.items() if p.error is not None}

    @property
    def exit_status(self) -> int:
        """0 if every cell has its picture."""
        statuses = (error.exit_status for error in self.failures.values())
        return gravest(statuses) or ExitStatus.DONE
