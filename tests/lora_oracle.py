"""What a composition should be, worked out apart from the engine: `safetensors`, float64, QR.

Knows a dozen modules of FLUX.1 only, each with its names, shapes and rows written out by hand.
`deltas` reads a file into factors per canonical module; `worst` compares two such sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Factors = dict[str, list[tuple[NDArray[Any], NDArray[Any]]]]  # module -> (up, down) pairs

# Diffusers' path -> (inputs, outputs); the modules that generated files choose from.
SPLIT = {
    "transformer_blocks.0.attn.to_q": (3072, 3072),
    "transformer_blocks.0.attn.to_k": (3072, 3072),
    "transformer_blocks.0.attn.to_v": (3072, 3072),
    "transformer_blocks.3.attn.to_out.0": (3072, 3072),
    "transformer_blocks.3.ff.net.0.proj": (3072, 12288),
    "transformer_blocks.18.attn.add_v_proj": (3072, 3072),
    "single_transformer_blocks.0.attn.to_q": (3072, 3072),
    "single_transformer_blocks.0.attn.to_k": (3072, 3072),
    "single_transformer_blocks.0.attn.to_v": (3072, 3072),
    "single_transformer_blocks.0.proj_mlp": (3072, 12288),
    "single_transformer_blocks.37.proj_out": (15360, 3072),
    "single_transformer_blocks.5.norm.linear": (3072, 9216),
    "x_embedder": (64, 3072),
    "norm_out.linear": (3072, 6144),
    "proj_out": (3072, 64),
}
# kohya's stem -> (inputs, outputs, [(diffusers' path, its rows in the fused layer)]).
FUSED: dict[str, tuple[int, int, list[tuple[str, Sequence[int]]]]] = {
    "lora_unet_double_blocks_0_img_attn_qkv": (
        3072,
        9216,
        [
            ("transformer_blocks.0.attn.to_q", range(3072)),
            ("transformer_blocks.0.attn.to_k", range(3072, 6144)),
            ("transformer_blocks.0.attn.to_v", range(6144, 9216)),
        ],
    ),
    "lora_unet_double_blocks_3_img_attn_proj": (
        3072,
        3072,
        [("transformer_blocks.3.attn.to_out.0", range(3072))],
    ),
    "lora_unet_single_blocks_0_linear1": (
        3072,
        21504,
        [
            ("single_transformer_blocks.0.attn.to_q", range(3072)),
            ("single_transformer_blocks.0.attn.to_k", range(3072, 6144)),
            ("single_transformer_blocks.0.attn.to_v", range(6144, 9216)),
            ("single_transformer_blocks.0.proj_mlp", range(9216, 21504)),
        ],
    ),
    "lora_unet_single_blocks_37_linear2": (
        15360,
        3072,
        [("single_transformer_blocks.37.proj_out", range(3072))],
    ),
    "lora_unet_single_blocks_5_modulation_lin": (
        3072,
        9216,
        [("single_transformer_blocks.5.norm.linear", range(9216))],
    ),
    "lora_unet_double_blocks_0_img_mlp_0": (
        3072,
        12288,
        [("transformer_blocks.0.ff.net.0.proj", range(12288))],
    ),
    "lora_unet_double_blocks_0_txt_attn_proj": (
        3072,
        3072,
        [("transformer_blocks.0.attn.to_add_out", range(3072))],
    ),
    "lora_unet_single_blocks_0_modulation_lin": (
        3072,
        9216,
        [("single_transformer_blocks.0.norm.linear", range(9216))],
    ),
    "lora_unet_single_blocks_0_linear2": (
        15360,
        3072,
        [("single_transformer_blocks.0.proj_out", range(3072))],
    ),
    "lora_unet_double_blocks_12_img_attn_proj": (
        3072,
        3072,
        [("transformer_blocks.12.attn.to_out.0", range(3072))],
    ),
    "lora_unet_img_in": (64, 3072, [("x_embedder", range(3072))]),
    "lora_unet_final_layer_adaLN_modulation_1": (
        3072,
        6144,
        # (shift, scale) becomes (scale, shift)
        [("norm_out.linear", [*range(3072, 6144), *range(3072)])],
    ),
    "lora_unet_final_layer_linear": (3072, 64, [("proj_out", range(64))]),
}


def deltas(path: Path, scale: float = 1.0) -> Factors:
    """scale * alpha / rank * up @ down of every module in a file, as float64 factors."""
    tensors = {key: np.asarray(value, np.float64) for key, value in load_file(path).items()}
    found: Factors = {}
    for key, down in tensors.items():
        if key.endswith(".lora_A.weight"):
            stem = key.removesuffix(".lora_A.weight")
            up, module = tensors[f"{stem}.lora_B.weight"], stem.removeprefix("transformer.")
            places: list[tuple[str, Sequence[int]]] = [(module, range(up.shape[0]))]
        elif key.endswith(".lora_down.weight"):
            stem = key.removesuffix(".lora_down.weight")
            up, places = tensors[f"{stem}.lora_up.weight"], FUSED[stem][2]
        else:
            continue
        rank = down.shape[0]
        factor = scale * float(tensors.get(f"{stem}.alpha", np.float64(rank)).item()) / rank
        for module, rows in places:
            found.setdefault(module, []).append((factor * up[list(rows)], down))
    return found


def total(parts: Iterable[Factors]) -> Factors:
    """The sum of several files' deltas."""
    found: Factors = {}
    for part in parts:
        for module, pairs in part.items():
            found.setdefault(module, []).extend(pairs)
    return found


def norm(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    """The Frobenius norm of the sum of up @ down, without building it: ‖R_up R_downᵀ‖."""
    ups, downs = zip(*pairs, strict=True)
    left: NDArray[Any] = np.asarray(np.linalg.qr(np.concatenate(ups, axis=1), mode="r"))
    right: NDArray[Any] = np.asarray(np.linalg.qr(np.concatenate(downs, axis=0).T, mode="r"))
    return float(np.linalg.norm(left @ right.T))


def errors(got: Factors, wanted: Factors) -> Mapping[str, float]:
    """Relative Frobenius error per module; a module that only one side has counts in full."""
    found: dict[str, float] = {}
    for module in {*got, *wanted}:
        pairs = wanted.get(module, [])
        size = norm(pairs) if pairs else 0.0
        difference = norm([*((-up, down) for up, down in got.get(module, [])), *pairs])
        found[module] = difference / size if size else (difference and np.inf)
    return found


def worst(got: Factors, wanted: Factors) -> float:
    return max(errors(got, wanted).values(), default=0.0)
