"""FLUX.1: its layers, how each file format spells them, and the formats of a result.

The transformer has 504 layers that a LoRA can change. Black Forest Labs' own names (BFL) fuse some
of them. Control LoRAs bring scales of norms along. A LoRA trained on text too has parts for the
text encoders CLIP-L and T5-XXL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.lora.families.flux1_models import BASE_MODELS, REASONS, TEXT_ENCODER
from composer.lora.formats import (
    XLABS_SUFFIXES,
    FamilyFiles,
    Module,
    ModuleSlice,
    OutputFormat,
    OutputLayer,
    SourceFormat,
    TargetLayer,
    alone,
    fused,
    prefixed,
    underscored,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# --- the transformer's layers ------------------------------------------------------------

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

OTHER, ENCODER = "other layers", "text encoder"  # blocks in reports
# Where nothing is left to compose, the file has this layer, with rank 1 and zeros: every program
# finds it, and it changes nothing.
SILENT = "transformer_blocks.0.attn.to_q"


def _blocks() -> Iterator[tuple[str, str, bool]]:
    """Each block's name, BFL's name of it, and whether it is a double block."""
    for n in range(DOUBLE_BLOCKS):
        yield f"transformer_blocks.{n}", f"double_blocks.{n}", True
    for n in range(SINGLE_BLOCKS):
        yield f"single_transformer_blocks.{n}", f"single_blocks.{n}", False


def _modules() -> Iterator[Module]:
    for block, bfl, double in _blocks():
        for path, name, inputs, outputs in _DOUBLE if double else _SINGLE:
            yield _module(f"{block}.{path}", f"{bfl}.{name}", inputs, outputs)
    for row in _TOP:
        yield _module(*row)


def _module(path: str, bfl: str, inputs: int, outputs: int) -> Module:
    first, _, rest = path.partition(".")
    kind = {"transformer_blocks": "double", "single_transformer_blocks": "single"}.get(first)
    block = f"{kind} {rest.partition('.')[0]}" if kind else OTHER
    return Module(path, bfl, inputs, outputs, _group(path), block, wider=WIDER.get(path, ()))


def _norms() -> Iterator[tuple[str, str]]:
    for block, bfl, double in _blocks():
        for path, name in _DOUBLE_NORMS if double else _SINGLE_NORMS:
            yield f"{block}.{path}", f"{bfl}.{name}"


def _group(path: str) -> str:
    """The kind of layer that the module of this path is, for a report."""
    block, _, rest = path.partition(".")
    if block == "single_transformer_blocks":
        return f"single blocks, {'modulation' if '.norm.' in rest else 'attention and MLP'}"
    if block != "transformer_blocks":
        return "embedders and head"
    if ".norm1" in rest:
        return "double blocks, modulation"
    return f"double blocks, {'MLP' if '.ff' in rest else 'attention'}"


MODULES: tuple[Module, ...] = tuple(_modules())
BY_PATH: Mapping[str, TargetLayer] = {module.path: alone(module) for module in MODULES}
BY_BFL: Mapping[str, TargetLayer] = fused(MODULES, _SWAPPED)
NORMS: Mapping[str, str] = dict(_norms())  # diffusers' path -> BFL's


def _joined(layer: TargetLayer, first: int, last: int) -> TargetLayer:
    """Neighbouring modules of a fused layer as a layer of their own."""
    start = layer.parts[first].start
    parts = (ModuleSlice(p.module, p.start - start) for p in layer.parts[first:last])
    return TargetLayer(layer.inputs, layer.parts[last - 1].stop - start, tuple(parts))


def _bfl_parts() -> Iterator[tuple[str, TargetLayer]]:
    """Names of some tools for parts of BFL's layers: OneTrainer numbers the modules of a fused one,
    ComfyUI has a single block's q, k and v together."""
    for name, layer in BY_BFL.items():
        if layer.fused:
            yield from ((f"{name}.{n}", alone(part.module)) for n, part in enumerate(layer.parts))
        if name.endswith(".linear1"):
            yield f"{name}_qkv", _joined(layer, 0, 3)
    yield "img_in.proj", BY_BFL["img_in"]


def _diffusers_fused() -> Iterator[tuple[str, TargetLayer]]:
    """Diffusers' names for fused projections, after `fuse_qkv_projections`, and SimpleTuner's."""
    for block, bfl, double in _blocks():
        if double:
            yield f"{block}.attn.to_qkv", BY_BFL[f"{bfl}.img_attn.qkv"]
            for name in ("to_added_qkv", "add_qkv_proj"):
                yield f"{block}.attn.{name}", BY_BFL[f"{bfl}.txt_attn.qkv"]
        else:
            yield f"{block}.attn.to_qkv", _joined(BY_BFL[f"{bfl}.linear1"], 0, 3)
            for name in ("to_qkv_mlp", "attn.to_qkv_mlp"):
                yield f"{block}.{name}", BY_BFL[f"{bfl}.linear1"]


# DiffSynth-Studio's own name of a layer, and BFL's, or diffusers' outside the blocks.
_DIFFSYNTH_DOUBLE = (
    ("norm1_a.linear", "img_mod.lin"),
    ("norm1_b.linear", "txt_mod.lin"),
    ("attn.a_to_qkv", "img_attn.qkv"),
    ("attn.b_to_qkv", "txt_attn.qkv"),
    ("attn.a_to_out", "img_attn.proj"),
    ("attn.b_to_out", "txt_attn.proj"),
    ("ff_a.0", "img_mlp.0"),
    ("ff_a.2", "img_mlp.2"),
    ("ff_b.0", "txt_mlp.0"),
    ("ff_b.2", "txt_mlp.2"),
)
_DIFFSYNTH_SINGLE = (
    ("norm.linear", "modulation.lin"),
    ("to_qkv_mlp", "linear1"),
    ("proj_out", "linear2"),
)
_DIFFSYNTH_TOP = (
    ("final_norm_out.linear", "norm_out.linear"),
    ("final_proj_out", "proj_out"),
    ("pooled_text_embedder.0", "time_text_embed.text_embedder.linear_1"),
    ("pooled_text_embedder.2", "time_text_embed.text_embedder.linear_2"),
    ("time_embedder.timestep_embedder.0", "time_text_embed.timestep_embedder.linear_1"),
    ("time_embedder.timestep_embedder.2", "time_text_embed.timestep_embedder.linear_2"),
    ("guidance_embedder.timestep_embedder.0", "time_text_embed.guidance_embedder.linear_1"),
    ("guidance_embedder.timestep_embedder.2", "time_text_embed.guidance_embedder.linear_2"),
)


def _diffsynth() -> Iterator[tuple[str, TargetLayer]]:
    for _, bfl, double in _blocks():
        block = bfl.replace("double_blocks", "blocks")
        for name, native in _DIFFSYNTH_DOUBLE if double else _DIFFSYNTH_SINGLE:
            yield f"{block}.{name}", BY_BFL[f"{bfl}.{native}"]
    for name, path in _DIFFSYNTH_TOP:
        yield name, BY_PATH[path]


# Every name of a layer in the manner of BFL, of diffusers, and of DiffSynth-Studio.
BFL_NAMES: Mapping[str, TargetLayer] = {**BY_BFL, **dict(_bfl_parts())}
DIFFUSERS_NAMES: Mapping[str, TargetLayer] = {**BY_PATH, **dict(_diffusers_fused())}
DIFFSYNTH_NAMES: Mapping[str, TargetLayer] = dict(_diffsynth())

# --- the text encoders -------------------------------------------------------------------

_TEXT = (ENCODER, ENCODER)  # group and block
CLIP, T5 = "CLIP", "T5"
CLIP_LAYERS, T5_BLOCKS = 12, 24
_WIDTH, _INNER = 768, 3072  # CLIP-L
_T5_WIDTH, _T5_INNER = 4096, 10240  # T5-XXL

_CLIP_LAYER = (
    *((f"self_attn.{name}_proj", _WIDTH, _WIDTH) for name in ("q", "k", "v", "out")),
    ("mlp.fc1", _WIDTH, _INNER),
    ("mlp.fc2", _INNER, _WIDTH),
)
_T5_BLOCK = (
    *((f"layer.0.SelfAttention.{name}", _T5_WIDTH, _T5_WIDTH) for name in "qkvo"),
    ("layer.1.DenseReluDense.wi_0", _T5_WIDTH, _T5_INNER),
    ("layer.1.DenseReluDense.wi_1", _T5_WIDTH, _T5_INNER),
    ("layer.1.DenseReluDense.wo", _T5_INNER, _T5_WIDTH),
)


def _clip() -> Iterator[Module]:
    for n in range(CLIP_LAYERS):
        for path, inputs, outputs in _CLIP_LAYER:
            name = f"text_model.encoder.layers.{n}.{path}"
            yield Module(f"text_encoder.{name}", name, inputs, outputs, *_TEXT, CLIP)


def _t5() -> Iterator[Module]:
    for n in range(T5_BLOCKS):
        for path, inputs, outputs in _T5_BLOCK:
            name = f"encoder.block.{n}.{path}"
            yield Module(f"text_encoder_2.{name}", name, inputs, outputs, *_TEXT, T5)


CLIP_MODULES: tuple[Module, ...] = tuple(_clip())
T5_MODULES: tuple[Module, ...] = tuple(_t5())

# --- the formats of files ----------------------------------------------------------------

_CLIP = {module.native: alone(module) for module in CLIP_MODULES}
_T5 = {module.native: alone(module) for module in T5_MODULES}
# transformers 5 has no `text_model` in CLIP any more, and PEFT saves its names.
_FLAT_CLIP = {name.removeprefix("text_model."): layer for name, layer in _CLIP.items()}


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
        yield f"{prefix}{block}.processor.qkv_lora", _joined(BY_BFL[f"{block}.linear1"], 0, 3)
        yield f"{prefix}{block}.processor.proj_lora", BY_BFL[f"{block}.linear2"]


def _all(prefixes: Iterable[str], *names: Mapping[str, TargetLayer]) -> dict[str, TargetLayer]:
    """These names behind each prefix; with underscores for dots behind one that ends with one."""
    layers: dict[str, TargetLayer] = {}
    for prefix in prefixes:
        spell = underscored if prefix.endswith("_") else prefixed
        for one in names:
            layers |= spell(prefix, one)
    return layers


COMFYUI = ("diffusion_model.", "model.diffusion_model.")
# A text encoder's part says nothing about the format of the rest.
ENCODERS = SourceFormat(
    "text encoder",
    {
        **_all(("lora_te1_", "lora_te_"), _CLIP),
        **_all(("lora_te3_", "lora_te2_"), _T5),
        **_all(("text_encoder.",), _CLIP, _FLAT_CLIP),
        **_all(("text_encoder_2.",), _T5),
        **_all(("clip_l.", "text_encoders.clip_l.transformer."), _CLIP),
        **_all(("t5.", "text_encoders.t5xxl.transformer."), _T5),
    },
)
DIFFUSERS_FILES = SourceFormat("diffusers", _all(("transformer.",), DIFFUSERS_NAMES))
# sd-scripts; some tools write diffusers' names in its manner.
KOHYA_FILES = SourceFormat("kohya", _all(("lora_unet_",), BFL_NAMES, DIFFUSERS_NAMES))
FORMATS = (
    DIFFUSERS_FILES,
    SourceFormat("bare diffusers", _all(("", "unet."), DIFFUSERS_NAMES)),
    SourceFormat(
        "raw PEFT",
        _all(("base_model.model.", "transformer.base_model.model."), DIFFUSERS_NAMES),
    ),
    KOHYA_FILES,
    SourceFormat("ComfyUI", _all(COMFYUI, BFL_NAMES, DIFFUSERS_NAMES)),
    # The names of Black Forest Labs: bare in their own control LoRAs, both ways OneTrainer's.
    SourceFormat("BFL", _all(("", "transformer."), BFL_NAMES)),
    SourceFormat("fal", _all(("base_model.model.",), BFL_NAMES)),
    SourceFormat("OneTrainer", _all(("lora_transformer_",), DIFFUSERS_NAMES, BFL_NAMES)),
    SourceFormat("LyCORIS", _all(("lycoris_",), DIFFUSERS_NAMES, BFL_NAMES)),
    SourceFormat("DiffSynth", _all(("", "pipe.dit."), DIFFSYNTH_NAMES)),
    SourceFormat("XLabs", {**dict(_xlabs("")), **dict(_xlabs("diffusion_model."))}, XLABS_SUFFIXES),
    ENCODERS,
)
# Scales of norms that take the place of the base model's: key -> diffusers' path.
NORM_KEYS: Mapping[str, str] = {
    **{f"transformer.{path}.weight": path for path in NORMS},
    **{
        f"{prefix}{bfl}{ending}": path
        for path, bfl in NORMS.items()
        for prefix in ("", *COMFYUI)
        for ending in (".scale", ".set_weight", ".scale.set_weight")
    },
}

# --- the formats of a result -------------------------------------------------------------

# diffusers loads a text encoder's LoRA rightly only where all of its layers are there, and has no
# slot for T5.
DIFFUSERS = OutputFormat(
    "diffusers",
    (
        *(OutputLayer(f"transformer.{path}", layer) for path, layer in BY_PATH.items()),
        *(OutputLayer(module.path, alone(module)) for module in CLIP_MODULES),
    ),
    down=".lora_A.weight",
    up=".lora_B.weight",
    bias=".lora_B.bias",
    norm="transformer.{}.weight",
    one_alpha=True,
    whole_encoder=CLIP,
    silent=SILENT,
    norm_width=HEAD,
)
KOHYA = OutputFormat(
    "kohya",
    tuple(
        OutputLayer(prefix + name.replace(".", "_"), layer)
        for prefix, layers in (
            ("lora_unet_", BY_BFL),
            ("lora_te1_", {module.native: alone(module) for module in CLIP_MODULES}),
            ("lora_te3_", {module.native: alone(module) for module in T5_MODULES}),
        )
        for name, layer in layers.items()
    ),
    down=".lora_down.weight",
    up=".lora_up.weight",
    bias=".diff_b",
    norm=None,
    one_alpha=False,
    whole_encoder=None,
    silent=SILENT,
    norm_width=HEAD,
    implementation="https://github.com/black-forest-labs/flux",
    base="flux1",
    network="networks.lora_flux",
)
OUTPUT_FORMATS: Mapping[str, OutputFormat] = {format.name: format for format in (DIFFUSERS, KOHYA)}

FILES = FamilyFiles(
    label="FLUX.1",
    architecture="flux-1-dev/lora",  # as sd-scripts and the programs that read its files name it
    modules=(*MODULES, *CLIP_MODULES, *T5_MODULES),
    blocks=(
        *(f"double {n}" for n in range(DOUBLE_BLOCKS)),
        *(f"single {n}" for n in range(SINGLE_BLOCKS)),
        OTHER,
        ENCODER,
    ),
    source_formats=FORMATS,
    output_formats=OUTPUT_FORMATS,
    norm_keys=NORM_KEYS,
    norm_width=HEAD,
    encoder_format=ENCODERS.name,
    peft_prefixes=("transformer.", "text_encoder.", "text_encoder_2."),
    base_models=BASE_MODELS,
    refusals=REASONS,
    hidden=HIDDEN,
    encoder_keys=TEXT_ENCODER,
)
