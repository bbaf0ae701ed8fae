"""PEFT's own exact combination, `cat`, against ours, on the weights themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from oracle.cases import file, loras
from peft import LoraConfig, get_peft_model
from support import lora_oracle as oracle
from support.lora_wild import save
from torch import nn

from composer.lora import compose, read

if TYPE_CHECKING:
    from pathlib import Path

MODULE, STEM = "x_embedder", "transformer.x_embedder"
RANKS, SCALES, ALPHA = (4, 6), (0.7, 0.45), 3
ROUNDING = 1e-6


def test_cat_is_what_we_make(tmp_path: Path) -> None:
    paths = [
        save(
            file(loras([MODULE], "transformer.", ranks=(rank, rank), alpha=ALPHA), seed=rank),
            tmp_path / f"{rank}.safetensors",
        )
        for rank in RANKS
    ]
    out = tmp_path / "ours.safetensors"
    compose([(read(p), s) for p, s in zip(paths, SCALES, strict=True)], out, metadata={})
    ours = torch.tensor(oracle.dense(oracle.deltas(out)[MODULE]))
    theirs = _cat([oracle.load(path) for path in paths]).double()
    assert (ours - theirs).norm() <= ROUNDING * theirs.norm()
    off = torch.tensor(oracle.dense(oracle.deltas(out, 1.01)[MODULE]))
    assert (off - theirs).norm() > ROUNDING * theirs.norm()


def _cat(sources: list[dict[str, Any]]) -> torch.Tensor:
    """PEFT's change of the weights."""
    base: Any = nn.Sequential()
    base.add_module(MODULE, nn.Linear(64, 3072))
    names = [str(rank) for rank in RANKS]
    configs = [LoraConfig(r=rank, lora_alpha=ALPHA, target_modules=[MODULE]) for rank in RANKS]
    model: Any = get_peft_model(base, configs[0], adapter_name=names[0])
    model.add_adapter(names[1], configs[1])
    layer = model.base_model.model.x_embedder
    for name, source in zip(names, sources, strict=True):
        layer.lora_A[name].weight.data = torch.tensor(source[f"{STEM}.lora_A.weight"])
        layer.lora_B[name].weight.data = torch.tensor(source[f"{STEM}.lora_B.weight"])
    model.add_weighted_adapter(names, list(SCALES), "both", combination_type="cat")
    result: torch.Tensor = layer.get_delta_weight("both")
    return result
