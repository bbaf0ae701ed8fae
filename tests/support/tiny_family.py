"""FLUX.1's family with small widths, for LoRAs on the pipeline of `tiny_pipeline`.

The layers, their names and all formats are FLUX.1's own; only the numbers of rows and columns are
others. Where it is registered, a LoRA of true width is refused, as a tiny one is elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file

from composer.lora import families
from composer.lora.families.flux1 import FLUX1
from composer.lora.formats import ModuleSlice, TargetLayer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pytest

    from composer.lora.families import Family
    from composer.lora.formats import FamilyFiles, Module, OutputFormat, SourceFormat

HIDDEN, HEAD, CHANNELS, TIME = 32, 16, 64, 256
CLIP_WIDTH, T5_WIDTH, T5_INNER = 32, 32, 64
# What FLUX.1 has, and what takes its place; all others are multiples of 3072.
_WIDTHS = {64: CHANNELS, 256: TIME, 768: CLIP_WIDTH, 4096: T5_WIDTH, 10240: T5_INNER}
_WIDTHS |= {128: 128, 384: 384}  # of control and fill models


def tiny_width(number: int) -> int:
    """What takes the place of this number of rows or columns."""
    return _WIDTHS.get(number, number * HIDDEN // 3072)


def _module(module: Module) -> Module:
    return replace(module, inputs=tiny_width(module.inputs), outputs=tiny_width(module.outputs))


def _layer(layer: TargetLayer) -> TargetLayer:
    parts = (
        ModuleSlice(_module(part.module), tiny_width(part.start), part.swapped)
        for part in layer.parts
    )
    return TargetLayer(tiny_width(layer.inputs), tiny_width(layer.outputs), tuple(parts))


def _source(format: SourceFormat) -> SourceFormat:
    return replace(format, layers={text: _layer(layer) for text, layer in format.layers.items()})


def _output(format: OutputFormat) -> OutputFormat:
    layers = (replace(one, layer=_layer(one.layer)) for one in format.layers)
    return replace(format, layers=tuple(layers), norm_width=HEAD)


@lru_cache(maxsize=1)
def tiny_files() -> FamilyFiles:
    """FLUX.1's tables with small numbers."""
    files = FLUX1.files
    return replace(
        files,
        modules=tuple(map(_module, files.modules)),
        source_formats=tuple(map(_source, files.source_formats)),
        output_formats={name: _output(one) for name, one in files.output_formats.items()},
        norm_width=HEAD,
        hidden=HIDDEN,
    )


def tiny_family() -> Family:
    """FLUX.1 as `compose` knows it, but for the widths."""
    return replace(FLUX1, load_files=tiny_files)


def register_tiny_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLUX.1 is tiny until the test ends."""
    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))
    families.register(tiny_family())


# Layers of each kind in the blocks that the tiny pipeline has.
LAYERS = (
    "transformer_blocks.0.attn.to_q",
    "transformer_blocks.0.attn.to_k",
    "transformer_blocks.0.attn.to_v",
    "transformer_blocks.1.attn.add_k_proj",
    "transformer_blocks.1.attn.to_out.0",
    "transformer_blocks.1.ff.net.0.proj",
    "transformer_blocks.0.norm1.linear",
    "single_transformer_blocks.0.attn.to_q",
    "single_transformer_blocks.0.attn.to_v",
    "single_transformer_blocks.1.proj_mlp",
    "single_transformer_blocks.1.proj_out",
)


def tiny_lora(
    path: Path,
    seed: int = 0,
    *,
    rank: int = 4,
    alpha: float | None = None,
    stems: Iterable[str] = tuple(f"transformer.{name}" for name in LAYERS),
    ends: tuple[str, str] = (".lora_A.weight", ".lora_B.weight"),
    dtype: str = "float32",
    title: str | None = None,
) -> Path:
    """A LoRA that shows in an image, in diffusers' form; with other seeds, other weights.

    With other `stems` and `ends` it is one of another format. Every third layer has a rank that is
    one higher.
    """
    random, tensors = np.random.default_rng(seed), {}
    for number, stem in enumerate(stems):
        layer, of = tiny_files().prefixes[stem][0].layer, rank + (number % 3 == 2)
        down = random.standard_normal((of, layer.inputs)) * layer.inputs**-0.5
        up = random.standard_normal((layer.outputs, of)) * of**-0.5
        tensors[stem + ends[0]] = down.astype(dtype)
        tensors[stem + ends[1]] = up.astype(dtype)
        if alpha is not None:
            tensors[f"{stem}.alpha"] = np.array(alpha, dtype)
    metadata: Mapping[str, str] = {"modelspec.title": title} if title else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt", **metadata})
    return path
