"""How exact: relative error of ΔW against float64, ours beside PEFT's ways and sd-scripts'.

On one layer at its true width, in float32; the inputs' alphas and ranks are as they come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import peers
from safetensors.numpy import load_file, save_file
from tables import table

from composer import lora

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

STEM = "transformer.transformer_blocks.0.attn.to_q"
SIZE = 3072
CASES = {
    "two, rank 16, alpha 16": ((16, 16.0, 1.0), (16, 16.0, 1.0)),
    "two, rank 16, scales 0.8": ((16, 16.0, 0.8), (16, 16.0, 0.8)),
    "ranks 16 and 32, alpha 16": ((16, 16.0, 0.8), (32, 16.0, 0.6)),
    "ranks 16, 32 and 64": ((16, 8.0, 1.0), (32, 32.0, 0.5), (64, 1.0, 0.5)),
}


def run(folder: Path) -> None:
    rows = []
    for words, case in CASES.items():
        parts = [_part(rank, alpha, seed) for seed, (rank, alpha, _) in enumerate(case)]
        scales = [scale for _, _, scale in case]
        wanted: Any = sum(
            s * a / d.shape[0] * (u @ d) for (u, d, a), s in zip(parts, scales, strict=True)
        )
        found = _changes(parts, scales, folder)
        rows.append([words, *(_error(found.get(name), wanted) for name in NAMES)])
    table(["inputs", *NAMES], rows)


NAMES = ("ours", "PEFT cat", "PEFT svd", "PEFT linear", "sd-scripts --concat")


def _part(rank: int, alpha: float, seed: int) -> peers.Part:
    rng = np.random.default_rng(seed)
    up, down = (rng.standard_normal(shape, np.float32) for shape in ((SIZE, rank), (rank, SIZE)))
    return up.astype(np.float64), down.astype(np.float64), alpha


def _changes(parts: list[peers.Part], scales: list[float], folder: Path) -> dict[str, Any]:
    found = {
        "ours": _ours(parts, scales, folder),
        "sd-scripts --concat": peers.sd_scripts_concat(parts, scales),
    }
    whole = sum(down.shape[0] for _, down, _ in parts)
    for name, rank in (("cat", None), ("svd", whole), ("linear", None)):
        try:
            merged = peers.add_weighted(peers.with_parts(parts), scales, name, rank)
        except ValueError:  # linear: "All adapters must have the same r value"
            continue
        found[f"PEFT {name}"] = peers.change(merged)
    return found


def _ours(parts: list[peers.Part], scales: list[float], folder: Path) -> NDArray[np.float64]:
    files = []
    for number, (up, down, alpha) in enumerate(parts):
        files.append(folder / f"fidelity-{number}.safetensors")
        named = {".lora_A.weight": down, ".lora_B.weight": up, ".alpha": np.array(alpha)}
        save_file({STEM + end: value.astype(np.float32) for end, value in named.items()}, files[-1])
    out = folder / "fidelity.safetensors"
    read = [(lora.read(file), scale) for file, scale in zip(files, scales, strict=True)]
    lora.compose(read, out, metadata={})
    tensors = {key: value.astype(np.float64) for key, value in load_file(out).items()}
    product: NDArray[np.float64] = (
        tensors[f"{STEM}.lora_B.weight"] @ tensors[f"{STEM}.lora_A.weight"]
    )
    return product


def _error(found: Any, wanted: Any) -> str:
    if found is None:
        return "refuses"
    return f"{np.linalg.norm(found - wanted) / np.linalg.norm(wanted):.1e}"
