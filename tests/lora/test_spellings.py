"""Spellings of few tools: those with one meaning are read, those with two are refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.lora_checks import LIMITS, check, composed
from support.lora_names import NORMS, STEMS
from support.lora_tensors import QKV, Q, pair, saved, zeros
from support.lora_wild import File, Lora, save

from composer.errors import BadLora
from composer.lora import read
from composer.lora.families import default

if TYPE_CHECKING:
    from pathlib import Path

    from support.lora_tensors import Tensors

D, S = "transformer_blocks.0", "single_transformer_blocks.3"
B, T = "double_blocks.0", "single_blocks.3"
NEW = (".lora_A.weight", ".lora_B.weight")
OLD = (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")
KOHYA = (".lora_down.weight", ".lora_up.weight")
QKV_OF = tuple(f"{D}.attn.to_{x}" for x in "qkv")
ADDED = tuple(f"{D}.attn.add_{x}_proj" for x in "qkv")
SINGLE = tuple(f"{S}.attn.to_{x}" for x in "qkv")
CLIP = "text_model.encoder.layers.3.mlp.fc1"
T5 = "encoder.block.2.layer.0.SelfAttention.q"

ROWS: tuple[tuple[str, str, tuple[str, str], tuple[str, ...]], ...] = (
    # the format, a layer, the endings of its weights, and the modules that it changes
    ("BFL", f"transformer.{B}.img_attn.qkv", NEW, QKV_OF),
    *(("BFL", f"transformer.{B}.img_attn.qkv.{n}", KOHYA, QKV_OF[n : n + 1]) for n in range(3)),
    *(("BFL", f"transformer.{B}.txt_attn.qkv.{n}", KOHYA, ADDED[n : n + 1]) for n in range(3)),
    *(("BFL", f"transformer.{T}.linear1.{n}", KOHYA, SINGLE[n : n + 1]) for n in range(3)),
    ("BFL", f"transformer.{T}.linear1.3", KOHYA, (f"{S}.proj_mlp",)),
    ("BFL", f"{B}.img_attn.qkv.1", NEW, QKV_OF[1:2]),
    ("BFL", "transformer.img_in.proj", KOHYA, ("x_embedder",)),
    ("BFL", "transformer.final_layer.adaLN_modulation.1", KOHYA, ("norm_out.linear",)),
    ("kohya", "lora_unet_double_blocks_0_txt_attn_qkv_2", KOHYA, ADDED[2:]),
    ("kohya", "lora_unet_single_blocks_3_linear1_3", KOHYA, (f"{S}.proj_mlp",)),
    ("LyCORIS", "lycoris_single_blocks_3_linear1_0", KOHYA, SINGLE[:1]),
    (
        "OneTrainer",
        "lora_transformer_double_blocks_0_img_attn_proj",
        KOHYA,
        (f"{D}.attn.to_out.0",),
    ),
    ("ComfyUI", f"diffusion_model.{T}.linear1_qkv", NEW, SINGLE),
    ("ComfyUI", f"model.diffusion_model.{T}.linear1.2", NEW, SINGLE[2:]),
    ("ComfyUI", f"diffusion_model.{D}.attn.to_q", NEW, QKV_OF[:1]),
    ("ComfyUI", "model.diffusion_model.norm_out.linear", NEW, ("norm_out.linear",)),
    ("diffusers", f"transformer.{D}.attn.to_qkv", NEW, QKV_OF),
    ("diffusers", f"transformer.{D}.attn.to_added_qkv", NEW, ADDED),
    ("diffusers", f"transformer.{D}.attn.add_qkv_proj", NEW, ADDED),
    ("diffusers", f"transformer.{S}.attn.to_qkv", NEW, SINGLE),
    ("diffusers", f"transformer.{S}.attn.to_qkv_mlp", NEW, (*SINGLE, f"{S}.proj_mlp")),
    ("bare diffusers", f"{S}.to_qkv_mlp", NEW, (*SINGLE, f"{S}.proj_mlp")),
    ("raw PEFT", f"base_model.model.{D}.attn.to_qkv", NEW, QKV_OF),
    ("kohya", "lora_unet_transformer_blocks_0_attn_add_qkv_proj", KOHYA, ADDED),
    ("DiffSynth", "blocks.0.attn.a_to_qkv", NEW, QKV_OF),
    ("DiffSynth", "pipe.dit.blocks.0.attn.b_to_qkv", NEW, ADDED),
    ("DiffSynth", "single_blocks.3.to_qkv_mlp", NEW, (*SINGLE, f"{S}.proj_mlp")),
    ("DiffSynth", "single_blocks.3.proj_out", NEW, (f"{S}.proj_out",)),
    ("DiffSynth", "blocks.0.ff_b.2", NEW, (f"{D}.ff_context.net.2",)),
    ("DiffSynth", "blocks.0.norm1_b.linear", NEW, (f"{D}.norm1_context.linear",)),
    ("DiffSynth", "final_norm_out.linear", NEW, ("norm_out.linear",)),
    ("diffusers", f"transformer.{D}.attn.to_q", OLD, QKV_OF[:1]),
    ("bare diffusers", f"unet.{D}.attn.to_q", OLD, QKV_OF[:1]),
    ("diffusers", f"transformer.{S}.proj_out", (".lora_A", ".lora_B"), (f"{S}.proj_out",)),
    ("text encoder", f"clip_l.{CLIP}", KOHYA, (f"text_encoder.{CLIP}",)),
    ("text encoder", f"text_encoder.{CLIP}", OLD, (f"text_encoder.{CLIP}",)),
)


@pytest.mark.parametrize(("format", "stem", "endings", "modules"), ROWS)
def test_it_is_read_as_the_layers_that_it_names(
    tmp_path: Path, format: str, stem: str, endings: tuple[str, str], modules: tuple[str, ...]
) -> None:
    source = File((Lora(stem, endings=endings, alpha=3.0),))
    path = save(source, tmp_path / "in")
    assert (read(path).format, set(read(path).modules)) == (format, set(modules))
    check(composed([(path, 0.7)], tmp_path / "out"), [(path, 0.7)], whole_clip=True)


def test_a_part_for_t5_is_kept_by_kohya_s_format(tmp_path: Path) -> None:
    path = save(File((Lora(f"t5.{T5}", endings=KOHYA, alpha=3.0),)), tmp_path / "in")
    check(composed([(path, 0.7)], tmp_path / "out", "kohya"), [(path, 0.7)], whole_clip=False)


@pytest.mark.parametrize("kind", ["plain", "loha", "lokr"])
@pytest.mark.parametrize(
    "options",
    [
        {"adapter": "default_0"},
        {"adapter": "ink-lines"},
        {"underscore": True},
        {"convolutions": True},
        {"adapter": "weight", "convolutions": True},
    ],
)
@pytest.mark.parametrize(
    "stem", ["base_model.model.x_embedder", "lora_unet_time_in_in_layer", "lora_unet_img_in_proj"]
)
def test_names_underscores_and_convolutions(
    tmp_path: Path, kind: str, options: dict[str, object], stem: str
) -> None:
    lora = Lora(stem, kind, ranks=(2, 3), split=(8, 4), whole=(True, False), alpha=3.0)
    path = save(File((lora,), **options), tmp_path / "in")  # type: ignore[arg-type]
    check(composed([(path, -0.7)], tmp_path / "out"), [(path, -0.7)], whole_clip=True)


@pytest.mark.parametrize("kind", ["plain", "loha", "lokr"])
@pytest.mark.parametrize("other", [None, "F16", "F8_E5M2"])
def test_float64_is_written_as_float32(tmp_path: Path, kind: str, other: str | None) -> None:
    loras = [Lora("x_embedder", kind, split=(8, 4), dtype="F64")]
    loras += [Lora("proj_out", dtype=other)] if other else []
    path = save(File(tuple(loras)), tmp_path / "in")
    assert "F64" in read(path).dtypes
    out = composed([(path, 0.7)], tmp_path / "out")
    assert read(out).dtypes == ("F32",)
    check(out, [(path, 0.7)], whole_clip=True)
    for dtype in LIMITS:
        narrow = composed([(path, 0.7)], tmp_path / dtype, dtype=dtype)
        check(narrow, [(path, 0.7)], whole_clip=True)


# --- ComfyUI's form of BFL's control LoRAs -----------------------------------------------

NORM = "double_blocks.0.img_attn.norm.query_norm"


@pytest.mark.parametrize("ending", [".set_weight", ".scale.set_weight", ".scale"])
@pytest.mark.parametrize("prefix", ["diffusion_model.", "model.diffusion_model.", ""])
def test_the_scale_of_a_norm_is_set(tmp_path: Path, prefix: str, ending: str) -> None:
    key = f"{prefix}{NORM}{ending}"
    tensors = {**pair(Q), key: np.full(128, 1.5, np.float32)}
    lora = read(saved(tmp_path / "a.safetensors", tensors))
    assert {path: tensor.name for path, tensor in lora.norms.items()} == {NORMS[key]: key}


def widened(outputs: int, inputs: int) -> Tensors:
    shape = np.array([outputs, inputs])
    return {**pair("diffusion_model.img_in", 128), "diffusion_model.img_in.reshape_weight": shape}


def test_a_shape_that_is_the_weights_own_says_nothing_new(tmp_path: Path) -> None:
    assert read(saved(tmp_path / "a.safetensors", widened(3072, 128))).modules == ("x_embedder",)


@pytest.mark.parametrize(
    "tensors",
    [
        widened(3072, 64),
        widened(128, 3072),
        {**widened(1, 1), "diffusion_model.img_in.reshape_weight": zeros(3)},
    ],
)
def test_another_shape_is_refused(tmp_path: Path, tensors: Tensors) -> None:
    with pytest.raises(BadLora, match=r"img_in\.reshape_weight does not say the shape"):
        read(saved(tmp_path / "a.safetensors", tensors))


# --- two meanings ------------------------------------------------------------------------


def named(stem: str, name: str) -> Tensors:
    return {
        f"{stem}.lora_A.{name}.weight": zeros(2, 3072),
        f"{stem}.lora_B.{name}.weight": zeros(3072, 2),
    }


@pytest.mark.parametrize("second", [Q, Q.replace("to_q", "to_k")])
def test_two_named_adapters_are_refused(tmp_path: Path, second: str) -> None:
    tensors = {**named(Q, "default"), **named(second, "ink")}
    with pytest.raises(BadLora, match=r"holds two adapters, default and ink \(.*\.ink\.weight\)"):
        read(saved(tmp_path / "a.safetensors", tensors))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (pair(QKV, outputs=9216), pair(f"{QKV}_0")),
        (pair(f"transformer.{D}.attn.to_qkv", outputs=9216), pair(Q)),
        (pair(f"transformer.{T}.linear1_qkv", outputs=9216), pair(f"transformer.{T}.linear1.1")),
        (pair("blocks.0.attn.a_to_qkv", outputs=9216), pair(f"{B}.img_attn.qkv.2")),
        (
            pair(f"transformer.{D}.attn.to_added_qkv", outputs=9216),
            pair(f"transformer.{D}.attn.add_qkv_proj", outputs=9216),
        ),
        (pair("img_in", 64), pair("img_in.proj", 64)),
    ],
)
def test_a_layer_that_is_there_twice_is_refused(tmp_path: Path, one: Tensors, two: Tensors) -> None:
    with pytest.raises(BadLora, match=r"has .* twice: as .* and as "):
        read(saved(tmp_path / "a.safetensors", {**one, **two}))


def test_an_underscore_makes_no_second_layer(tmp_path: Path) -> None:
    with pytest.raises(BadLora, match=f"has down twice: as {QKV}"):
        read(
            saved(
                tmp_path / "a.safetensors", pair(QKV, outputs=9216) | pair(f"{QKV}_", outputs=9216)
            )
        )


@pytest.mark.parametrize("shape", [(2, 3072, 3, 3), (2, 3072, 1), (2, 3072, 1, 1, 1)])
def test_other_convolutions_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    tensors = {**pair(Q), f"{Q}.lora_A.weight": zeros(*shape)}
    with pytest.raises(BadLora, match="matrices only"):
        read(saved(tmp_path / "a.safetensors", tensors))


@pytest.mark.parametrize(
    "key",
    [
        f"transformer.{D}.attn.to_q_.alpha",
        f"transformer.{B}.img_attn.qkv.3.alpha",
        f"transformer.{T}.linear1.4.alpha",
        f"transformer.{B}.img_attn.proj.0.alpha",
        f"{Q}.lora_A.a.b.weight",
        f"{Q}.lora_C.ink.weight",
        "blocks.19.attn.a_to_qkv.lora_A.weight",
        f"diffusion_model.{D}.attn.a_to_qkv.alpha",
        f"{QKV}__.alpha",
    ],
)
def test_near_misses_are_not_known(tmp_path: Path, key: str) -> None:
    with pytest.raises(BadLora, match=r"not a known key of a FLUX\.1 LoRA"):
        read(saved(tmp_path / "a.safetensors", {**pair(Q), key: zeros()}))


def test_no_spelling_has_two_layers() -> None:
    formats = default().files.source_formats
    assert len(STEMS) == sum(len(format.layers) for format in formats)
    assert len(default().files.prefixes) == len(STEMS)
