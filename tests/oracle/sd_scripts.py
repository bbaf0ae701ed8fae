"""What sd-scripts' `networks/flux_merge_lora.py` computes when it merges LoRAs without a model.

Its `merge_lora_models` as arithmetic, in float64 (read at 48d368fa): which keys it takes, and what
it multiplies them by. The real function needs a checkout of that repository with its dependencies.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Tensors = Mapping[str, NDArray[Any]]


def merged(
    parts: Sequence[tuple[Tensors, float]], *, concat: bool = True
) -> dict[str, NDArray[Any]]:
    """The merged tensors; `KeyError` for names that it doesn't know, as there.

    The weight goes into up and into down, and the rank adds up while alpha stays.
    """
    first_alphas: dict[str, float] = {}
    found: dict[str, NDArray[Any]] = {}
    for tensors, ratio in parts:
        alphas = _alphas(tensors)
        for stem, alpha in alphas.items():
            first_alphas.setdefault(stem, alpha)
        for key, values in tensors.items():
            if "alpha" in key:
                continue
            stem = key[: key.rfind(".lora_")]
            scale = sqrt(alphas[stem] / first_alphas[stem]) * ratio
            scaled = values * (abs(scale) if "lora_up" in key else scale)
            found[key] = _added(found[key], scaled, key, concat) if key in found else scaled
    return found | {f"{stem}.alpha": np.array(alpha) for stem, alpha in first_alphas.items()}


def _alphas(tensors: Tensors) -> dict[str, float]:
    """Those in the file, and the rank where there is none and the down weight has their name."""
    given = {k[: k.rfind(".alpha")]: float(v.item()) for k, v in tensors.items() if "alpha" in k}
    downs = {k[: k.rfind(".lora_down")]: len(v) for k, v in tensors.items() if "lora_down" in k}
    return {**downs, **given}


def _added(before: NDArray[Any], more: NDArray[Any], key: str, concat: bool) -> NDArray[Any]:
    if concat and ("lora_up" in key or "lora_down" in key):
        return np.concatenate([before, more], axis=1 if "lora_up" in key else 0)
    if before.shape != more.shape:
        raise ValueError("weights shape mismatch, different dims?")
    total: NDArray[Any] = before + more
    return total
