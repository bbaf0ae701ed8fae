"""Prompts and seeds, and the images that are made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.model_types import FLUX

from composer.model import Concept, ConceptRef, Recipe
from composer.previews.cells import Cell, Look, PreviewSettings, RendererInfo
from composer.previews.grid import Heading
from composer.previews.shots import prompts, shots

INFO, LOOK = RendererInfo("test", "1", "base"), Look(steps=4)
RECIPE = Recipe(path="a.yaml", name="Fox", concepts=(ConceptRef(1, name="Ink"),), types=FLUX)
SETTINGS = PreviewSettings(("a fox", "a cat"), (7, 8), LOOK)


def test_each_prompt_with_each_seed() -> None:
    rows = shots(RECIPE, SETTINGS, INFO)
    pairs = [(one.prompt, one.seed) for one in rows]
    assert pairs == [("a fox", 7), ("a fox", 8), ("a cat", 7), ("a cat", 8)]
    assert rows[1].heading == Heading("a fox", ("seed 8",))


def test_a_shot_makes_an_image_of_a_mix_and_of_the_base_model_alone() -> None:
    shot, *_ = shots(RECIPE, SETTINGS, INFO)
    mix = [Concept("lora_a", 0.5)]
    assert shot.cell(mix) == Cell.of(mix, "a fox", 7, LOOK, INFO)
    assert shot.cell() == Cell.of([], "a fox", 7, LOOK, INFO)


@pytest.mark.parametrize(
    ("project", "own", "description", "shown"),
    [
        (("a fox",), (), "Soft.", ("a fox",)),
        (("a fox",), ("a cat", "a fox"), None, ("a fox", "a cat")),
        ((), ("a cat",), "Soft.", ("a cat",)),
        ((), (), "Soft\n  foxes.", ("Soft foxes.",)),
        ((), (), " ", ("Fox",)),
        ((), (), None, ("Fox",)),
    ],
)
def test_prompts_of_the_project_and_of_the_recipe(
    project: tuple[str, ...], own: tuple[str, ...], description: str | None, shown: tuple[str, ...]
) -> None:
    recipe = replace(RECIPE, prompts=own, description=description)
    assert prompts(recipe, replace(SETTINGS, prompts=project)) == shown
