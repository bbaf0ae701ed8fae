"""Full-shape FLUX.1 LoRAs with random weights: the 418 attention and MLP layers that trainers take.

Written in plain diffusers keys, which every peer reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from composer.lora.dtypes import BF16, NUMPY
from composer.lora.families.flux1_files import MODULES
from composer.lora.writer import Spec, order, writing

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from composer.lora.formats import Module

RANKS, SCALES = (16, 32, 16), (0.65, 0.8, 0.5)
LAYERS = [module for module in MODULES if "blocks" in module.path and ".norm" not in module.path]


def write(path: Path, rank: int, *, seed: int, layers: Iterable[Module]) -> Path:
    """A bfloat16 file of these layers, all of one rank; written once, then found again."""
    if path.exists():
        return path
    rng = np.random.default_rng(seed)
    specs = sorted((spec for module in layers for spec in _specs(module, rank)), key=order)
    with writing(path, specs, {}) as output:
        for spec in specs:
            values = rng.standard_normal(spec.shape, np.float32) * np.float32(0.02)
            output.put(spec.name, values.astype(NUMPY[BF16]))
    return path


def _specs(module: Module, rank: int) -> tuple[Spec, Spec]:
    stem = f"transformer.{module.path}"
    return (
        Spec(f"{stem}.lora_A.weight", BF16, (rank, module.inputs)),
        Spec(f"{stem}.lora_B.weight", BF16, (module.outputs, rank)),
    )


def three(folder: Path) -> list[Path]:
    """The three files of the main comparison: 523 MB together."""
    return [
        write(folder / f"rank{rank}-{number}.safetensors", rank, seed=number, layers=LAYERS)
        for number, rank in enumerate(RANKS)
    ]
