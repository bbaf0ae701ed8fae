"""The layers of a model, and the formats of LoRA files that spell them: values without arrays.

A source format spells layers as prefixes and the tensors of a LoRA as suffixes; every legal key is
a prefix and a suffix of one format. Reading a file is looking its keys up here, never guessing: the
table that has a key is the format of that key, and mixed files need no rule of their own. An output
format says which layers a result has, how they are spelled, and which module lies where in them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Module:
    """One linear layer: its path (diffusers' name), and the layer of the model's own code that
    holds it.

    `group` and `block` are what reports call the kind of layer and the block that it is in;
    `encoder` is the text encoder that it belongs to. `wider` are numbers of inputs that it has in
    variants of the model.
    """

    path: str
    native: str
    inputs: int
    outputs: int
    group: str
    block: str
    encoder: str | None = None
    wider: tuple[int, ...] = ()

    @property
    def widths(self) -> tuple[int, ...]:
        """How many inputs a LoRA on it may have."""
        return (self.inputs, *self.wider)


@dataclass(frozen=True, slots=True)
class ModuleSlice:
    """Where a module lies in a layer: its first output row, and whether its halves are swapped."""

    module: Module
    start: int = 0
    swapped: bool = False

    @property
    def stop(self) -> int:
        return self.start + self.module.outputs


@dataclass(frozen=True, slots=True)
class TargetLayer:
    """What one LoRA in a file applies to: a module, or several that a format fuses."""

    inputs: int
    outputs: int
    parts: tuple[ModuleSlice, ...]

    @property
    def fused(self) -> bool:
        return len(self.parts) > 1

    @property
    def module(self) -> Module:
        """The first module in it: all of them have the same inputs, block and text encoder."""
        return self.parts[0].module


def alone(module: Module) -> TargetLayer:
    """The layer that is one module."""
    return TargetLayer(module.inputs, module.outputs, (ModuleSlice(module),))


def fused(modules: Iterable[Module], swapped: str = "") -> dict[str, TargetLayer]:
    """The layers of the model's own code by name, each with the modules that it holds; the halves
    of the module with the path `swapped` change places."""
    layers: dict[str, TargetLayer] = {}
    for module in modules:
        before = layers.get(module.native, TargetLayer(module.inputs, 0, ()))
        part = ModuleSlice(module, before.outputs, module.path == swapped)
        layers[module.native] = TargetLayer(module.inputs, part.stop, (*before.parts, part))
    return layers


class TensorRole(StrEnum):
    """What a tensor is. A LoRA's change of the weights is factor * up @ down, and so on."""

    DOWN = "down"  # A, (rank, inputs)
    UP = "up"  # B, (outputs, rank)
    ALPHA = "alpha"  # one number
    BIAS = "bias of up"  # (outputs,), multiplied by the factor as up is
    RESHAPE = "reshape_weight"  # two numbers, the layer's outputs and inputs, as ComfyUI has them
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
    (".lora_A", ".lora_B"),
    (".lora_down.weight", ".lora_up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
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
        ".reshape_weight": TensorRole.RESHAPE,
        **{f".{p.value}": p for p in TensorRole if p.value.startswith(("hada_", "lokr_"))},
    }
)
XLABS_SUFFIXES: Mapping[str, TensorRole] = MappingProxyType(
    {".down.weight": TensorRole.DOWN, ".up.weight": TensorRole.UP, ".alpha": TensorRole.ALPHA}
)


@dataclass(frozen=True, slots=True)
class LoraFacts:
    """What a file holds, all sorted.

    `format` joins the names of several source formats by `+`, and `kinds` are LoRA, LoHa and LoKr.
    `ranks` are those of the tensors as stored, `alphas` what is said about them (none: the factor
    is 1), and `dtypes` the weights', as safetensors names them.
    """

    format: str
    kinds: tuple[str, ...]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    dtypes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SourceFormat:
    """A format's name, its spellings of modules, and its endings for the tensors."""

    name: str
    layers: Mapping[str, TargetLayer]
    suffixes: Mapping[str, TensorRole] = field(default_factory=lambda: SUFFIXES)


@dataclass(frozen=True, slots=True, eq=False)
class KeyPrefix:
    """One LoRA as a file spells it: its tensors are the keys that begin with `text`. There is one
    of each."""

    format: str
    text: str
    layer: TargetLayer
    model: str  # the family's label, for messages


def prefixed(prefix: str, layers: Mapping[str, TargetLayer]) -> dict[str, TargetLayer]:
    return {prefix + name: layer for name, layer in layers.items()}


def underscored(prefix: str, layers: Mapping[str, TargetLayer]) -> dict[str, TargetLayer]:
    """Dots as underscores, as trainers write that name modules by attributes."""
    return {prefix + name.replace(".", "_"): layer for name, layer in layers.items()}


@dataclass(frozen=True, slots=True, eq=False)
class OutputLayer:
    """A layer of an output format: the beginning of its keys, and the modules in it. There is one
    of each."""

    prefix: str
    layer: TargetLayer


@dataclass(frozen=True)
class OutputFormat:
    """How a file spells its layers. `norm` is None where it can't hold the scales of norms.

    `one_alpha`: no layer has an alpha, or all have the same one (the rank rule); otherwise each has
    its rank as alpha. `whole_encoder`: a part for this text encoder comes with all of its layers.
    `silent`: the path of the module that a result without any change has, with zeros.
    """

    name: str
    layers: tuple[OutputLayer, ...]
    down: str
    up: str
    bias: str
    norm: str | None
    one_alpha: bool
    whole_encoder: str | None
    silent: str
    norm_width: int = 0
    implementation: str = "diffusers"  # whose names the keys have, for the Model Spec
    base: str = ""  # sd-scripts' name of the base model
    network: str | None = None  # sd-scripts' name of the module that reads it

    @cached_property
    def by_path(self) -> Mapping[str, tuple[OutputLayer, ModuleSlice]]:
        """Where each module lies."""
        return {
            part.module.path: (layer, part) for layer in self.layers for part in layer.layer.parts
        }

    def metadata(self, ranks: Sequence[int]) -> dict[str, str]:
        """What the format's own tools look for in a file's metadata."""
        if self.network is None:
            return {}
        dimension = str(ranks[0]) if len(ranks) == 1 else "Dynamic"  # as sd-scripts' resize has it
        return {
            "ss_base_model_version": self.base,
            "ss_network_module": self.network,
            "ss_network_dim": dimension,
            "ss_network_alpha": dimension,
        }


class Tagged(StrEnum):
    """What is done about a file that is tagged as a LoRA for a model."""

    USED = "used"
    REFUSED = "refused"
    DOUBTED = "used if it changes a layer of the transformer, with a note"


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A model that metadata may name. `tag` finds its name in one of `names_in` it; `blocks`
    are its numbers of double and single blocks, where they tell it apart."""

    name: str
    tag: re.Pattern[str]
    means: Tagged
    blocks: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a file with a key that fits `pattern` can't be used, and what to do, if anything helps.
    With a `width`, the layer must have it as its inputs or outputs, and not the family's own
    `hidden` one.
    """

    pattern: re.Pattern[str]
    words: str
    hint: str | None = None
    width: int | None = None


@dataclass(frozen=True, eq=False)
class FamilyFiles:
    """What the LoRA files of a model family look like.

    `modules` are in the order of reports, `blocks` the names that they have there. The first of
    `output_formats` is that of compositions. `norm_keys` maps the key of a norm's scale, which has
    `norm_width` numbers, to its path. `encoder_format` is the format whose name is left out where
    a file has another one too. `peft_prefixes` begin the entries of PEFT's configuration.
    `base_models` are what metadata may say that a file is for, the first that fits; `refusals` tell
    by its keys why a file can't be used. `hidden` is the width of the transformer; `encoder_keys`
    finds keys of text encoders, known or not.
    """

    label: str  # the family's name, for messages
    architecture: str  # in the Model Spec
    modules: tuple[Module, ...]
    blocks: tuple[str, ...]
    source_formats: tuple[SourceFormat, ...]
    output_formats: Mapping[str, OutputFormat]
    norm_keys: Mapping[str, str] = field(default_factory=dict)
    norm_width: int = 0
    encoder_format: str | None = None
    peft_prefixes: tuple[str, ...] = ("transformer.",)
    base_models: tuple[BaseModel, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    hidden: int = 0
    encoder_keys: re.Pattern[str] | None = None

    @cached_property
    def prefixes(self) -> Mapping[str, tuple[KeyPrefix, Mapping[str, TensorRole]]]:
        """Each spelling of a layer, with the endings of its tensors."""
        return {
            text: (KeyPrefix(format.name, text, layer, self.label), format.suffixes)
            for format in self.source_formats
            for text, layer in format.layers.items()
        }

    @cached_property
    def endings(self) -> tuple[str, ...]:
        return tuple({ending for format in self.source_formats for ending in format.suffixes})

    def in_encoder(self, key: str) -> bool:
        """Whether this key, known or not, is of a text encoder."""
        meaning = spelled(self, key)
        known = bool(meaning and meaning[0].layer.module.encoder)
        return known or bool(self.encoder_keys and self.encoder_keys.search(key))

    def in_transformer(self, key: str) -> bool:
        """Whether this key is known, and of no text encoder."""
        meaning = spelled(self, key)
        return key in self.norm_keys or bool(meaning and not meaning[0].layer.module.encoder)

    @staticmethod
    def block_numbers(blocks: Iterable[str]) -> dict[str, set[int]]:
        """Kind of block -> the numbers of these blocks; those without a number are left out."""
        numbers: dict[str, set[int]] = {}
        for kind, _, number in (block.partition(" ") for block in blocks):
            if number.isdecimal():
                numbers.setdefault(kind, set()).add(int(number))
        return numbers

    @property
    def output_format(self) -> OutputFormat:
        """The format of compositions."""
        return next(iter(self.output_formats.values()))

    def named_format(self, name: str | None) -> OutputFormat:
        """The output format of this name, by default that of compositions; else `KeyError`."""
        return self.output_format if name is None else self.output_formats[name]

    @cached_property
    def inspected(self) -> OutputFormat:
        """An output format that holds every module, for reports."""
        output_format = self.output_format
        missing = [module for module in self.modules if module.path not in output_format.by_path]
        more = (OutputLayer(module.path, alone(module)) for module in missing)
        return replace(output_format, name="inspected", layers=(*output_format.layers, *more))

    def has_key(self, key: str) -> bool:
        """Whether some format of the family spells a tensor like this."""
        return key in self.norm_keys or spelled(self, key) is not None


# PEFT names the adapter in a key: any name means the same, as long as the file has one.
_NAMED = re.compile(
    r"(.+\.lora_[AB])\.([^.]+)(\.weight|\.bias)|(.+\.(?:hada_w[12]_[ab]|lokr_w[12](?:_[ab])?))\.([^.]+)"
)
# Some tools end kohya's name of a layer with an underscore.
_UNDERSCORE = re.compile(r"([^.]+)_(\.[^_].*)")


def adapter_name(key: str) -> str | None:
    """The name that PEFT gave the adapter, if it is in the key."""
    match = _NAMED.fullmatch(key)
    return (match[2] or match[5]) if match else None


@lru_cache(maxsize=16384)  # a file's keys are looked up more than once
def spelled(files: FamilyFiles, key: str) -> tuple[KeyPrefix, TensorRole] | None:
    """What a key means: a layer and a tensor's role, or None if no format has it."""
    meaning = _in_tables(files, key)
    if meaning is None and (match := _NAMED.fullmatch(key)):
        meaning = _in_tables(files, match[4] or match[1] + match[3])
    if meaning is None and (match := _UNDERSCORE.fullmatch(key)):
        meaning = _in_tables(files, match[1] + match[2])
    return meaning


def _in_tables(files: FamilyFiles, key: str) -> tuple[KeyPrefix, TensorRole] | None:
    for ending in files.endings:
        if key.endswith(ending) and (entry := files.prefixes.get(key.removesuffix(ending))):
            prefix, suffixes = entry
            if ending in suffixes:
                return prefix, suffixes[ending]
    return None
