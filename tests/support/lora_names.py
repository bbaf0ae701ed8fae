"""FLUX.1's layers and how every trainer spells them, written out apart from the engine.

The oracle and the writers of test files know names, shapes and rows from here alone, so that a slip
in the engine's tables shows as a disagreement.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# diffusers' name, BFL's name, inputs, outputs, first row in BFL's layer.
_DOUBLE = """
norm1.linear          img_mod.lin    3072 18432    0
norm1_context.linear  txt_mod.lin    3072 18432    0
attn.to_q             img_attn.qkv   3072  3072    0
attn.to_k             img_attn.qkv   3072  3072 3072
attn.to_v             img_attn.qkv   3072  3072 6144
attn.add_q_proj       txt_attn.qkv   3072  3072    0
attn.add_k_proj       txt_attn.qkv   3072  3072 3072
attn.add_v_proj       txt_attn.qkv   3072  3072 6144
attn.to_out.0         img_attn.proj  3072  3072    0
attn.to_add_out       txt_attn.proj  3072  3072    0
ff.net.0.proj         img_mlp.0      3072 12288    0
ff.net.2              img_mlp.2     12288  3072    0
ff_context.net.0.proj txt_mlp.0      3072 12288    0
ff_context.net.2      txt_mlp.2     12288  3072    0
"""
_SINGLE = """
norm.linear           modulation.lin 3072  9216    0
attn.to_q             linear1        3072  3072    0
attn.to_k             linear1        3072  3072 3072
attn.to_v             linear1        3072  3072 6144
proj_mlp              linear1        3072 12288 9216
proj_out              linear2       15360  3072    0
"""
_TOP = """
x_embedder                                    img_in                  64 3072 0
context_embedder                              txt_in                4096 3072 0
time_text_embed.timestep_embedder.linear_1    time_in.in_layer       256 3072 0
time_text_embed.timestep_embedder.linear_2    time_in.out_layer     3072 3072 0
time_text_embed.text_embedder.linear_1        vector_in.in_layer     768 3072 0
time_text_embed.text_embedder.linear_2        vector_in.out_layer   3072 3072 0
time_text_embed.guidance_embedder.linear_1    guidance_in.in_layer   256 3072 0
time_text_embed.guidance_embedder.linear_2    guidance_in.out_layer 3072 3072 0
norm_out.linear                     final_layer.adaLN_modulation.1  3072 6144 0
proj_out                                      final_layer.linear    3072   64 0
"""
_CLIP = """
self_attn.q_proj    768  768
self_attn.k_proj    768  768
self_attn.v_proj    768  768
self_attn.out_proj  768  768
mlp.fc1             768 3072
mlp.fc2            3072  768
"""
_T5 = """
layer.0.SelfAttention.q       4096  4096
layer.0.SelfAttention.k       4096  4096
layer.0.SelfAttention.v       4096  4096
layer.0.SelfAttention.o       4096  4096
layer.1.DenseReluDense.wi_0   4096 10240
layer.1.DenseReluDense.wi_1   4096 10240
layer.1.DenseReluDense.wo    10240  4096
"""
_NORMS = {
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
}
_SINGLE_NORMS = {"attn.norm_q": "norm.query_norm", "attn.norm_k": "norm.key_norm"}


@dataclass(frozen=True)
class Layer:
    """What one LoRA applies to. `parts`: module -> its rows in this layer, in its own order."""

    inputs: int
    outputs: int
    parts: Mapping[str, tuple[slice, ...]]


def _rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


def _transformer() -> Iterator[tuple[str, str, int, int, int]]:
    blocks = [(f"transformer_blocks.{n}.", f"double_blocks.{n}.", _DOUBLE) for n in range(19)]
    blocks += [
        (f"single_transformer_blocks.{n}.", f"single_blocks.{n}.", _SINGLE) for n in range(38)
    ]
    for ours, theirs, text in [*blocks, ("", "", _TOP)]:
        for name, bfl, inputs, outputs, first in _rows(text):
            yield ours + name, theirs + bfl, int(inputs), int(outputs), int(first)


def _encoder(prefix: str, blocks: str, count: int, text: str) -> dict[str, Layer]:
    """Names within the encoder; the module is that with the pipeline's name of it before."""
    names = {
        f"{blocks}.{n}.{name}": (int(inputs), int(outputs))
        for n in range(count)
        for name, inputs, outputs in _rows(text)
    }
    return {
        name: Layer(inputs, outputs, {f"{prefix}.{name}": (slice(0, outputs),)})
        for name, (inputs, outputs) in names.items()
    }


def _bfl() -> dict[str, Layer]:
    found: dict[str, Layer] = {}
    for module, name, inputs, outputs, first in _transformer():
        rows: tuple[slice, ...] = (slice(first, first + outputs),)
        if module == "norm_out.linear":  # (shift, scale) there, (scale, shift) here
            rows = (slice(3072, 6144), slice(0, 3072))
        parts = {**(found[name].parts if name in found else {}), module: rows}
        found[name] = Layer(inputs, first + outputs, parts)
    return found


DIFFUSERS = {
    module: Layer(inputs, outputs, {module: (slice(0, outputs),)})
    for module, _, inputs, outputs, _ in _transformer()
}
BFL = _bfl()
CLIP = _encoder("text_encoder", "text_model.encoder.layers", 12, _CLIP)
T5 = _encoder("text_encoder_2", "encoder.block", 24, _T5)
MODULES = {next(iter(layer.parts)): layer for layer in (*CLIP.values(), *T5.values())} | DIFFUSERS


def _dotted(prefix: str, layers: Mapping[str, Layer]) -> dict[str, Layer]:
    return {prefix + name: layer for name, layer in layers.items()}


def _underscored(prefix: str, layers: Mapping[str, Layer]) -> dict[str, Layer]:
    return {prefix + name.replace(".", "_"): layer for name, layer in layers.items()}


def _xlabs(prefix: str) -> dict[str, Layer]:
    found = {}
    for n in range(19):
        for digit, side in (("1", "img"), ("2", "txt")):
            stem = f"{prefix}double_blocks.{n}.processor"
            found[f"{stem}.qkv_lora{digit}"] = BFL[f"double_blocks.{n}.{side}_attn.qkv"]
            found[f"{stem}.proj_lora{digit}"] = BFL[f"double_blocks.{n}.{side}_attn.proj"]
    for n in range(38):
        whole = BFL[f"single_blocks.{n}.linear1"].parts
        first = {module: rows for module, rows in whole.items() if not module.endswith("proj_mlp")}
        found[f"{prefix}single_blocks.{n}.processor.qkv_lora"] = Layer(3072, 9216, first)
        found[f"{prefix}single_blocks.{n}.processor.proj_lora"] = BFL[f"single_blocks.{n}.linear2"]
    return found


def _parts() -> dict[str, Layer]:
    """Parts of BFL's layers: OneTrainer's numbers, and ComfyUI's name of q, k and v together."""
    found = {}
    for name, layer in BFL.items():
        if len(layer.parts) > 1:
            for number, module in enumerate(layer.parts):
                found[f"{name}.{number}"] = DIFFUSERS[module]
        if name.endswith("linear1"):
            found[f"{name}_qkv"] = _first_three(layer)
    return {**found, "img_in.proj": DIFFUSERS["x_embedder"]}


def _first_three(layer: Layer) -> Layer:
    return Layer(3072, 9216, {m: r for m, r in layer.parts.items() if not m.endswith("mlp")})


def _fused() -> dict[str, Layer]:
    """Fused projections among diffusers' names."""
    found = {}
    for n in range(19):
        ours, theirs = f"transformer_blocks.{n}.attn", f"double_blocks.{n}"
        found[f"{ours}.to_qkv"] = BFL[f"{theirs}.img_attn.qkv"]
        found[f"{ours}.to_added_qkv"] = BFL[f"{theirs}.txt_attn.qkv"]
        found[f"{ours}.add_qkv_proj"] = BFL[f"{theirs}.txt_attn.qkv"]
    for n in range(38):
        ours, whole = f"single_transformer_blocks.{n}", BFL[f"single_blocks.{n}.linear1"]
        found[f"{ours}.attn.to_qkv"] = _first_three(whole)
        found[f"{ours}.attn.to_qkv_mlp"] = found[f"{ours}.to_qkv_mlp"] = whole
    return found


_SYNTH_BLOCK = """
blocks norm1_a.linear        double_blocks img_mod.lin
blocks norm1_b.linear        double_blocks txt_mod.lin
blocks attn.a_to_qkv         double_blocks img_attn.qkv
blocks attn.b_to_qkv         double_blocks txt_attn.qkv
blocks attn.a_to_out         double_blocks img_attn.proj
blocks attn.b_to_out         double_blocks txt_attn.proj
blocks ff_a.0                double_blocks img_mlp.0
blocks ff_a.2                double_blocks img_mlp.2
blocks ff_b.0                double_blocks txt_mlp.0
blocks ff_b.2                double_blocks txt_mlp.2
single_blocks norm.linear    single_blocks modulation.lin
single_blocks to_qkv_mlp     single_blocks linear1
single_blocks proj_out       single_blocks linear2
"""
_SYNTH_TOP = """
final_norm_out.linear                   norm_out.linear
final_proj_out                          proj_out
pooled_text_embedder.0                  time_text_embed.text_embedder.linear_1
pooled_text_embedder.2                  time_text_embed.text_embedder.linear_2
time_embedder.timestep_embedder.0       time_text_embed.timestep_embedder.linear_1
time_embedder.timestep_embedder.2       time_text_embed.timestep_embedder.linear_2
guidance_embedder.timestep_embedder.0   time_text_embed.guidance_embedder.linear_1
guidance_embedder.timestep_embedder.2   time_text_embed.guidance_embedder.linear_2
"""


def _synth() -> dict[str, Layer]:
    found = {name: DIFFUSERS[path] for name, path in _rows(_SYNTH_TOP)}
    for blocks, name, theirs, bfl in _rows(_SYNTH_BLOCK):
        for n in range(19 if theirs == "double_blocks" else 38):
            found[f"{blocks}.{n}.{name}"] = BFL[f"{theirs}.{n}.{bfl}"]
    return found


_FLAT_CLIP = {name.removeprefix("text_model."): layer for name, layer in CLIP.items()}
_D, _B, _S = DIFFUSERS | _fused(), BFL | _parts(), _synth()
# A format's name, as `read` says it -> its spellings of layers.
FORMATS: Mapping[str, Mapping[str, Layer]] = {
    "diffusers": _dotted("transformer.", _D),
    "bare diffusers": _D | _dotted("unet.", _D),
    "raw PEFT": _dotted("base_model.model.", _D) | _dotted("transformer.base_model.model.", _D),
    "kohya": _underscored("lora_unet_", _B | _D),
    "ComfyUI": _dotted("diffusion_model.", _B | _D) | _dotted("model.diffusion_model.", _B | _D),
    "BFL": _B | _dotted("transformer.", _B),
    "fal": _dotted("base_model.model.", _B),
    "OneTrainer": _underscored("lora_transformer_", _D | _B),
    "LyCORIS": _underscored("lycoris_", _D | _B),
    "DiffSynth": _S | _dotted("pipe.dit.", _S),
    "XLabs": _xlabs("") | _xlabs("diffusion_model."),
    "text encoder": _underscored("lora_te1_", CLIP)
    | _underscored("lora_te_", CLIP)
    | _underscored("lora_te3_", T5)
    | _underscored("lora_te2_", T5)
    | _dotted("text_encoder.", CLIP)
    | _dotted("text_encoder.", _FLAT_CLIP)
    | _dotted("text_encoder_2.", T5)
    | _dotted("clip_l.", CLIP)
    | _dotted("t5.", T5)
    | _dotted("text_encoders.clip_l.transformer.", CLIP)
    | _dotted("text_encoders.t5xxl.transformer.", T5),
}
STEMS = {stem: layer for layers in FORMATS.values() for stem, layer in layers.items()}

# What follows a stem. Any pair occurs with any stem but XLabs', which has one of its own.
PAIRS = (
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora_down.weight", ".lora_up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    (".lora_A", ".lora_B"),
)
XLABS_PAIR = (".down.weight", ".up.weight")
HADA = (".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b")
LOKR = (".lokr_w1", ".lokr_w1_a", ".lokr_w1_b", ".lokr_w2", ".lokr_w2_a", ".lokr_w2_b")
PEFT_BIAS = (".lora_B.bias", ".lora_B.default.bias")
# An ending -> what it means, by the first way to spell that.
ENDINGS: Mapping[str, str] = {
    **{down: "down" for down, _ in PAIRS},
    **{up: "up" for _, up in PAIRS},
    **dict.fromkeys(PEFT_BIAS, ".lora_B.bias"),
    **{ending: ending for ending in (".alpha", ".diff_b", ".reshape_weight", *HADA, *LOKR)},
}
XLABS_ENDINGS: Mapping[str, str] = {XLABS_PAIR[0]: "down", XLABS_PAIR[1]: "up", ".alpha": ".alpha"}

NORMS: Mapping[str, str] = {  # key -> diffusers' name of the norm whose scale it replaces
    key: f"{ours}{name}"
    for ours, theirs, norms in (
        *((f"transformer_blocks.{n}.", f"double_blocks.{n}.", _NORMS) for n in range(19)),
        *(
            (f"single_transformer_blocks.{n}.", f"single_blocks.{n}.", _SINGLE_NORMS)
            for n in range(38)
        ),
    )
    for name, bfl in norms.items()
    for key in (
        f"transformer.{ours}{name}.weight",
        *(
            f"{prefix}{theirs}{bfl}{ending}"
            for prefix in ("", "diffusion_model.", "model.diffusion_model.")
            for ending in (".scale", ".set_weight", ".scale.set_weight")
        ),
    )
}


def _meanings() -> Iterator[tuple[str, tuple[str, str]]]:
    for name, layers in FORMATS.items():
        for ending, piece in (XLABS_ENDINGS if name == "XLabs" else ENDINGS).items():
            yield from ((stem + ending, (stem, piece)) for stem in layers)


MEANINGS: Mapping[str, tuple[str, str]] = dict(_meanings())  # every legal key -> stem, piece


def meaning(key: str) -> tuple[str, str] | None:
    """Stem and piece of a key as any tool writes it: an adapter's name may be in it, and an
    underscore after kohya's name of a layer."""
    unnamed = re.sub(r"(\.lora_[AB])\.[^.]+(\.weight|\.bias)$", r"\1\2", key)
    unnamed = re.sub(r"(\.(hada_w\d_[ab]|lokr_w\d(_[ab])?))\.[^.]+$", r"\1", unnamed)
    ended = re.sub(r"^([^.]+)_(\.[^_])", r"\1\2", key)
    return next((MEANINGS[k] for k in (key, unnamed, ended) if k in MEANINGS), None)
