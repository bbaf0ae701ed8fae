"""Every kind of file and key that is refused: by name, with the key and the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.lora_files import Spec, write
from support.lora_names import NORMS
from support.lora_tensors import QKV, Q, pair, saved, zeros

from composer.errors import BadLora
from composer.lora import read

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
    (pair(Q, 1536, 1536), f"{Q}.lora_B.weight", "made for another model"),
    (pair(Q, 1536, 3072), f"{Q}.lora_A.weight", "3072 inputs: made for another model"),
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
