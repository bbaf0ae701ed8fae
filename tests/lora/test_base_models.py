"""What metadata says that a LoRA is for, against what its names and shapes can be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.cli import compose
from support.lora_tensors import Q, pair, saved

from composer.errors import BadLora
from composer.lora import inspect, merge, read
from composer.lora.families import default
from composer.lora.formats import Tagged

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from support.lora_tensors import Tensors

KEYS = ("modelspec.architecture", "ss_base_model_version", "base_model")
CLIP = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
# A tag as trainers write it, and the name that the refusal has.
OTHERS = (
    ("Flux.2-dev/lora", "FLUX.2"),
    ("flux2", "FLUX.2"),
    ("black-forest-labs/FLUX.2-klein-4B", "FLUX.2"),
    ("Flux2Transformer2DModel", "FLUX.2"),
    ("chroma", "Chroma"),
    ("Chroma1-HD/lora", "Chroma"),
    ("longcat_image", "LongCat-Image"),
    ("meituan-longcat/LongCat-Image", "LongCat-Image"),
    ("LongCatImageTransformer2DModel", "LongCat-Image"),
    ("ovis_image", "Ovis-Image"),
    ("AIDC-AI/Ovis-Image-7B", "Ovis-Image"),
    ("bria", "Bria"),
    ("briaai/BRIA-3.2", "Bria"),
    ("briaai/FIBO", "Bria FIBO"),
    ("step1x-edit", "Step1X-Edit"),
    ("qwen_image", "Qwen-Image"),
    ("Qwen-Image-Edit-2511/lora", "Qwen-Image"),
    ("hunyuan-video", "Hunyuan"),
    ("HunyuanImage-2.1", "Hunyuan"),
    ("wan2.1", "Wan"),
    ("wan_2.2_14b", "Wan"),
    ("WanTransformer3DModel", "Wan"),
    ("Z-Image/lora", "Z-Image"),
    ("zimage", "Z-Image"),
    ("krea2", "Krea 2"),
    ("auraflow", "AuraFlow"),
    ("pony-v7", "AuraFlow"),
    ("hidream_i1", "HiDream"),
    ("lumina2", "Lumina"),
    ("omnigen2", "OmniGen"),
    ("ltx2", "LTX-Video"),
    ("cosmos_predict2", "Cosmos"),
    ("CogVideoX-5b", "CogVideoX or CogView"),
    ("mochi-1", "Mochi"),
    ("PixArt-Sigma-XL", "PixArt"),
    ("sana_1600m", "Sana"),
    ("Kolors", "Kolors"),
    ("kandinsky5", "Kandinsky"),
    ("ernie-image", "ERNIE-Image"),
    ("GLM-Image", "GLM-Image"),
    ("stable-cascade", "Stable Cascade"),
    ("lllyasviel/FramePackI2V_HY", "FramePack"),
    ("framepack", "FramePack"),
    ("Skywork/SkyReels-V2-T2V-14B-720P", "SkyReels"),
    ("Freepik/F-Lite", "F-Lite"),
    ("deepfloyd-if", "DeepFloyd IF"),
    ("ACE-Step-v1-3.5B", "ACE-Step"),
    # Paths, in which the name of a part of the model comes last, or a revision.
    ("/models/LongCat-Image/transformer", "LongCat-Image"),
    ("./Qwen-Image/transformer/diffusion_pytorch_model-00001-of-00009.safetensors", "Qwen-Image"),
    ("~/hf/Chroma1-HD/unet/", "Chroma"),
    ("Qwen/Qwen-Image/transformer", "Qwen-Image"),
    ("C:\\hub\\models--Wan-AI--Wan2.1-T2V-14B\\snapshots\\9f8e7d6c5b4a", "Wan"),
    (
        "/root/.cache/huggingface/hub/models--black-forest-labs--FLUX.2-dev/snapshots/"
        "26afd3c4dd8d9d0d6d1fae1ce5ab1d0c6d1b0a73",
        "FLUX.2",
    ),
    ("models--meituan-longcat--LongCat-Image/snapshots/0123/transformer", "LongCat-Image"),
    ("hub/models--briaai--FIBO/snapshots/main/weights.safetensors", "Bria FIBO"),
    ("https://huggingface.co/AIDC-AI/Ovis-Image-7B/tree/main", "Ovis-Image"),
    ("/work/flux/checkpoint-500/chroma.safetensors", "Chroma"),
    ("Wan-AI/T2V-14B", "Wan"),  # where the name says nothing, the organisation does
    ("D:\\models\\chroma-hd.safetensors", "Chroma"),
)
# Widths that no other model's layer of the same name has.
DOUBTED = ("sd_1.5", "sdxl_1.0", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", "sd_3", "SD")
FLUX = (
    "flux1",
    "flux.1",
    "flux-1-dev/lora",
    "Flux.1-dev/lora",
    "flux",
    "flux.1_kontext",
    "black-forest-labs/FLUX.1-Krea-dev",
    "FluxTransformer2DModel",
    "flex.1",
    "ostris/Flex.2-preview",
    "/home/wan/models/flux1-dev.safetensors",
    "C:\\qwen\\flux1-dev.safetensors",
    "./models/qwen-captions/FLUX.1-dev",
    "models/wan/flux1-dev.safetensors",
    "wan/flux1-dev.safetensors",
    "../chroma/FLUX.1-dev/transformer",
    "qwen\\flux1-dev.safetensors",
    "qwen/hub/models--black-forest-labs--FLUX.1-dev/snapshots/0123abc/transformer",
    "FLUX.1-dev/transformer",
    "wan/FLUX.1-dev",
    "models--Qwen--FLUX.1-dev",
    "/wan/model-flux-dev",
    "",
    "None",
)


@pytest.mark.parametrize(("tag", "name"), OTHERS)
@pytest.mark.parametrize("key", KEYS)
def test_another_model_is_refused_by_its_name(
    tmp_path: Path, key: str, tag: str, name: str
) -> None:
    """All names and shapes of the file are FLUX.1's."""
    path = saved(tmp_path / "a.safetensors", pair(Q), {key: tag})
    with pytest.raises(BadLora) as raised:
        read(path)
    assert f"is for {name}" in raised.value.message
    assert key in raised.value.message and "not for FLUX.1" in raised.value.message


def test_every_model_of_the_table_is_tried() -> None:
    table = {model.name for model in default().files.base_models if model.means is Tagged.REFUSED}
    assert table == {name for _, name in OTHERS}


def test_it_is_named_before_keys_that_are_not_known(tmp_path: Path) -> None:
    tensors = pair("transformer.transformer_blocks.59.attn.to_q")
    with pytest.raises(BadLora, match="is for Qwen-Image"):
        read(saved(tmp_path / "a.safetensors", tensors, {KEYS[0]: "qwen_image"}))


# Folders may be called anything; none of these names a model.
UNKNOWN = ("my-base", "SRPO", "./qwen/base.safetensors", "/home/wan/models/model.safetensors")


@pytest.mark.parametrize("tag", [*DOUBTED, *UNKNOWN])
def test_a_tag_that_can_not_be_true_is_told_in_a_note(tmp_path: Path, tag: str) -> None:
    path = saved(tmp_path / "a.safetensors", pair(Q), {KEYS[1]: tag})
    words = f"its metadata says {tag} (ss_base_model_version), but its keys and shapes are those"
    assert read(path).notes[0].startswith(words)
    assert merge(path, tmp_path / "out.safetensors").notes[0].startswith(f"a.safetensors: {words}")
    assert ("note", read(path).notes[0]) in inspect(path).loras[0].notes
    ran = compose("inspect", "a.safetensors", at=tmp_path)
    assert ran.status == 0 and words in " ".join(ran.out.split())


@pytest.mark.parametrize("tag", DOUBTED)
def test_a_text_encoder_alone_may_well_be_that_model_s(tmp_path: Path, tag: str) -> None:
    path = saved(tmp_path / "a.safetensors", pair(CLIP, 768, 768), {KEYS[1]: tag})
    with pytest.raises(BadLora, match="is for Stable Diffusion"):
        read(path)


@pytest.mark.parametrize("tag", FLUX)
def test_flux_1_and_flex_are_used_without_a_note(tmp_path: Path, tag: str) -> None:
    path = saved(tmp_path / "a.safetensors", pair(Q), dict.fromkeys(KEYS, tag))
    assert read(path).notes == ()


def test_a_refusal_counts_more_than_another_tag(tmp_path: Path) -> None:
    tags = {"modelspec.architecture": "flux-1-dev/lora", "ss_base_model_version": "longcat"}
    with pytest.raises(BadLora, match="is for LongCat-Image"):
        read(saved(tmp_path / "a.safetensors", pair(Q), tags))


@pytest.mark.parametrize(
    "entries",
    [
        {"base_model_name_or_path": "Qwen/Qwen-Image"},
        {"base_model_name_or_path": "hub/models--Qwen--Qwen-Image/snapshots/0123/transformer"},
        {"base_model_name_or_path": "/models/Qwen-Image/transformer"},
        {"auto_mapping": {"base_model_class": "QwenImageTransformer2DModel"}},
    ],
)
def test_peft_s_configuration_names_it_too(tmp_path: Path, entries: dict[str, object]) -> None:
    said = json.dumps({"r": 2, "lora_alpha": 2, **entries})
    with pytest.raises(BadLora, match="is for Qwen-Image, says its metadata"):
        read(saved(tmp_path / "a.safetensors", pair(Q), {"lora_adapter_metadata": said}))
    (tmp_path / "adapter_config.json").write_text(said, "utf-8")
    tensors = pair(Q.replace("transformer.", "base_model.model.", 1))
    with pytest.raises(BadLora, match=r"is for Qwen-Image, .* \(adapter_config\.json"):
        read(saved(tmp_path / "adapter_model.safetensors", tensors))
    flux = {"lora_adapter_metadata": said.replace("Qwen-Image", "FLUX.1")}
    flux = {key: text.replace("QwenImage", "Flux") for key, text in flux.items()}
    assert read(saved(tmp_path / "b.safetensors", pair(Q), flux)).notes == ()


# --- where it says nothing ---------------------------------------------------------------


def blocks(double: Iterable[int], single: Iterable[int]) -> Tensors:
    stems = [f"transformer.transformer_blocks.{n}.attn.to_q" for n in double]
    stems += [f"transformer.single_transformer_blocks.{n}.attn.to_q" for n in single]
    return {key: values for stem in stems for key, values in pair(stem, rank=1).items()}


@pytest.mark.parametrize(
    ("double", "single", "words"),
    [
        (6, 27, "first 6 of 19 double blocks and the first 27 of 38 single blocks alone, as"),
        (6, 27, "as LoRAs for Ovis-Image do"),
        (8, 28, "as LoRAs for Bria do"),
        (8, 38, "as LoRAs for Bria FIBO and Flex do"),
        (5, 20, "as LoRAs for FLUX.2 do"),
        (12, 30, "the first 30 of 38 single blocks alone: is it for FLUX.1?"),
    ],
)
def test_odd_numbers_of_blocks_get_a_note(
    tmp_path: Path, double: int, single: int, words: str
) -> None:
    tensors = blocks(range(double), range(single))
    (note,) = read(saved(tmp_path / "a.safetensors", tensors)).notes
    assert words in note
    assert not read(saved(tmp_path / "b.safetensors", tensors, {KEYS[0]: "flux1"})).notes


@pytest.mark.parametrize(
    ("double", "single"),
    [(range(19), range(38)), (range(3, 9), range(5)), ([], range(20)), ([0], [0]), ([0, 2], [0])],
)
def test_other_choices_of_blocks_get_none(
    tmp_path: Path, double: Iterable[int], single: Iterable[int]
) -> None:
    assert not read(saved(tmp_path / "a.safetensors", blocks(double, single))).notes


@pytest.mark.parametrize("width", [128, 384])
def test_an_odd_width_gets_a_note(tmp_path: Path, width: int) -> None:
    tensors = pair("transformer.x_embedder", width)
    (note,) = read(saved(tmp_path / "a.safetensors", tensors)).notes
    assert f"x_embedder has {width} inputs, where FLUX.1 has 64" in note
    assert not read(saved(tmp_path / "b.safetensors", tensors, {KEYS[0]: "flux1"})).notes
