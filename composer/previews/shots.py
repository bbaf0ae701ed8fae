"""Shots: each prompt with each seed, of which a preview and a sweep make an image of every mix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.previews.cells import Cell
from composer.previews.grid import Heading
from composer.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from composer.model import Concept, Recipe
    from composer.previews.cells import Look, PreviewSettings, RendererInfo


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


def shots(recipe: Recipe, settings: PreviewSettings, renderer: RendererInfo) -> tuple[Shot, ...]:
    """All seeds of the recipe's first prompt, then those of the next one."""
    return tuple(
        Shot(prompt, seed, settings.look, renderer)
        for prompt in prompts(recipe, settings)
        for seed in settings.seeds
    )


def prompts(recipe: Recipe, settings: PreviewSettings) -> tuple[str, ...]:
    """Those of the project, then the recipe's own, each once; else its description or name."""
    said = dict.fromkeys([*settings.prompts, *recipe.prompts])
    return tuple(said) or (one_line(recipe.description or "") or recipe.name,)
