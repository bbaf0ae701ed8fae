"""Inspections of any number of LoRAs, with names and overlaps of every kind; without files."""

from __future__ import annotations

from math import cos

from composer.lora.inspection import Inspection, LoraInfo, Mix

NAMES = (
    "ink",
    "水彩画スタイルのとても長い名前と第二版",
    "Pixel Dust With a Rather Long Name that an Artist Chose for a Model",
    "👩‍🎨 painter 🏳️‍🌈",
    "e\u0301te\u0301",
    "x" * 90,
)
BLOCKS = [*(f"double {n}" for n in range(19)), *(f"single {n}" for n in range(38)), "other layers"]


def inspection(count: int, alike: float = 0.3, *, every: int = 1) -> Inspection:
    """So many LoRAs of every kind of name; how far two are alike depends on both numbers.

    Where the sum of the numbers can't be divided by `every`, the two are independent.
    """
    gram = tuple(
        tuple(1.0 if i == j else alike * cos(i * j) * ((i + j) % every == 0) for j in range(count))
        for i in range(count)
    )
    names = tuple(f"{NAMES[n % len(NAMES)]} {n}" for n in range(count))
    infos = tuple(
        LoraInfo("kohya", ("LoRA",), (4, 16), (), ("BF16",), f"loras/{name}.safetensors", {"x": 1},
                 size=10**n, id="model_" + "i" * 22)
        for n, name in enumerate(names)
    )  # fmt: skip
    mix = Mix(names, (0.5,) * count, dict.fromkeys(BLOCKS, gram))
    return Inspection("A mix", "recipes/a.yaml", infos, mix)
