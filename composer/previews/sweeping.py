"""The grid of a sweep: columns are the scales of its first axis, rows those of its second.

For each prompt and seed there is a block of rows, one for each scale of the second axis, or a
single row. The first column is without LoRA.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from composer.errors import Refused, UsageError
from composer.previews.axes import axes_of
from composer.previews.grid import NO_LORA, Grid, Heading, place_name
from composer.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from composer.model import Concept, Recipe
    from composer.previews.axes import Axis
    from composer.previews.shots import Shot

_PLACE = re.compile(r"([A-Z])([1-9][0-9]{0,8})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What is swept: one or two concepts of a recipe."""

    recipe: Recipe
    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, recipe: Recipe, scales: Mapping[str, Sequence[float]]) -> Sweep:
        """From scales by the name or id of concepts. Raises `UsageError`."""
        return cls(recipe, axes_of(scales, recipe))


@dataclass(frozen=True, slots=True)
class Places:
    """Which scales stand where. Without a second axis, a block has one row."""

    axes: tuple[Axis, ...]
    blocks: int  # one for each prompt and seed

    @property
    def columns(self) -> int:
        return 1 + len(self.axes[0].scales)

    @property
    def rows(self) -> int:
        return self.blocks * self._block

    @property
    def _block(self) -> int:
        """How many rows a block has."""
        return len(self.axes[1].scales) if len(self.axes) > 1 else 1

    def scales(self, row: int, column: int) -> dict[int, float]:
        """The scales by the concept's index; none in the column without LoRA."""
        if column == 0:
            return {}
        steps = (column - 1, row % self._block)
        return {axis.concept: axis.scales[n] for axis, n in zip(self.axes, steps, strict=False)}

    def named(self, place: str) -> dict[int, float]:
        """The scales at a place, as `B3`. Raises `UsageError` where there are none."""
        last = place_name(self.rows - 1, self.columns - 1)
        found = _PLACE.fullmatch(place.strip().upper())
        row, column = (int(found[2]) - 1, ord(found[1]) - ord("A")) if found else (-1, 0)
        if found and row < self.rows and column == 0:
            raise UsageError(
                f"{visible(place)} is in the column without LoRA",
                hint=f"name a place from {place_name(0, 1)} to {last}",
            )
        if not found or row >= self.rows or column >= self.columns:
            raise UsageError(
                f"the sweep has no place {visible(place)}",
                hint=f"its places go from {place_name(0, 1)} to {last}",
            )
        return self.scales(row, column)


def sweep_grid(sweep: Sweep, concepts: Sequence[Concept], shots: Sequence[Shot]) -> Grid:
    """All cells of a sweep; `concepts` are the recipe's, by id and in its order."""
    recipe, axes = sweep.recipe, sweep.axes
    places = Places(axes, len(shots))
    rows = [(shot, heading) for shot in shots for heading in _headings(shot, axes)]
    cells = tuple(
        (
            shot.cell(),
            *(
                shot.cell(_at(concepts, places.scales(row, column)))
                for column in range(1, places.columns)
            ),
        )
        for row, (shot, _) in enumerate(rows)
    )
    columns = (Heading(NO_LORA), *(_scale(axes[0], scale) for scale in axes[0].scales))
    return Grid(recipe.path, recipe.name, columns, tuple(heading for _, heading in rows), cells)


def _scale(axis: Axis, scale: float, lines: tuple[str, ...] = ()) -> Heading:
    return Heading(axis.title(scale), lines, axis.label)


def _headings(shot: Shot, axes: tuple[Axis, ...]) -> list[Heading]:
    """The headings of a block's rows."""
    if len(axes) < 2:
        return [shot.heading]
    lines = (shot.heading.title, *shot.heading.lines)
    return [_scale(axes[1], scale, lines) for scale in axes[1].scales]


def _at(concepts: Sequence[Concept], scales: dict[int, float]) -> list[Concept]:
    return [replace(one, scale=scales.get(index, one.scale)) for index, one in enumerate(concepts)]


def axis_arguments(grid: Grid) -> list[str]:
    """The axes of a sweep's grid, as `parse_axes` reads them."""
    texts = []
    for label, headings in zip(grid.axes, (grid.columns, grid.rows), strict=True):
        scales = dict.fromkeys(one.short for one in headings if one.axis)
        texts += [f"{label}={','.join(scales)}"] * bool(scales)
    return texts


def check_size(grid: Grid, limit: int) -> None:
    """Raise `Refused` for more images than this; equal ones in several places count once."""
    if (count := len(set(grid))) > limit:
        raise Refused(
            f"the sweep has {counted(count, 'image')}, more than {limit:,}",
            hint=f"--limit {count} allows them; fewer scales, prompts or seeds make fewer images",
        )


# --- a place that becomes the recipe -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScaleChange:
    """A concept as the recipe calls it, and its scale before and after."""

    label: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Promoted:
    """A recipe that has the scales of a place; without `changes` it had them already."""

    path: str
    name: str
    place: str
    changes: tuple[ScaleChange, ...]
