"""The grid of a preview: the same shots without LoRA, of the mix before a change, and after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.previews.cells import effective
from composer.previews.grid import AFTER, BEFORE, NO_LORA, Grid, Heading

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from composer.model import Concept, Recipe
    from composer.previews.shots import Shot


@dataclass(frozen=True, slots=True)
class Mix:
    """LoRAs at their scales, and lines that say so, as `0.70  Ink Lines`."""

    concepts: tuple[Concept, ...]
    lines: tuple[str, ...] = ()


def look_alike(one: Iterable[Concept], other: Iterable[Concept]) -> bool:
    """Whether images of both mixes are the same: a LoRA with the scale 0 changes none."""
    return effective(one) == effective(other)


def preview_grid(recipe: Recipe, shots: Sequence[Shot], before: Mix | None, after: Mix) -> Grid:
    """The column *before* is left out where there was no mix, or one that looks the same."""
    columns = [(Heading(NO_LORA), Mix(())), (Heading(AFTER, after.lines), after)]
    if before is not None and not look_alike(before.concepts, after.concepts):
        columns.insert(1, (Heading(BEFORE, before.lines), before))
    return Grid(
        recipe.path,
        recipe.name,
        tuple(heading for heading, _ in columns),
        tuple(shot.heading for shot in shots),
        tuple(tuple(shot.cell(mix.concepts) for _, mix in columns) for shot in shots),
    )
