"""LoRA file formats as tables: how each spells modules and tensors.

A format spells modules as stems and the pieces of a LoRA as suffixes; every legal key is a stem
and a suffix of one format. Reading a file is looking its keys up here, never guessing: the table
that has a key is the format of that key, and mixed files need no rule of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from composer.lora.modules import TargetLayer


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
XLABS_SUFFIXES: Mapping[str, TensorRole] = MappingProxyType(
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
    model: str  # the family's label, for messages


def prefixed(prefix: str, sites: Mapping[str, TargetLayer]) -> dict[str, TargetLayer]:
    return {prefix + name: site for name, site in sites.items()}


def flat(prefix: str, sites: Mapping[str, TargetLayer]) -> dict[str, TargetLayer]:
    """Dots as underscores, as trainers write that name modules by attributes."""
    return {prefix + name.replace(".", "_"): site for name, site in sites.items()}
