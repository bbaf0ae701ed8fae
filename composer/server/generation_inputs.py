"""The inputs of `POST /generate/custom/{baseModelId}`, checked as the live service checks them.

Its words are kept where they are known. What it takes without a word is taken here too: a scale
below 0, fewer scales than LoRAs, or none at all.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from composer.server.request_fields import Refusal
from composer.targets.local.generations import SEEDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from composer.model import ModelTypes

LONGEST_PROMPT = 2048
MOST_LORAS = 6
LARGEST_SCALE = 2
SCALE = 1.0  # of a LoRA whose scale is left out


@dataclass(frozen=True, slots=True)
class NumberInput:
    """A number: its limits, both included, and what it is where it is left out."""

    name: str
    least: int
    most: int
    default: float
    step: int | None = 1  # None: any fraction

    def of(self, body: Mapping[str, Any]) -> float:
        """Its value in these inputs; raises `Refusal`."""
        value = body.get(self.name)
        if value is None:
            return self.default
        number = _number(value, self.name)
        if number < self.least:
            raise Refusal(f"Input {self.name} must be at least {self.least}")
        if number > self.most:
            raise Refusal(f"Input {self.name} must be at most {self.most}")
        if self.step is None:
            return number
        if number % self.step:
            raise Refusal(f"Input {self.name} must be a multiple of {self.step}")
        return int(number)

    def described(self) -> dict[str, Any]:
        """As the API describes it."""
        limits = {"min": self.least, "max": self.most, "default": self.default}
        return {"name": self.name, "type": "number", **limits, "step": self.step or 0.1}


NUMBERS = (
    NumberInput("numOutputs", 1, 4, 1),
    NumberInput("numInferenceSteps", 1, 50, 28),
    NumberInput("guidance", 0, 10, 3.5, None),
    NumberInput("width", 128, 2048, 1104, 16),
    NumberInput("height", 128, 2048, 832, 16),
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a request asks for; there may be fewer scales than LoRAs, or more."""

    prompt: str
    model: str | None
    loras: tuple[str, ...]
    scales: tuple[float, ...]
    numbers: Mapping[str, float]


def described_inputs(types: ModelTypes) -> list[dict[str, Any]]:
    """All inputs of a family's base model, as the API describes them with it."""
    both = [types.lora, types.composition]
    longest, seed = {"maxLength": LONGEST_PROMPT}, {"min": 0, "max": SEEDS - 1, "step": 1}
    return [
        {"name": "prompt", "type": "string", "required": {"always": True}, **longest},
        {"name": "modelId", "type": "model", "modelTypes": both},
        {"name": "loras", "type": "model_array", "modelTypes": [types.lora], "max": MOST_LORAS},
        {"name": "lorasScale", "type": "number_array", "min": 0, "max": LARGEST_SCALE},
        *(one.described() for one in NUMBERS),
        {"name": "seed", "type": "number", **seed},
    ]


def read_inputs(body: Mapping[str, Any]) -> Inputs:
    """The inputs in this body; one that has no seed gets one. Raises `Refusal`."""
    seed = NumberInput("seed", 0, SEEDS - 1, secrets.randbelow(SEEDS))
    return Inputs(
        prompt=_prompt(body.get("prompt")),
        model=_text(body.get("modelId"), "modelId"),
        loras=_loras(body.get("loras")),
        scales=_scales(body.get("lorasScale")),
        numbers={one.name: one.of(body) for one in (*NUMBERS, seed)},
    )


def _prompt(value: object) -> str:
    prompt = _text(value, "prompt")
    if not prompt:
        raise Refusal("Input prompt is required")
    if len(prompt) > LONGEST_PROMPT:
        raise Refusal(f"Input prompt must be at most {LONGEST_PROMPT} characters long")
    return prompt


def _loras(value: object) -> tuple[str, ...]:
    loras = _items(value, "loras")
    if len(loras) > MOST_LORAS:
        raise Refusal(f"Input loras must be at most {MOST_LORAS} items long")
    if not all(isinstance(item, str) for item in loras):
        raise Refusal("Input loras must be an array of strings")
    return tuple(loras)


def _scales(value: object) -> tuple[float, ...]:
    scales = tuple(_number(item, "lorasScale") for item in _items(value, "lorasScale"))
    if any(scale > LARGEST_SCALE for scale in scales):
        raise Refusal(f"Input lorasScale must be at most {LARGEST_SCALE}")
    return scales


def _items(value: object, name: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Refusal(f"Input {name} must be an array")
    return value


def _text(value: object, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise Refusal(f"Input {name} must be a string")
    return value


def _number(value: object, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Refusal(f"Input {name} must be a number")
    return value
