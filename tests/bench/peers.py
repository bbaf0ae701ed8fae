"""The peers: PEFT's ways to merge adapters, and the arithmetic of sd-scripts, on one layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Part = tuple[Array, Array, float]  # up, down, alpha

MERGED = "merged"


def model(inputs: int, outputs: int, adapters: list[tuple[int, int]]) -> Any:
    """A model of one layer with adapters of (rank, seed), random weights, alpha = rank."""
    parts = []
    for rank, seed in adapters:
        rng = np.random.default_rng(seed)
        up = rng.standard_normal((outputs, rank), np.float32) * np.float32(0.02)
        parts.append((up, rng.standard_normal((rank, inputs), np.float32), float(rank)))
    return with_parts(parts)


def with_parts(parts: list[Part]) -> Any:
    """A PEFT model of one layer, with these adapters, named by their number."""
    outputs, inputs = parts[0][0].shape[0], parts[0][1].shape[1]
    base = torch.nn.Sequential(torch.nn.Linear(inputs, outputs, bias=False))
    built: Any = None
    for number, (up, down, alpha) in enumerate(parts):
        config = LoraConfig(r=down.shape[0], lora_alpha=alpha, target_modules=["0"])
        if built is None:
            built = get_peft_model(base, config, adapter_name=str(number))
        else:
            built.add_adapter(str(number), config)
        layer = built.base_model.model[0]
        layer.lora_A[str(number)].weight.data = torch.from_numpy(down.astype(np.float32))
        layer.lora_B[str(number)].weight.data = torch.from_numpy(up.astype(np.float32))
    return built


def add_weighted(built: Any, scales: list[float], combination: str, rank: int | None = None) -> Any:
    extra = {"svd_rank": rank} if rank else {}
    names = [str(number) for number in range(len(scales))]
    built.add_weighted_adapter(names, scales, MERGED, combination_type=combination, **extra)
    return built


def change(built: Any) -> Array:
    """ΔW of the merged adapter, (outputs, inputs)."""
    layer = built.base_model.model[0]
    up, down = (getattr(layer, name)[MERGED].weight.data for name in ("lora_B", "lora_A"))
    delta: Array = (layer.scaling[MERGED] * up.double() @ down.double()).numpy()
    return delta


def sd_scripts_concat(parts: list[Part], ratios: list[float]) -> Array:
    """`flux_merge_lora --concat` without a base model: what it saves, as its loader applies it.

    Part i: D_i * sqrt(alpha_i / alpha_0) * ratio_i and U_i * |the same|; saved alpha = alpha_0,
    rank = the sum (networks/flux_merge_lora.py, merge_lora_models).
    """
    first = parts[0][2]
    whole = sum(down.shape[0] for _, down, _ in parts)
    total: Array = np.zeros((parts[0][0].shape[0], parts[0][1].shape[1]))
    for (up, down, alpha), ratio in zip(parts, ratios, strict=True):
        scale = np.sqrt(alpha / first) * ratio
        total += abs(scale) * scale * up.astype(np.float64) @ down.astype(np.float64)
    return total * first / whole
