"""The layers of FLUX.1 that a LoRA can change: 504 of them, and where each format keeps them.

`MODULES` is the canonical table (diffusers' names and shapes). `BY_PATH` and `BY_BFL` say, for a
name in either vocabulary, which modules it holds: Black Forest Labs' own names fuse some. Formats
build their spellings on these two, and composing addresses modules by their diffusers path. The
norms beside them are no LoRA's business, but BFL's control LoRAs bring new ones along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HIDDEN, MLP = 3072, 12288
DOUBLE_BLOCKS, SINGLE_BLOCKS = 19, 38

# diffusers name, BFL name, inputs, outputs. Rows that share a BFL name are slices of one fused
# layer, in this order from its first output row.
_DOUBLE = (
    ("norm1.linear", "img_mod.lin", HIDDEN, 6 * HIDDEN),
    ("norm1_context.linear", "txt_mod.lin", HIDDEN, 6 * HIDDEN),
    ("attn.to_q", "img_attn.qkv", HIDDEN, HIDDEN),
    ("attn.to_k", "img_attn.qkv", HIDDEN, HIDDEN),
    ("attn.to_v", "img_attn.qkv", HIDDEN, HIDDEN),
    ("attn.add_q_proj", "txt_attn.qkv", HIDDEN, HIDDEN),
    ("attn.add_k_proj", "txt_attn.qkv", HIDDEN, HIDDEN),
    ("attn.add_v_proj", "txt_attn.qkv", HIDDEN, HIDDEN),
    ("attn.to_out.0", "img_attn.proj", HIDDEN, HIDDEN),
    ("attn.to_add_out", "txt_attn.proj", HIDDEN, HIDDEN),
    ("ff.net.0.proj", "img_mlp.0", HIDDEN, MLP),
    ("ff.net.2", "img_mlp.2", MLP, HIDDEN),
    ("ff_context.net.0.proj", "txt_mlp.0", HIDDEN, MLP),
    ("ff_context.net.2", "txt_mlp.2", MLP, HIDDEN),
)
_SINGLE = (
    ("norm.linear", "modulation.lin", HIDDEN, 3 * HIDDEN),
    ("attn.to_q", "linear1", HIDDEN, HIDDEN),
    ("attn.to_k", "linear1", HIDDEN, HIDDEN),
    ("attn.to_v", "linear1", HIDDEN, HIDDEN),
    ("proj_mlp", "linear1", HIDDEN, MLP),
    ("proj_out", "linear2", HIDDEN + MLP, HIDDEN),
)
_TOP = (
    ("x_embedder", "img_in", 64, HIDDEN),
    ("context_embedder", "txt_in", 4096, HIDDEN),
    ("time_text_embed.timestep_embedder.linear_1", "time_in.in_layer", 256, HIDDEN),
    ("time_text_embed.timestep_embedder.linear_2", "time_in.out_layer", HIDDEN, HIDDEN),
    ("time_text_embed.text_embedder.linear_1", "vector_in.in_layer", 768, HIDDEN),
    ("time_text_embed.text_embedder.linear_2", "vector_in.out_layer", HIDDEN, HIDDEN),
    ("time_text_embed.guidance_embedder.linear_1", "guidance_in.in_layer", 256, HIDDEN),
    ("time_text_embed.guidance_embedder.linear_2", "guidance_in.out_layer", HIDDEN, HIDDEN),
    ("norm_out.linear", "final_layer.adaLN_modulation.1", HIDDEN, 2 * HIDDEN),
    ("proj_out", "final_layer.linear", HIDDEN, 64),
)
# BFL keeps (shift, scale) there, diffusers (scale, shift): the halves of the rows change places.
_SWAPPED = "norm_out.linear"

# Control and fill models read more channels than the 64 of the base: a LoRA for them is wider.
WIDER = {"x_embedder": (128, 384)}

# diffusers name, BFL name of the norms over a head's 128 numbers.
HEAD = 128
_DOUBLE_NORMS = (
    ("attn.norm_q", "img_attn.norm.query_norm"),
    ("attn.norm_k", "img_attn.norm.key_norm"),
    ("attn.norm_added_q", "txt_attn.norm.query_norm"),
    ("attn.norm_added_k", "txt_attn.norm.key_norm"),
)
_SINGLE_NORMS = (("attn.norm_q", "norm.query_norm"), ("attn.norm_k", "norm.key_norm"))


@dataclass(frozen=True, slots=True)
class Module:
    """One linear layer of `FluxTransformer2DModel`, and the BFL layer that holds it."""

    path: str
    bfl: str
    inputs: int
    outputs: int

    @property
    def widths(self) -> tuple[int, ...]:
        """How many inputs a LoRA on it may have."""
        return (self.inputs, *WIDER.get(self.path, ()))


@dataclass(frozen=True, slots=True)
class Part:
    """Where a module lies in a site: its first output row, and whether its halves are swapped."""

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
    parts: tuple[Part, ...]

    @property
    def fused(self) -> bool:
        return len(self.parts) > 1


def _blocks() -> Iterator[tuple[str, str, bool]]:
    """Each block's name, BFL's name of it, and whether it is a double block."""
    for n in range(DOUBLE_BLOCKS):
        yield f"transformer_blocks.{n}", f"double_blocks.{n}", True
    for n in range(SINGLE_BLOCKS):
        yield f"single_transformer_blocks.{n}", f"single_blocks.{n}", False


def _modules() -> Iterator[Module]:
    for block, bfl, double in _blocks():
        for path, name, inputs, outputs in _DOUBLE if double else _SINGLE:
            yield Module(f"{block}.{path}", f"{bfl}.{name}", inputs, outputs)
    for row in _TOP:
        yield Module(*row)


def _norms() -> Iterator[tuple[str, str]]:
    for block, bfl, double in _blocks():
        for path, name in _DOUBLE_NORMS if double else _SINGLE_NORMS:
            yield f"{block}.{path}", f"{bfl}.{name}"


def group_of(path: str) -> str:
    """The kind of layer that the module of this path is, for a report."""
    block, _, rest = path.partition(".")
    if block == "single_transformer_blocks":
        return f"single blocks, {'modulation' if '.norm.' in rest else 'attention and MLP'}"
    if block != "transformer_blocks":
        return "text encoder" if block.startswith("text_encoder") else "embedders and head"
    if ".norm1" in rest:
        return "double blocks, modulation"
    return f"double blocks, {'MLP' if '.ff' in rest else 'attention'}"


def alone(module: Module) -> TargetLayer:
    """The site that is one module."""
    return TargetLayer(module.inputs, module.outputs, (Part(module),))


def _bfl_sites() -> dict[str, TargetLayer]:
    sites: dict[str, TargetLayer] = {}
    for module in MODULES:
        before = sites.get(module.bfl, TargetLayer(module.inputs, 0, ()))
        part = Part(module, before.outputs, module.path == _SWAPPED)
        sites[module.bfl] = TargetLayer(module.inputs, part.stop, (*before.parts, part))
    return sites


MODULES: tuple[Module, ...] = tuple(_modules())
BY_PATH: Mapping[str, TargetLayer] = {module.path: alone(module) for module in MODULES}
BY_BFL: Mapping[str, TargetLayer] = _bfl_sites()
NORMS: Mapping[str, str] = dict(_norms())  # diffusers' path -> BFL's
