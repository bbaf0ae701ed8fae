"""Writes LoRA files for tests, with the `safetensors` package and random weights.

A `Spec` is one file; hypothesis draws them with `specs`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from lora_oracle import FUSED, SPLIT
from safetensors.numpy import save_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


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
    tensors: dict[str, NDArray[Any]] = {}
    for stem, rank in spec.ranks.items():
        down, up = (
            _kohya(spec, stem, rank, rng) if spec.kohya else _weights(*SPLIT[stem], rank, rng)
        )
        name = stem if spec.kohya else f"transformer.{stem}"
        ends = ("lora_down", "lora_up") if spec.kohya else ("lora_A", "lora_B")
        tensors[f"{name}.{ends[0]}.weight"] = down.astype(DTYPES[spec.dtype])
        tensors[f"{name}.{ends[1]}.weight"] = up.astype(DTYPES[spec.dtype])
        if stem in spec.alphas:
            tensors[f"{name}.alpha"] = np.array(spec.alphas[stem], DTYPES[spec.dtype])
    save_file(tensors, path, metadata=dict(spec.metadata))
    return path


def _weights(inputs: int, outputs: int, rank: int, rng: Any) -> tuple[Any, Any]:
    down = rng.standard_normal((rank, inputs), np.float32) * np.float32(0.02)
    return down, rng.standard_normal((outputs, rank), np.float32) * np.float32(0.1)


def _kohya(spec: Spec, stem: str, rank: int, rng: Any) -> tuple[Any, Any]:
    inputs, outputs, places = FUSED[stem]
    parts = len(places)
    if not spec.diagonal or parts == 1:
        return _weights(inputs, outputs, rank, rng)
    down, up = _weights(inputs, outputs, rank * parts, rng)
    for number, (_, rows) in enumerate(places):
        block = np.zeros(rank * parts, bool)
        block[number * rank : (number + 1) * rank] = True
        up[rows[0] : rows[-1] + 1, ~block] = 0
    return down, up


def adapter_metadata(**fields: object) -> dict[str, str]:
    """`lora_adapter_metadata` as diffusers saves it."""
    raw = {f"transformer.{key}": value for key, value in fields.items()}
    return {"format": "pt", "lora_adapter_metadata": json.dumps(raw, indent=2, sort_keys=True)}


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """A file of one to three LoRAs, of either format."""
    kohya = draw(st.booleans())
    stems = draw(
        st.lists(
            st.sampled_from(sorted(FUSED if kohya else SPLIT)), min_size=1, max_size=3, unique=True
        )
    )
    ranks = {stem: draw(st.integers(1, 5)) for stem in stems}
    alpha = st.sampled_from([1.0, 2.0, 3.5, 8.0, 0.25])
    with_alpha = draw(st.sampled_from([[], stems, stems[:1]]))
    return Spec(
        kohya=kohya,
        dtype=draw(st.sampled_from(sorted(DTYPES))),
        ranks=ranks,
        alphas={stem: draw(alpha) for stem in with_alpha},
        diagonal=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
    )


scales = st.integers(1, 10_000).map(lambda number: number / 10_000)
