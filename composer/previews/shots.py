"""Shots: each prompt with each seed, of which a preview and a sweep make an image of every mix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.previews.cells import Cell
from composer.previews.grid import Heading

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from composer.model import Concept
    from composer.previews.cells import Look, RendererInfo


@dataclass(frozen=True, slots=True)
class Shot:
    """A prompt with a seed, and how its images are made."""

    prompt: str
    seed: int
    look: Look
    renderer: RendererInfo

    @property
    def heading(self) -> Heading:
        """What stands at its row."""
        return Heading(self.prompt, (f"seed {self.seed}",))

    def cell(self, concepts: Iterable[Concept] = ()) -> Cell:
        """Its image of this mix; without one, of the base model alone."""
        return Cell.of(concepts, self.prompt, self.seed, self.look, self.renderer)


def shots(
    prompts: Iterable[str], seeds: Sequence[int], look: Look, renderer: RendererInfo
) -> tuple[Shot, ...]:
    """All seeds of the first prompt, then those of the next one."""
    return tuple(Shot(prompt, seed, look, renderer) for prompt in prompts for seed in seeds)
