"""A second, made-up model family, as data: other types, layers and widths than FLUX.1's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file

from composer.lora import families
from composer.lora.families import Family
from composer.lora.formats import (
    FamilyFiles,
    Module,
    OutputFormat,
    OutputLayer,
    SourceFormat,
    alone,
    fused,
    prefixed,
)
from composer.model import ModelTypes

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LAYERS = tuple(
    Module(f"towers.{n}.{name}", f"towers.{n}.pair", 6, rows, "towers", f"tower {n}")
    for n in range(2)
    for name, rows in (("left", 4), ("right", 10))
)
OUTPUT_FORMAT = OutputFormat(
    "stone",
    tuple(OutputLayer(f"castle.{module.path}", alone(module)) for module in LAYERS),
    down=".lora_A.weight",
    up=".lora_B.weight",
    bias=".lora_B.bias",
    norm=None,
    one_alpha=True,
    whole_encoder=None,
    silent="towers.0.left",
)
FILES = FamilyFiles(
    label="Castle",
    architecture="castle-2/lora",
    modules=LAYERS,
    blocks=("tower 0", "tower 1"),
    source_formats=(
        SourceFormat(
            "split", prefixed("castle.", {module.path: alone(module) for module in LAYERS})
        ),
        SourceFormat("fused", fused(LAYERS)),
    ),
    output_formats={"stone": OUTPUT_FORMAT},
)
CASTLE = Family(
    types=ModelTypes(composition="castle.2-composition", lora="castle.2-lora"),
    training_job="castle-model-training",
    base_model="model_castle-2",
    load_files=lambda: FILES,
)


def register_castle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register it until the test ends."""
    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))
    families.register(CASTLE)


def castle(folder: Path, name: str, key: str, rows: int) -> Path:
    """A LoRA of rank 2 on one layer of the made-up model."""
    random = np.random.default_rng(len(name))
    tensors = {
        f"{key}.lora_A.weight": random.standard_normal((2, 6)).astype(np.float32),
        f"{key}.lora_B.weight": random.standard_normal((rows, 2)).astype(np.float32),
    }
    save_file(tensors, folder / name)
    return folder / name
