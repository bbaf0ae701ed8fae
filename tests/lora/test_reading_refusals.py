"""Every kind of file and key that is refused: by name, with the key and the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file
from support.lora_files import Spec, write
from support.lora_names import NORMS
from support.lora_tensors import QKV, Q, pair, saved, zeros

from composer.errors import BadLora
from composer.lora import read
from composer.lora.families import default

if TYPE_CHECKING:
    from pathlib import Path

    from support.lora_tensors import Tensors


def refused(path: Path, *words: str) -> BadLora:
    with pytest.raises(BadLora) as raised:
        read(path)
    for word in (path.name, *words):
        assert word in raised.value.message, raised.value.message
    return raised.value


FLUX_2 = "transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj.lora_A.weight"
ALONE: tuple[tuple[str, str], ...] = (
    # a key that stands beside good LoRAs, and words of the reason
    (f"{QKV}.dora_scale", "DoRA"),
    (f"{Q}.lora_magnitude_vector", "DoRA"),
    (f"{Q}.lora_magnitude_vector.weight", "DoRA"),
    (f"{Q}.magnitude", "DoRA"),
    (f"{QKV}.diff", "full difference"),
    (f"{QKV}.set_weight", "full difference"),
    (f"{QKV}.w_norm", "full difference"),
    (f"{QKV}.b_norm", "full difference"),
    ("lora_unet_double_blocks_0_img_attn_norm_query_norm.diff", "full difference"),
    (f"{QKV}.oft_blocks", "OFT"),
    (f"{QKV}.oft_diag", "OFT"),
    (f"{Q}.oft_R.weight", "OFT"),
    (f"{Q}.boft_R", "OFT"),
    (f"{QKV}.a1.weight", "GLoRA"),
    (f"{QKV}.b2.weight", "GLoRA"),
    (f"{QKV}.lora_mid.weight", "lora_mid"),
    (f"{QKV}.hada_t1", "Tucker"),
    (f"{QKV}.lokr_t2", "Tucker"),
    (f"{Q}.lora_A.bias", "a bias of the down projection"),
    ("bundle_emb.cat.string_to_param.*", "embedding"),
    (FLUX_2, "FLUX.2"),
    ("double_stream_modulation_img.lin.lora_A.weight", "FLUX.2"),
    ("lora_unet_distilled_guidance_layer_in_proj.lora_down.weight", "Chroma"),
    ("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight", "Stable Diffusion 3"),
    ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "SDXL"),
    ("lora_unet_input_blocks_4_1_proj_in.alpha", "SDXL"),
    ("unet.up_blocks.0.attentions.0.to_q.lora_A.weight", "SDXL"),
    ("lora_te2_text_model_encoder_layers_31_mlp_fc1.alpha", "of a text encoder made for another"),
    ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight", "of a text encoder"),
    ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "checkpoint"),
    ("double_blocks.0.img_attn.qkv.bias", "checkpoint"),
    ("transformer_blocks.0.attn.to_q.weight", "checkpoint"),
    ("lora_unet_double_blocks_19_img_attn_qkv.alpha", "not a known key of a FLUX.1 LoRA"),
    ("lora_te1_text_model_encoder_layers_12_mlp_fc1.alpha", "of a text encoder"),
    ("transformer.transformer_blocks.00.attn.to_q.alpha", "not a known key of a FLUX.1 LoRA"),
    ("single_blocks.0.processor.qkv_lora.lora_down.weight", "not a known key of a FLUX.1 LoRA"),
    (f"{Q}.down.weight", "not a known key of a FLUX.1 LoRA"),
    ("diffusion_model.blocks.0.attn.to_q.alpha", "not a known key of a FLUX.1 LoRA"),
    ("extra", "not a known key of a FLUX.1 LoRA"),
    ("", "not a known key of a FLUX.1 LoRA"),
)


@pytest.mark.parametrize(("key", "reason"), ALONE)
def test_a_key_that_is_not_read(tmp_path: Path, key: str, reason: str) -> None:
    tensors = {**pair(Q), **pair(QKV.replace("0_img", "1_img"), outputs=9216), key: zeros(2, 2)}
    refused(saved(tmp_path / "odd.safetensors", tensors), key, reason)


def test_every_model_whose_keys_are_known_is_tried() -> None:
    ending = ": made for another model, not for FLUX.1"
    words = [one.words for one in default().files.refusals if one.words.endswith(ending)]
    names = {one.removesuffix(ending) for one in words} - {"of a text encoder"}
    tried = {name for name in names if any(model in f"{name}:" for *_, model in OTHERS)}
    assert names == tried


# A key of another model, the width of its tensor, and the model.
OTHERS: tuple[tuple[str, int, str], ...] = (
    ("transformer.transformer_blocks.3.attn.to_q.lora_A.weight", 1536, "Stable Diffusion 3:"),
    ("transformer.transformer_blocks.37.attn.to_out.0.lora_A.weight", 2432, "Diffusion 3.5 Large"),
    ("lora_unet_joint_blocks_0_context_block_attn_qkv.alpha", 1, "Stable Diffusion 3:"),
    ("transformer.single_transformer_blocks.0.attn.to_out.lora_A.weight", 6144, "FLUX.2"),
    ("diffusion_model.double_blocks.0.img_attn.proj.lora_A.weight", 6144, "FLUX.2"),
    ("lora_unet_double_blocks_0_img_attn_proj.lora_down.weight", 4096, "FLUX.2"),
    ("transformer.transformer_blocks.0.ff.linear_in.lora_A.weight", 6144, "FLUX.2"),
    ("transformer.transformer_blocks.0.img_mlp.net.0.proj.lora_A.weight", 3072, "Qwen-Image"),
    ("lora_unet_transformer_blocks_0_txt_mod_1.lora_down.weight", 3072, "Qwen-Image"),
    ("transformer.transformer_blocks.59.attn.add_k_proj.lora_A.weight", 3072, "Qwen-Image"),
    ("diffusion_model.blocks.0.self_attn.q.lora_A.weight", 5120, "Wan"),
    ("lora_unet_blocks_39_cross_attn_k_img.lora_down.weight", 5120, "Wan"),
    ("transformer.blocks.0.attn2.to_v.lora_A.weight", 1536, "Wan"),
    ("diffusion_model.blocks.0.self_attn.q_proj.lora_A.weight", 2048, "Cosmos"),
    ("lora_unet_blocks_0_adaln_modulation_mlp_1.lora_down.weight", 2048, "Cosmos"),
    ("diffusion_model.double_blocks.0.img_attn_qkv.lora_A.weight", 3072, "Hunyuan"),
    ("lora_unet_single_blocks_0_modulation_linear.lora_down.weight", 3072, "Hunyuan"),
    ("transformer.context_embedder.token_refiner.refiner_blocks.0.attn.to_q.alpha", 1, "Hunyuan"),
    ("lora_unet_double_stream_blocks_0_block_attn1_to_q.lora_down.weight", 2560, "HiDream"),
    ("diffusion_model.layers.0.attention.qkv.lora_A.weight", 3840, "Z-Image"),
    ("lora_unet_noise_refiner_0_feed_forward_w1.lora_down.weight", 2304, "Lumina"),
    ("transformer.layers.0.self_attention.to_q.lora_A.weight", 3072, "ERNIE-Image"),
    ("diffusion_model.transformer_blocks.0.attn1.to_q.lora_A.weight", 2048, "LTX-Video"),
    ("transformer.transformer_blocks.0.audio_attn1.to_q.lora_A.weight", 2048, "LTX-Video"),
    ("transformer.transformer_blocks.0.attn1.to_q.lora_A.weight", 1152, "PixArt"),
    ("transformer.transformer_blocks.0.attn2.to_k.lora_A.weight", 2240, "Sana"),
    ("transformer.transformer_blocks.0.attn1.add_q_proj.lora_A.weight", 1536, "Mochi"),
    ("transformer.transformer_blocks.0.attn1.to_q.lora_A.weight", 3072, "CogVideoX"),
    ("transformer.joint_transformer_blocks.0.attn.to_q.lora_A.weight", 3072, "AuraFlow"),
    ("lora_unet_single_transformer_blocks_0_ff_linear_1.lora_down.weight", 3072, "AuraFlow"),
    ("visual_transformer_blocks.0.self_attention.to_query.lora_A.weight", 2048, "Kandinsky"),
    ("lora_prior_unet_down_blocks_0_1_kv_mapper_1.lora_down.weight", 2048, "Stable Cascade"),
    ("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight", 640, "SDXL"),
    ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", 4096, "a language model"),
    ("distilled_guidance_layer.in_proj.lora_A.weight", 64, "Chroma"),
    ("transformer.context_embedder.lora_A.weight", 3584, "LongCat-Image"),
    ("transformer.single_transformer_blocks.0.proj_mlp.lora_B.weight", 24576, "Ovis-Image"),
    ("diffusion_model.txt_in.lora_A.weight", 3584, "Qwen-Image"),
    ("diffusion_model.connector.blocks.0.lora_A.weight", 3072, "Step1X-Edit"),
    ("transformer.transformer_blocks.0.attn1.to_q.lora_A.weight", 2560, "GLM-Image"),
    ("transformer.transformer_blocks.3.attn.to_q.hada_w1_b", 1536, "Stable Diffusion 3:"),
    ("transformer.transformer_blocks.3.attn.to_q.hada_w2_a", 2432, "Diffusion 3.5 Large"),
)


@pytest.mark.parametrize(("key", "width", "model"), OTHERS)
def test_a_file_for_another_model_is_refused_by_its_name(
    tmp_path: Path, key: str, width: int, model: str
) -> None:
    shape = (width, 2) if key.endswith(("lora_B.weight", "_a")) else (2, width)
    tensors = {key: zeros() if key.endswith("alpha") else zeros(*shape), **pair(Q)}
    error = refused(saved(tmp_path / "other.safetensors", tensors), f"has {key}", model)
    assert error.message.endswith("made for another model, not for FLUX.1")


@pytest.mark.parametrize("rank", [1536, 2432])
@pytest.mark.parametrize("kind", ["LoRA", "LoHa"])
def test_a_rank_is_no_width_of_another_model(tmp_path: Path, rank: int, kind: str) -> None:
    """As of a LoRA that was extracted from a checkpoint at a high rank."""
    if kind == "LoRA":
        tensors = pair(QKV, outputs=9216, rank=rank, dtype=ml_dtypes.float8_e4m3fn)
    else:
        up, down = (
            zeros(*shape, dtype=ml_dtypes.float8_e4m3fn) for shape in ((9216, rank), (rank, 3072))
        )
        tensors = {f"{QKV}.hada_w{n}_{x}": v for n in "12" for x, v in (("a", up), ("b", down))}
    assert read(saved(tmp_path / "a.safetensors", tensors)).kinds == (kind,)


@pytest.mark.parametrize(("outputs", "inputs"), [(1536, 2), (2, 1536), (6, 768), (768, 6)])
@pytest.mark.parametrize("stem", [Q, "lora_unet_double_blocks_3_img_attn_qkv_1"])
def test_a_part_of_a_lokr_is_no_width_of_another_model(
    tmp_path: Path, stem: str, outputs: int, inputs: int
) -> None:
    tensors = {
        f"{stem}.lokr_w1": zeros(outputs, inputs),
        f"{stem}.lokr_w2": zeros(3072 // outputs, 3072 // inputs),
    }
    assert read(saved(tmp_path / "a.safetensors", tensors)).kinds == ("LoKr",)


def test_no_key_of_a_text_encoder_names_another_model() -> None:
    files = default().files
    (encoders,) = (one for one in files.source_formats if one.name == files.encoder_format)
    others = [one for one in files.refusals if one.words.endswith("not for FLUX.1")][:-1]
    for name in encoders.layers:
        assert files.in_encoder(name) and not any(one.pattern.search(name) for one in others), name
    for name in ("", *files.prefixes):
        layer = files.prefixes[name][0].layer if name else None
        assert files.in_encoder(name) == bool(layer and layer.module.encoder), name


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("lora_unet_double_blocks_0_img_attn_norm_query_norm.diff", "without norms"),
        ("lora_unet_double_blocks_0_img_attn_norm_key_norm.w_norm", "without norms"),
        ("diffusion_model.double_blocks.3.txt_attn.norm.key_norm.diff", "without norms"),
        ("transformer.transformer_blocks.0.attn.norm_added_k.diff_b", "without norms"),
        (f"{QKV}.b_norm", "without norms"),
        (f"{QKV}.diff", "extract a LoRA"),
        (f"{Q}.set_weight", "extract a LoRA"),
        (f"{Q}.dora_scale", "without DoRA"),
        ("lora_te1_text_model_final_layer_norm.w_norm", "--skip-text-encoder"),
        ("lora_te1_text_model_encoder_layers_0_layer_norm1.b_norm", "--skip-text-encoder"),
        ("lora_te2_text_model_encoder_layers_31_mlp_fc1.alpha", "--skip-text-encoder"),
        ("text_encoders.qwen.transformer.model.layers.0.mlp.alpha", "--skip-text-encoder"),
        ("bundle_emb.cat.string_to_param.*", "--skip-text-encoder"),
    ],
)
def test_the_advice_fits_what_is_refused(tmp_path: Path, key: str, hint: str) -> None:
    path = saved(tmp_path / "odd.safetensors", {**pair(Q), key: zeros(2)})
    assert hint in (refused(path, key).hint or "")


def test_an_sdxl_file_is_named_as_that_and_not_by_its_text_encoder(tmp_path: Path) -> None:
    keys = [
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha",
        "lora_unet_input_blocks_4_1_proj_in.alpha",
    ]
    error = refused(saved(tmp_path / "xl.safetensors", dict.fromkeys(keys, zeros())), keys[2])
    assert "SDXL" in error.message


def test_more_keys_are_counted(tmp_path: Path) -> None:
    tensors = {f"{QKV}.{end}": zeros(1) for end in ("oft_blocks", "oft_diag", "oft_x")}
    refused(saved(tmp_path / "a.safetensors", tensors), "and 2 more keys: OFT")
    del tensors[f"{QKV}.oft_x"]
    refused(saved(tmp_path / "b.safetensors", tensors), "and 1 more key: OFT")


def test_norms_alone_are_no_lora(tmp_path: Path) -> None:
    refused(saved(tmp_path / "a", {next(iter(NORMS)): zeros(128)}), "nothing else: not a LoRA")


# --- broken LoRAs ------------------------------------------------------------------------

FC1 = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
NORM = "double_blocks.0.img_attn.norm.query_norm.scale"


def loha(shape1: tuple[int, int], shape2: tuple[int, int], rank: int = 2) -> Tensors:
    return {
        f"{QKV}.hada_w1_a": zeros(shape1[0], rank),
        f"{QKV}.hada_w1_b": zeros(rank, shape1[1]),
        f"{QKV}.hada_w2_a": zeros(shape2[0], rank),
        f"{QKV}.hada_w2_b": zeros(rank, shape2[1]),
    }


LOHA = loha((9216, 3072), (9216, 3072))
LOKR_2 = {f"{Q}.lokr_w2_a": zeros(768, 2), f"{Q}.lokr_w2_b": zeros(3, 768)}
LOKR = {f"{Q}.lokr_w1": zeros(4, 4), f"{Q}.lokr_w2": zeros(768, 768)}
BROKEN: tuple[tuple[Tensors, str, str], ...] = (
    # tensors, the key or module named, and words of the reason
    ({f"{Q}.lora_A.weight": zeros(2, 3072)}, Q, "no up weight"),
    ({f"{Q}.lora_B.weight": zeros(3072, 2)}, Q, "no down weight"),
    ({f"{Q}.alpha": zeros()}, Q, "an alpha and no weights"),
    ({f"{Q}.lora_B.bias": zeros(3072)}, Q, "no down and no up"),
    (pair(Q, 1600, 1600), f"{Q}.lora_B.weight", "made for another model"),
    (pair(Q, 1600, 3072), f"{Q}.lora_A.weight", "3072 inputs: made for another model"),
    (pair(Q, outputs=9216), f"{Q}.lora_B.weight", "3072 outputs"),
    (pair("transformer.x_embedder", inputs=96), "x_embedder", "64 or 128 or 384 inputs"),
    (pair("transformer.proj_out", 15360, 64), "proj_out", "3072 inputs"),
    (pair(QKV, outputs=3072), QKV, "9216 outputs"),
    (pair(FC1, 1280, 5120), FC1, "3072 outputs: made for another model"),
    (pair(Q, rank=0), Q, "have rank 0"),
    ({**pair(Q), f"{Q}.lora_B.weight": zeros(3072, 3)}, Q, "disagree on the rank"),
    (pair("transformer.proj_out", 3072, 64, rank=8193), "proj_out.lora_A", "rank 8,193"),
    ({**pair(Q), f"{Q}.lora_A.weight": zeros(2, 3072, 3, 3)}, Q, "matrices only"),
    ({**pair(Q), f"{Q}.lora_A.weight": zeros(2, 3072, dtype=np.int8)}, Q, "I8"),
    ({**pair(Q), f"{Q}.lora_A.weight": zeros(2, 3072, dtype=np.int32)}, Q, "I32"),
    ({**pair(Q), f"{Q}.diff_b": zeros(9216)}, f"{Q}.diff_b", "3072 outputs"),
    ({**pair(Q), f"{Q}.lora_B.bias": zeros(3072, 1)}, f"{Q}.lora_B.bias", "3072 outputs"),
    ({**pair(FC1, 768), f"{FC1}.diff_b": zeros(3072)}, FC1, "a bias of a text encoder"),
    ({**pair(Q), f"{Q}.alpha": zeros(dtype=np.int8)}, f"{Q}.alpha", "I8"),
    ({**pair(Q), f"{Q}.alpha": zeros(2)}, f"{Q}.alpha", "one number"),
    ({**pair(Q), f"{Q}.alpha": np.array(np.nan, np.float32)}, f"{Q}.alpha", "not a usable number"),
    ({**pair(Q), f"{Q}.alpha": np.array(-np.inf, np.float16)}, f"{Q}.alpha", "not a usable number"),
    ({**pair(Q), f"{Q}.alpha": np.array(1e300)}, f"{Q}.alpha", "not a usable number"),
    ({**pair(Q), f"{Q}.lora_A.default.weight": zeros(2, 3072)}, f"{Q}.lora_A", "down twice"),
    ({**pair(Q), **pair(QKV, outputs=9216)}, IMG_Q := Q[12:], f"as {QKV} and as {Q}"),
    ({**pair(Q), **pair(IMG_Q)}, IMG_Q, f"as {Q} and as {IMG_Q}"),
    (
        {
            **{
                f"single_blocks.0.processor.qkv_lora.{k}.weight": zeros(*s)
                for k, s in (("down", (2, 3072)), ("up", (9216, 2)))
            },
            **pair("lora_unet_single_blocks_0_linear1", outputs=21504),
        },
        "single_transformer_blocks.0.attn.to_q",
        "twice",
    ),
    ({**pair(QKV, outputs=9216), **LOHA}, QKV, "LoRA and LoHa at once"),
    ({**LOKR, f"{Q}.lokr_w1_a": zeros(4, 1)}, Q, "lokr_w1 both whole and in parts"),
    ({f"{Q}.lokr_w1": zeros(4, 4), f"{Q}.lokr_w2_a": zeros(768, 2)}, Q, "no lokr_w2_b"),
    ({f"{Q}.lokr_w2": zeros(768, 768)}, Q, "no lokr_w1_a and no lokr_w1_b"),
    ({**LOKR, f"{Q}.lokr_w2": zeros(768, 767)}, f"{Q}.lokr_w1", "3072 inputs"),
    ({k: v for k, v in LOHA.items() if "w2_b" not in k}, QKV, "no hada_w2_b"),
    (loha((9216, 3072), (9216, 64)), QKV, "two products of different shapes"),
    (loha((3072, 3072), (3072, 3072)), f"{QKV}.hada_w1_a", "9216 outputs"),
    (loha((9216, 64), (9216, 64)), f"{QKV}.hada_w1_b", "3072 inputs"),
    ({**LOHA, f"{QKV}.hada_w1_b": zeros(3, 3072)}, QKV, "disagree on the rank"),
    ({**LOHA, f"{QKV}.hada_w2_b": zeros(3, 3072)}, QKV, "disagree on the rank"),
    ({f"{Q}.lokr_w1": zeros(4, 4), **LOKR_2}, f"{Q}.lokr_w2_b", "disagree on the rank"),
    ({**pair(Q), NORM: zeros(64)}, NORM, "128 weights"),
    ({**pair(Q), NORM: zeros(128, dtype=np.int64)}, NORM, "128 weights"),
    (
        {
            **pair(Q),
            NORM: zeros(128),
            "transformer.transformer_blocks.0.attn.norm_q.weight": zeros(128),
        },
        NORM,
        "transformer_blocks.0.attn.norm_q twice",
    ),
)


@pytest.mark.parametrize(("tensors", "key", "reason"), BROKEN)
def test_broken_loras(tmp_path: Path, tensors: Tensors, key: str, reason: str) -> None:
    refused(saved(tmp_path / "broken.safetensors", tensors), key, reason)


def test_a_file_cut_after_its_header(tmp_path: Path) -> None:
    path = write(Spec(False, "F32", {"proj_out": 2}), tmp_path / "a.safetensors")
    assert load_file(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert refused(path, "is cut short").hint
