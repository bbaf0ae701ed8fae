"""The LoRA formats that we read, each one a table; a new format is a new table here.

A format spells modules as stems and the pieces of a LoRA as suffixes; every legal key is a stem
and a suffix of one format. Reading a file is looking its keys up here, never guessing: the table
that has a key is the format of that key, and mixed files need no rule of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from composer.lora.encoders import CLIP_MODULES, T5_MODULES
from composer.lora.modules import (
    BY_BFL,
    BY_PATH,
    DOUBLE_BLOCKS,
    HIDDEN,
    NORMS,
    SINGLE_BLOCKS,
    TargetLayer,
    alone,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class TensorRole(StrEnum):
    """What a tensor is. A LoRA's change of the weights is factor * up @ down, and so on."""

    DOWN = "down"  # A, (rank, inputs)
    UP = "up"  # B, (outputs, rank)
    ALPHA = "alpha"  # one number
    BIAS = "bias of up"  # (outputs,), multiplied by the factor as up is
    DIFF_B = "diff_b"  # (outputs,), a change of the bias, without a factor
    HADA_W1A = "hada_w1_a"  # (outputs, rank); LoHa: (w1_a @ w1_b) * (w2_a @ w2_b)
    HADA_W1B = "hada_w1_b"  # (rank, inputs)
    HADA_W2A = "hada_w2_a"
    HADA_W2B = "hada_w2_b"
    LOKR_W1 = "lokr_w1"  # LoKr: kron(w1, w2), each whole or a product
    LOKR_W1A = "lokr_w1_a"
    LOKR_W1B = "lokr_w1_b"
    LOKR_W2 = "lokr_w2"
    LOKR_W2A = "lokr_w2_a"
    LOKR_W2B = "lokr_w2_b"


_DOWN_UP = (
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora_down.weight", ".lora_up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
)
# Any trainer's suffixes occur with any prefix: converters change the one and keep the other.
SUFFIXES: Mapping[str, TensorRole] = MappingProxyType(
    {
        **{down: TensorRole.DOWN for down, _ in _DOWN_UP},
        **{up: TensorRole.UP for _, up in _DOWN_UP},
        ".alpha": TensorRole.ALPHA,
        ".lora_B.bias": TensorRole.BIAS,
        ".lora_B.default.bias": TensorRole.BIAS,
        ".diff_b": TensorRole.DIFF_B,
        **{f".{p.value}": p for p in TensorRole if p.value.startswith(("hada_", "lokr_"))},
    }
)
_XLABS_SUFFIXES: Mapping[str, TensorRole] = MappingProxyType(
    {".down.weight": TensorRole.DOWN, ".up.weight": TensorRole.UP, ".alpha": TensorRole.ALPHA}
)


@dataclass(frozen=True, slots=True)
class Format:
    """A format's name, its spellings of modules, and its endings for the pieces."""

    name: str
    stems: Mapping[str, TargetLayer]
    suffixes: Mapping[str, TensorRole] = field(default_factory=lambda: SUFFIXES)


@dataclass(frozen=True, slots=True, eq=False)
class KeyPrefix:
    """One LoRA as a file spells it: its pieces are the keys that begin with `text`. There is one
    of each."""

    format: str
    text: str
    site: TargetLayer


_CLIP = {module.bfl: alone(module) for module in CLIP_MODULES}
_T5 = {module.bfl: alone(module) for module in T5_MODULES}
# transformers 5 has no `text_model` in CLIP any more, and PEFT saves its names.
_FLAT_CLIP = {name.removeprefix("text_model."): site for name, site in _CLIP.items()}


def _prefixed(prefix: str, sites: Mapping[str, TargetLayer]) -> dict[str, TargetLayer]:
    return {prefix + name: site for name, site in sites.items()}


def _flat(prefix: str, sites: Mapping[str, TargetLayer]) -> dict[str, TargetLayer]:
    """Dots as underscores, as trainers write that name modules by attributes."""
    return {prefix + name.replace(".", "_"): site for name, site in sites.items()}


def _xlabs(prefix: str) -> Iterator[tuple[str, TargetLayer]]:
    """x-flux hangs its LoRAs on attention processors. A single block's `qkv_lora` is the first
    three quarters of `linear1`: its MLP has no LoRA."""
    for n in range(DOUBLE_BLOCKS):
        for suffix, side in (("1", "img_attn"), ("2", "txt_attn")):
            block = f"double_blocks.{n}"
            yield f"{prefix}{block}.processor.qkv_lora{suffix}", BY_BFL[f"{block}.{side}.qkv"]
            yield f"{prefix}{block}.processor.proj_lora{suffix}", BY_BFL[f"{block}.{side}.proj"]
    for n in range(SINGLE_BLOCKS):
        block = f"single_blocks.{n}"
        parts = BY_BFL[f"{block}.linear1"].parts[:3]
        yield f"{prefix}{block}.processor.qkv_lora", TargetLayer(HIDDEN, parts[-1].stop, parts)
        yield f"{prefix}{block}.processor.proj_lora", BY_BFL[f"{block}.linear2"]


DIFFUSERS = Format("diffusers", _prefixed("transformer.", BY_PATH))
PEFT = Format(
    "raw PEFT",
    {
        **_prefixed("base_model.model.", BY_PATH),
        **_prefixed("transformer.base_model.model.", BY_PATH),
    },
)
# sd-scripts; some tools write diffusers' names in its manner.
KOHYA = Format("kohya", {**_flat("lora_unet_", BY_BFL), **_flat("lora_unet_", BY_PATH)})
# The bare names of Black Forest Labs: OneTrainer's "original", and BFL's own control LoRAs.
BFL = Format("BFL", dict(BY_BFL))
# A text encoder's part says nothing about the format of the rest.
ENCODERS = Format(
    "text encoder",
    {
        **_flat("lora_te1_", _CLIP),
        **_flat("lora_te_", _CLIP),
        **_flat("lora_te3_", _T5),
        **_flat("lora_te2_", _T5),
        **_prefixed("text_encoder.", _CLIP),
        **_prefixed("text_encoder.", _FLAT_CLIP),
        **_prefixed("text_encoder_2.", _T5),
        **_prefixed("text_encoders.clip_l.transformer.", _CLIP),
        **_prefixed("text_encoders.t5xxl.transformer.", _T5),
    },
)
FORMATS = (
    DIFFUSERS,
    Format("bare diffusers", {**BY_PATH, **_prefixed("unet.", BY_PATH)}),
    PEFT,
    KOHYA,
    Format(
        "ComfyUI",
        {
            **_prefixed("diffusion_model.", BY_BFL),
            **_prefixed("model.diffusion_model.", BY_BFL),
        },
    ),
    BFL,
    Format("fal", _prefixed("base_model.model.", BY_BFL)),
    Format("OneTrainer", _flat("lora_transformer_", BY_PATH)),
    Format("LyCORIS", {**_flat("lycoris_", BY_PATH), **_flat("lycoris_", BY_BFL)}),
    Format("XLabs", {**dict(_xlabs("")), **dict(_xlabs("diffusion_model."))}, _XLABS_SUFFIXES),
    ENCODERS,
)

STEMS: Mapping[str, tuple[KeyPrefix, Mapping[str, TensorRole]]] = {
    text: (KeyPrefix(format.name, text, site), format.suffixes)
    for format in FORMATS
    for text, site in format.stems.items()
}
# Scales of norms that take the place of the base model's: key -> diffusers' path.
NORM_KEYS: Mapping[str, str] = {
    **{f"transformer.{path}.weight": path for path in NORMS},
    **{f"{bfl}.scale": path for path, bfl in NORMS.items()},
}
_ENDINGS = tuple({*SUFFIXES, *_XLABS_SUFFIXES})


@lru_cache(maxsize=16384)  # a file's keys are looked up more than once
def spelled(key: str) -> tuple[KeyPrefix, TensorRole] | None:
    """What a key means: a stem and a piece, or None if no format has it."""
    for ending in _ENDINGS:
        if key.endswith(ending) and (found := STEMS.get(key.removesuffix(ending))):
            stem, suffixes = found
            if ending in suffixes:
                return stem, suffixes[ending]
    return None
