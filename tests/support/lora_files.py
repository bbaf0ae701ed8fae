"""Writes LoRA files for tests, with the `safetensors` package and random weights.

A `Spec` is one plain file in diffusers' or kohya's keys; `lora_wild` has all the other formats.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from safetensors.numpy import save_file
from support.lora_names import STEMS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from support.lora_names import Layer

    Pair = tuple[NDArray[Any], NDArray[Any]]

DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
FLOATS = {**DTYPES, "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2}
FLOATS["F64"] = np.float64


@dataclass(frozen=True)
class Spec:
    """One LoRA file: its format decides what the keys of `ranks` and `alphas` are."""

    kohya: bool
    dtype: str
    ranks: Mapping[str, int]  # module, or kohya's stem -> rank (of each part, if diagonal)
    alphas: Mapping[str, float] = field(default_factory=dict)
    diagonal: bool = False  # kohya's fused layers block-diagonal, as from a split training
    seed: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)


def write(spec: Spec, path: Path) -> Path:
    rng = np.random.default_rng(spec.seed)
    ends = ("lora_down", "lora_up") if spec.kohya else ("lora_A", "lora_B")
    tensors: dict[str, NDArray[Any]] = {}
    for stem, rank in spec.ranks.items():
        name = stem if spec.kohya else f"transformer.{stem}"
        make = diagonal if spec.diagonal else weights
        for end, values in zip(ends, make(STEMS[name], rank, rng), strict=True):
            tensors[f"{name}.{end}.weight"] = values.astype(DTYPES[spec.dtype])
        if stem in spec.alphas:
            tensors[f"{name}.alpha"] = np.array(spec.alphas[stem], DTYPES[spec.dtype])
    save_file(tensors, path, metadata=dict(spec.metadata))
    return path


def weights(layer: Layer, rank: int, rng: np.random.Generator) -> Pair:
    """Down and up of a LoRA on the layer."""
    down = rng.standard_normal((rank, layer.inputs), np.float32) * np.float32(0.02)
    return down, rng.standard_normal((layer.outputs, rank), np.float32) * np.float32(0.1)


def diagonal(layer: Layer, rank: int, rng: np.random.Generator) -> Pair:
    """The same with ranks of its own for each module in the layer."""
    down, up = weights(layer, rank * len(layer.parts), rng)
    for number, rows in enumerate(layer.parts.values()):
        others = np.ones(up.shape[1], bool)
        others[number * rank : (number + 1) * rank] = False
        for one in rows:
            up[one, others] = 0
    return down, up


def adapter_metadata(**fields: object) -> dict[str, str]:
    """`lora_adapter_metadata` as diffusers saves it."""
    raw = {f"transformer.{key}": value for key, value in fields.items()}
    return {"format": "pt", "lora_adapter_metadata": json.dumps(raw, indent=2, sort_keys=True)}


scales = st.integers(1, 10_000).map(lambda number: number / 10_000)
