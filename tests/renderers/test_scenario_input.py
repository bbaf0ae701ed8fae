"""What Scenario would refuse, or take silently and not do, is refused before anything is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sizes import size

from composer.errors import UsageError
from composer.model import Concept
from composer.previews.cells import Cell, Look, RendererInfo
from composer.renderers.scenario_input import check_cells, image_input

INFO = RendererInfo("scenario", "1", "model_bfl-flux-1-dev", "https://example.com/v1")
INK = Concept("lora_ink", 0.65)


def cell(**more: Any) -> Cell:
    look = Look(**{k: more.pop(k) for k in ("width", "height", "steps", "guidance") if k in more})
    concepts, base = more.pop("concepts", [INK]), more.pop("base_model", INFO.base_model)
    info = replace(INFO, base_model=base)
    return Cell.of(concepts, more.pop("prompt", "a knight"), more.pop("seed", 7), look, info)


def loras(count: int) -> list[Concept]:
    return [Concept(f"lora_{number}", 0.5) for number in range(count)]


@pytest.mark.parametrize(
    "more",
    [
        {"concepts": []},
        {"concepts": loras(6)},
        {"concepts": [Concept("lora_ink", 2.0)]},
        {"concepts": [Concept("lora_ink", 0.6543)]},  # off the step of 0.05
        {"width": 128, "height": 2048},
        {"steps": 1, "guidance": 0},
        {"steps": 50, "guidance": 10.0},
        {"seed": 0},
        {"seed": 2147483647},
        {"prompt": "x"},
        {"prompt": "x" * 2048},
    ],
)
def test_what_is_within_the_limits_passes(more: dict[str, Any]) -> None:
    check_cells([cell(**more)])


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"concepts": loras(7)}, "it takes 7 LoRAs"),
        ({"concepts": [Concept("lora_ink", -0.1)]}, "lora_ink has the scale -0.1"),
        ({"concepts": [Concept("lora_ink", 2.0001)]}, "lora_ink has the scale 2.0001"),
        ({"concepts": [Concept("lora_ink", 0.5, "000010")]}, "lora_ink is wanted at epoch 000010"),
        ({"concepts": [Concept("a/../b", 0.5)]}, "a/../b is not the id of a LoRA"),
        ({"concepts": [Concept("a\x1b[1m", 0.5)]}, r"a\x1b[1m is not the id of a LoRA"),
        ({"width": 112}, "its width is 112 pixels"),
        ({"width": 2064}, "its width is 2064 pixels"),
        ({"height": 1000}, "its height is 1000 pixels"),
        ({"steps": 0}, "its number of steps is 0"),
        ({"steps": 51}, "its number of steps is 51"),
        ({"guidance": -0.5}, "its guidance is -0.5"),
        ({"guidance": 10.5}, "its guidance is 10.5"),
        ({"guidance": float("nan")}, "its guidance is nan"),
        ({"seed": -1}, "its seed is -1"),
        ({"seed": 2147483648}, "its seed is 2147483648"),
        ({"prompt": ""}, "the prompt has no character"),
        ({"prompt": "x" * 2049}, "the prompt has 2,049 characters"),
        ({"base_model": "../models"}, "the base model ../models is not an id"),
    ],
)
def test_what_is_beyond_them_is_refused_in_words(more: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError) as told:
        check_cells([cell(), cell(**more)])
    assert told.value.message == f"Scenario can't make this image: {problem}" or (
        told.value.message.startswith(f"Scenario can't make this image: {problem},")
    )
    assert told.value.hint


@settings(max_examples=size(40, 2000), deadline=None)
@given(
    st.lists(st.sampled_from([-0.5, 0.0, 0.65, 2.0, 2.5]), max_size=8),
    st.integers(-100, 2200) | st.sampled_from([128, 512, 2048]),
    st.integers(-5, 60),
    st.integers(-10, 2**32),
    st.text(max_size=2),
)
def test_what_passes_is_what_the_service_takes(
    scales: list[float], side: int, steps: int, seed: int, prompt: str
) -> None:
    concepts = [Concept(f"lora_{number}", scale) for number, scale in enumerate(scales)]
    one = cell(concepts=concepts, width=side, steps=steps, seed=seed, prompt=prompt)
    body = image_input(one)
    loras, sent = body.get("loras", []), body.get("lorasScale", [])
    assert isinstance(loras, list) and isinstance(sent, list) and len(loras) == len(sent)
    concepts_fit = len(loras) <= 6 and all(0 <= scale <= 2 for scale in sent)
    look_fits = side in range(128, 2049, 16) and steps in range(1, 51)
    if concepts_fit and look_fits and 0 <= seed <= 2147483647 and prompt:
        check_cells([one])
    else:
        with pytest.raises(UsageError):
            check_cells([one])
