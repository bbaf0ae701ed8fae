"""Prompts and seeds, and the images that are made of them."""

from __future__ import annotations

from composer.model import Concept
from composer.previews.cells import Cell, Look, RendererInfo
from composer.previews.grid import Heading
from composer.previews.shots import shots

INFO, LOOK = RendererInfo("test", "1", "base"), Look(steps=4)


def test_each_prompt_with_each_seed() -> None:
    all_shots = shots(["a fox", "a cat"], (7, 8), LOOK, INFO)
    pairs = [(one.prompt, one.seed) for one in all_shots]
    assert pairs == [("a fox", 7), ("a fox", 8), ("a cat", 7), ("a cat", 8)]
    assert all_shots[1].heading == Heading("a fox", ("seed 8",))


def test_a_shot_makes_an_image_of_a_mix_and_of_the_base_model_alone() -> None:
    (shot,) = shots(["a fox"], (7,), LOOK, INFO)
    mix = [Concept("lora_a", 0.5)]
    assert shot.cell(mix) == Cell.of(mix, "a fox", 7, LOOK, INFO)
    assert shot.cell() == Cell.of([], "a fox", 7, LOOK, INFO)
