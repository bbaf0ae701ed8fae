"""Small pieces for tests that build LoRA files key by key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[Any]]

Q = "transformer.transformer_blocks.0.attn.to_q"
QKV = "lora_unet_double_blocks_0_img_attn_qkv"


def zeros(*shape: int, dtype: Any = np.float32) -> NDArray[Any]:
    return np.zeros(shape, dtype)


def pair(
    stem: str, inputs: int = 3072, outputs: int = 3072, rank: int = 2, dtype: Any = np.float32
) -> Tensors:
    """A LoRA in diffusers' or kohya's keys, whichever the stem is of."""
    down, up = ("lora_down", "lora_up") if stem.startswith("lora_") else ("lora_A", "lora_B")
    return {
        f"{stem}.{down}.weight": zeros(rank, inputs, dtype=dtype),
        f"{stem}.{up}.weight": zeros(outputs, rank, dtype=dtype),
    }


def saved(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Path:
    save_file(tensors, path, metadata=dict(metadata) if metadata else None)
    return path
