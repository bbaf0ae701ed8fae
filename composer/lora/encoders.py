"""The text encoders of FLUX.1 that a LoRA can change: CLIP-L and T5-XXL, and their layers.

A LoRA trained on text too has parts for them. Their paths begin with the pipeline's name of the
encoder; the transformer's have no such beginning. `formats` builds the spellings on these tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.lora.modules import Module

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIP, T5 = "text_encoder", "text_encoder_2"
CLIP_LAYERS, T5_BLOCKS = 12, 24
_WIDTH, _INNER = 768, 3072  # CLIP-L
_T5_WIDTH, _T5_INNER = 4096, 10240  # T5-XXL

_CLIP = (
    *((f"self_attn.{name}_proj", _WIDTH, _WIDTH) for name in ("q", "k", "v", "out")),
    ("mlp.fc1", _WIDTH, _INNER),
    ("mlp.fc2", _INNER, _WIDTH),
)
_T5 = (
    *((f"layer.0.SelfAttention.{name}", _T5_WIDTH, _T5_WIDTH) for name in "qkvo"),
    ("layer.1.DenseReluDense.wi_0", _T5_WIDTH, _T5_INNER),
    ("layer.1.DenseReluDense.wi_1", _T5_WIDTH, _T5_INNER),
    ("layer.1.DenseReluDense.wo", _T5_INNER, _T5_WIDTH),
)


def _clip() -> Iterator[Module]:
    for n in range(CLIP_LAYERS):
        for path, inputs, outputs in _CLIP:
            name = f"text_model.encoder.layers.{n}.{path}"
            yield Module(f"{CLIP}.{name}", name, inputs, outputs)


def _t5() -> Iterator[Module]:
    for n in range(T5_BLOCKS):
        for path, inputs, outputs in _T5:
            name = f"encoder.block.{n}.{path}"
            yield Module(f"{T5}.{name}", name, inputs, outputs)


CLIP_MODULES: tuple[Module, ...] = tuple(_clip())
T5_MODULES: tuple[Module, ...] = tuple(_t5())


def encoder_of(path: str) -> str | None:
    """Which text encoder the module of this path belongs to; None for the transformer."""
    first = path.partition(".")[0]
    return first if first in (CLIP, T5) else None
