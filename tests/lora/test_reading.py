"""Reading files: what the keys of each format mean, and where the factor of a LoRA comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from support.lora_files import FLOATS, Spec, write
from support.lora_names import HADA, LOKR, MODULES, PAIRS, XLABS_PAIR
from support.lora_tensors import QKV, Q, pair, saved, zeros

from composer.errors import BadLora
from composer.lora import compose, read

if TYPE_CHECKING:
    from pathlib import Path

AB, DEFAULT, DOWN_UP, DOTTED, OLD, LINEAR, BARE = PAIRS
D, S = "transformer_blocks.0", "single_transformer_blocks.0"
IMG_QKV = tuple(f"{D}.attn.to_{part}" for part in "qkv")
TXT_QKV = tuple(f"{D}.attn.add_{part}_proj" for part in "qkv")
SINGLE_QKV = tuple(f"{S}.attn.to_{part}" for part in "qkv")
CLIP = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
T5 = "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q"
T5_WO = "text_encoder_2.encoder.block.23.layer.1.DenseReluDense.wo"

# The format, a stem, its endings, and the modules it changes: keys as trainers write them.
ROWS: tuple[tuple[str, str, tuple[str, str], tuple[str, ...]], ...] = (
    ("diffusers", f"transformer.{D}.attn.to_q", AB, IMG_QKV[:1]),
    ("diffusers", "transformer.proj_out", AB, ("proj_out",)),
    ("diffusers", f"transformer.{S}.proj_out", DEFAULT, (f"{S}.proj_out",)),
    ("diffusers", f"transformer.{D}.ff.net.2", DOTTED, (f"{D}.ff.net.2",)),
    ("diffusers", f"transformer.{D}.attn.to_q", OLD, IMG_QKV[:1]),
    ("diffusers", f"transformer.{D}.attn.to_q", DOWN_UP, IMG_QKV[:1]),
    ("bare diffusers", f"{S}.attn.to_q", DEFAULT, SINGLE_QKV[:1]),
    ("bare diffusers", f"unet.{S}.attn.to_q", AB, SINGLE_QKV[:1]),
    ("raw PEFT", f"base_model.model.{D}.attn.to_q", AB, IMG_QKV[:1]),
    ("raw PEFT", "transformer.base_model.model.norm_out.linear", AB, ("norm_out.linear",)),
    ("kohya", "lora_unet_double_blocks_0_img_attn_qkv", DOWN_UP, IMG_QKV),
    ("kohya", "lora_unet_single_blocks_0_linear1", DOWN_UP, (*SINGLE_QKV, f"{S}.proj_mlp")),
    ("kohya", "lora_unet_final_layer_linear", DOWN_UP, ("proj_out",)),
    ("kohya", "lora_unet_transformer_blocks_0_attn_to_q", DOWN_UP, IMG_QKV[:1]),
    ("ComfyUI", "diffusion_model.double_blocks.0.txt_attn.qkv", AB, TXT_QKV),
    ("ComfyUI", "diffusion_model.double_blocks.0.img_attn.qkv", DOWN_UP, IMG_QKV),
    ("ComfyUI", "model.diffusion_model.single_blocks.0.linear2", AB, (f"{S}.proj_out",)),
    ("BFL", "double_blocks.0.img_attn.qkv", AB, IMG_QKV),
    ("BFL", "guidance_in.in_layer", AB, ("time_text_embed.guidance_embedder.linear_1",)),
    ("fal", "base_model.model.single_blocks.0.linear1", AB, (*SINGLE_QKV, f"{S}.proj_mlp")),
    ("OneTrainer", f"lora_transformer_{S.replace('.', '_')}_attn_to_k", DOWN_UP, SINGLE_QKV[1:2]),
    ("LyCORIS", "lycoris_transformer_blocks_0_attn_to_q", DOWN_UP, IMG_QKV[:1]),
    ("LyCORIS", "lycoris_double_blocks_0_img_attn_qkv", DOWN_UP, IMG_QKV),
    ("XLabs", "double_blocks.0.processor.qkv_lora1", XLABS_PAIR, IMG_QKV),
    ("XLabs", "double_blocks.0.processor.qkv_lora2", XLABS_PAIR, TXT_QKV),
    ("XLabs", "double_blocks.0.processor.proj_lora1", XLABS_PAIR, (f"{D}.attn.to_out.0",)),
    ("XLabs", "double_blocks.0.processor.proj_lora2", XLABS_PAIR, (f"{D}.attn.to_add_out",)),
    ("XLabs", "single_blocks.0.processor.qkv_lora", XLABS_PAIR, SINGLE_QKV),
    (
        "XLabs",
        "diffusion_model.single_blocks.0.processor.proj_lora",
        XLABS_PAIR,
        (f"{S}.proj_out",),
    ),
    ("text encoder", "lora_te1_text_model_encoder_layers_0_mlp_fc1", DOWN_UP, (CLIP,)),
    ("text encoder", "lora_te_text_model_encoder_layers_0_mlp_fc1", DOWN_UP, (CLIP,)),
    ("text encoder", CLIP, AB, (CLIP,)),
    ("text encoder", "text_encoder.encoder.layers.0.mlp.fc1", AB, (CLIP,)),
    (
        "text encoder",
        CLIP.replace("text_encoder.", "text_encoders.clip_l.transformer."),
        AB,
        (CLIP,),
    ),
    ("text encoder", "lora_te3_encoder_block_0_layer_0_SelfAttention_q", DOWN_UP, (T5,)),
    ("text encoder", "lora_te2_encoder_block_23_layer_1_DenseReluDense_wo", DOWN_UP, (T5_WO,)),
    ("text encoder", T5.replace("text_encoder_2.", "text_encoders.t5xxl.transformer."), AB, (T5,)),
    ("text encoder", T5, AB, (T5,)),
)


@pytest.mark.parametrize(("name", "stem", "endings", "modules"), ROWS)
@pytest.mark.parametrize("alpha", [None, 1.0])
def test_each_format(
    tmp_path: Path,
    name: str,
    stem: str,
    endings: tuple[str, str],
    modules: tuple[str, ...],
    alpha: float | None,
) -> None:
    outputs = sum(MODULES[module].outputs for module in modules)
    down, up = zeros(4, MODULES[modules[0]].inputs), zeros(outputs, 4)
    tensors = {stem + endings[0]: down, stem + endings[1]: up}
    if alpha is not None:
        tensors[f"{stem}.alpha"] = np.array(alpha, np.float32)
    lora = read(saved(tmp_path / "a.safetensors", tensors))
    assert (lora.format, lora.kinds, lora.modules) == (name, ("LoRA",), modules)
    assert (lora.ranks, lora.dtypes) == ((4,), ("F32",))
    assert lora.alphas == (() if alpha is None else (alpha,))
    assert [adapter.factor for adapter in lora.adapters] == [1.0 if alpha is None else 0.25]


def test_a_bfl_control_lora(tmp_path: Path) -> None:
    """Twice the input channels, biases, and scales of norms that replace the base model's."""
    query, img_in = "double_blocks.0.img_attn.norm.query_norm.scale", "img_in"
    tensors = {
        f"{img_in}.lora_A.weight": zeros(2, 128),
        f"{img_in}.lora_B.weight": zeros(3072, 2),
        f"{img_in}.lora_B.bias": zeros(3072),
        query: zeros(128),
    }
    lora = read(saved(tmp_path / "control.safetensors", tensors))
    assert (lora.format, lora.modules) == ("BFL", ("x_embedder",))
    assert {path: tensor.name for path, tensor in lora.norms.items()} == {
        "transformer_blocks.0.attn.norm_q": query
    }
    (adapter,) = lora.adapters
    assert [bias.factor for bias in adapter.biases] == [1.0]


# --- kinds -------------------------------------------------------------------------------


def test_loha_is_a_lora_of_the_ranks_product(tmp_path: Path) -> None:
    stem = "lycoris_transformer_blocks_0_attn_to_q"
    shapes = dict(zip(HADA, ((3072, 3), (3, 3072), (3072, 2), (2, 3072)), strict=True))
    tensors = {stem + ending: zeros(*shape) for ending, shape in shapes.items()}
    lora = read(saved(tmp_path / "a", {**tensors, f"{stem}.alpha": np.array(6.0)}))
    assert (lora.format, lora.kinds, lora.ranks) == ("LyCORIS", ("LoHa",), (6,))
    assert lora.adapters[0].factor == 2.0  # alpha / the rank of one product


@pytest.mark.parametrize(
    ("shapes", "rank", "factor"),
    [  # w1, w1_a, w1_b, w2, w2_a, w2_b: alpha is divided by w2_b's rows, else by w1_b's
        (((16, 4), None, None, None, (192, 3), (3, 768)), 12, 2.0),
        ((None, (16, 2), (2, 4), (192, 768), None, None), 2 * 192, 3.0),
        ((None, (16, 2), (2, 4), None, (192, 3), (3, 768)), 6, 2.0),
        (((16, 4), None, None, (192, 768), None, None), 4 * 192, 1.0),
        ((None, (16, 40), (40, 4), None, (192, 3), (3, 768)), 12, 2.0),
        (((1, 1), None, None, None, (3072, 5), (5, 3072)), 5, 1.2),
    ],
)
def test_lokr_is_a_lora_of_the_sides_ranks(
    tmp_path: Path, shapes: tuple[tuple[int, ...] | None, ...], rank: int, factor: float
) -> None:
    stem = "lora_unet_double_blocks_0_img_attn_proj"
    named = zip(LOKR, shapes, strict=True)
    tensors = {stem + ending: zeros(*shape) for ending, shape in named if shape}
    lora = read(saved(tmp_path / "a", {**tensors, f"{stem}.alpha": np.array(6.0)}))
    assert (lora.kinds, lora.ranks, lora.adapters[0].factor) == (("LoKr",), (rank,), factor)


@pytest.mark.parametrize(
    ("ending", "alpha", "factor"), [(".lora_B.bias", 1.0, 0.5), (".diff_b", 1.0, 1.0)]
)
def test_a_bias_of_up_is_scaled_by_alpha_and_a_difference_is_not(
    tmp_path: Path, ending: str, alpha: float, factor: float
) -> None:
    tensors = {**pair(Q), f"{Q}{ending}": zeros(3072), f"{Q}.alpha": np.array(alpha)}
    (adapter,) = read(saved(tmp_path / "a.safetensors", tensors)).adapters
    assert [bias.factor for bias in adapter.biases] == [factor]


def test_a_bias_alone_is_a_lora_too(tmp_path: Path) -> None:
    lora = read(saved(tmp_path / "a.safetensors", {f"{QKV}.diff_b": zeros(9216)}))
    assert (lora.kinds, lora.ranks, lora.modules) == ((), (), IMG_QKV)


def test_formats_and_kinds_may_be_mixed(tmp_path: Path) -> None:
    lycoris = "lycoris_transformer_blocks_1_attn_to_q"
    shapes = dict(zip(HADA, ((3072, 3), (3, 3072), (3072, 2), (2, 3072)), strict=True))
    tensors = {
        **pair("lora_unet_double_blocks_1_img_attn_proj"),
        **pair(Q, dtype=np.float16),
        **{lycoris + ending: zeros(*shape) for ending, shape in shapes.items()},
        **pair("text_encoder.encoder.layers.0.self_attn.q_proj", 768, 768),
    }
    lora = read(saved(tmp_path / "a.safetensors", tensors))
    assert lora.format == "diffusers+kohya+LyCORIS"
    assert (lora.kinds, lora.ranks, lora.dtypes) == (("LoHa", "LoRA"), (2, 6), ("F16", "F32"))
    assert len(lora.modules) == 4


# --- types, alphas and titles ------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FLOATS))
def test_types(tmp_path: Path, name: str) -> None:
    assert read(saved(tmp_path / "a", pair(Q, dtype=FLOATS[name]))).dtypes == (name,)


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("dtype", [*FLOATS.values(), np.int64, np.int32])
def test_alphas(tmp_path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    tensors = {**pair(Q, rank=4), f"{Q}.alpha": np.full(shape, 2, dtype)}
    lora = read(saved(tmp_path / "a.safetensors", tensors))
    assert [adapter.factor for adapter in lora.adapters] == [0.5]
    assert (lora.dtypes, lora.alphas) == (("F32",), (2.0,))


def test_what_the_trainer_notes_about_alpha_counts_for_nothing(tmp_path: Path) -> None:
    stems = {QKV: 4, "lora_unet_img_in": 2}
    notes = {"ss_network_alpha": "1.0", "ss_output_name": "x"}
    lora = read(write(Spec(True, "F16", stems, {QKV: 1.0}, metadata=notes), tmp_path / "a"))
    assert (lora.title, lora.metadata) == ("x", notes)
    assert {a.prefix.text: a.factor for a in lora.adapters} == {QKV: 0.25, "lora_unet_img_in": 1.0}


@pytest.mark.parametrize(
    ("metadata", "title"),
    [
        ({"modelspec.title": "A", "ss_output_name": "B"}, "A"),
        ({"modelspec.title": " ", "ss_output_name": " B "}, "B"),
        ({"ss_output_name": "None"}, None),
        ({}, None),
    ],
)
def test_titles(tmp_path: Path, metadata: dict[str, str], title: str | None) -> None:
    assert read(saved(tmp_path / "a.safetensors", pair(Q), metadata)).title == title


def test_our_own_result_is_read(tmp_path: Path) -> None:
    spec = Spec(False, "F32", {"proj_out": 3, "x_embedder": 2})
    compose([(read(write(spec, tmp_path / "a")), 0.5)], tmp_path / "b", metadata={})
    again = read(tmp_path / "b")
    assert (again.format, again.ranks) == ("diffusers", (2, 3))
    assert {adapter.rank * adapter.factor for adapter in again.adapters} == {2.0}


# --- alphas that do not count ------------------------------------------------------------


@pytest.mark.parametrize("alpha", [np.inf, -np.inf, np.nan, 9999999999.0, 1e300, 1.0])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_alpha_says_nothing_where_both_matrices_of_a_lokr_are_whole(
    tmp_path: Path, alpha: float, dtype: Any
) -> None:
    """Trainers store what they like there, and loaders ignore it."""
    with np.errstate(over="ignore"):
        stored = np.array(alpha).astype(dtype)
    tensors = {f"{Q}.lokr_w1": zeros(4, 4), f"{Q}.lokr_w2": zeros(768, 768), f"{Q}.alpha": stored}
    lora = read(saved(tmp_path / "a.safetensors", tensors))
    assert (lora.adapters[0].factor, lora.notes) == (1.0, ())
    assert lora.alphas == ((1.0,) if alpha == 1 else ())


@pytest.mark.parametrize("alpha", [np.array(np.inf, np.float32), zeros(2, 2), zeros(dtype=np.int8)])
def test_it_says_nothing_about_a_bias_alone(tmp_path: Path, alpha: Any) -> None:
    tensors = {f"{Q}.diff_b": zeros(3072), f"{Q}.alpha": alpha}
    assert read(saved(tmp_path / "a.safetensors", tensors)).alphas == ()


@pytest.mark.parametrize("alpha", [np.inf, 9999999999.0])
def test_it_counts_where_one_of_them_is_a_product(tmp_path: Path, alpha: float) -> None:
    tensors = {
        f"{Q}.lokr_w1": zeros(4, 4),
        f"{Q}.lokr_w2_a": zeros(768, 2),
        f"{Q}.lokr_w2_b": zeros(2, 768),
        f"{Q}.alpha": np.array(alpha, np.float32),
    }
    with pytest.raises(BadLora, match="not a usable number"):
        read(saved(tmp_path / "a.safetensors", tensors))


@pytest.mark.parametrize("stray", [[QKV], [QKV, Q.replace("to_q", "to_k")]])
def test_alphas_of_weights_that_were_pruned_away_are_left_out(
    tmp_path: Path, stray: list[str]
) -> None:
    kept = Q.replace("transformer_blocks.0", "transformer_blocks.5")
    alphas = {f"{stem}.alpha": np.array(np.nan, np.float32) for stem in stray}
    lora = read(saved(tmp_path / "a.safetensors", {**pair(kept), **alphas}))
    assert lora.modules == (kept.removeprefix("transformer."),)
    (note,) = lora.notes
    assert "weights that are not in the file" in note
    assert ("and 1 more" in note) == (len(stray) == 2)
