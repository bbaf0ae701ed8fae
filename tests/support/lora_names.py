"""FLUX.1's layers and how every trainer spells them, written out apart from the engine.

The oracle and the writers of test files know names, shapes and rows from here alone, so that a slip
in the engine's tables shows as a disagreement.
"""

from __future__ import annotations

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


_FLAT_CLIP = {name.removeprefix("text_model."): layer for name, layer in CLIP.items()}
# A format's name, as `read` says it -> its spellings of layers.
FORMATS: Mapping[str, Mapping[str, Layer]] = {
    "diffusers": _dotted("transformer.", DIFFUSERS),
    "bare diffusers": DIFFUSERS | _dotted("unet.", DIFFUSERS),
    "raw PEFT": _dotted("base_model.model.", DIFFUSERS)
    | _dotted("transformer.base_model.model.", DIFFUSERS),
    "kohya": _underscored("lora_unet_", BFL) | _underscored("lora_unet_", DIFFUSERS),
    "ComfyUI": _dotted("diffusion_model.", BFL) | _dotted("model.diffusion_model.", BFL),
    "BFL": BFL,
    "fal": _dotted("base_model.model.", BFL),
    "OneTrainer": _underscored("lora_transformer_", DIFFUSERS),
    "LyCORIS": _underscored("lycoris_", DIFFUSERS) | _underscored("lycoris_", BFL),
    "XLabs": _xlabs("") | _xlabs("diffusion_model."),
    "text encoder": _underscored("lora_te1_", CLIP)
    | _underscored("lora_te_", CLIP)
    | _underscored("lora_te3_", T5)
    | _underscored("lora_te2_", T5)
    | _dotted("text_encoder.", CLIP)
    | _dotted("text_encoder.", _FLAT_CLIP)
    | _dotted("text_encoder_2.", T5)
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
    **{ending: ending for ending in (".alpha", ".diff_b", *HADA, *LOKR)},
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
    for key in (f"transformer.{ours}{name}.weight", f"{theirs}{bfl}.scale")
}


def _meanings() -> Iterator[tuple[str, tuple[str, str]]]:
    for name, layers in FORMATS.items():
        for ending, piece in (XLABS_ENDINGS if name == "XLabs" else ENDINGS).items():
            yield from ((stem + ending, (stem, piece)) for stem in layers)


MEANINGS: Mapping[str, tuple[str, str]] = dict(_meanings())  # every legal key -> stem, piece
