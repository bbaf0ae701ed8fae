"""Reading files: what each format's keys mean, and every kind of file and key that is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from lora_files import Spec, adapter_metadata, write
from lora_oracle import FUSED, SPLIT
from safetensors.numpy import load_file, save_file

from composer.engine.lora import compose, read
from composer.engine.lora.formats import FORMATS, KEYS
from composer.engine.lora.modules import BY_BFL, BY_PATH, MODULES
from composer.errors import BadLora

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[Any]]

Q = "transformer.transformer_blocks.0.attn.to_q"
QKV = "lora_unet_double_blocks_0_img_attn_qkv"


def zeros(*shape: int, dtype: Any = np.float32) -> NDArray[Any]:
    return np.zeros(shape, dtype)


def pair(stem: str, inputs: int = 3072, outputs: int = 3072, rank: int = 2) -> Tensors:
    """A LoRA in diffusers' or kohya's keys, whichever the stem is of."""
    down, up = ("lora_down", "lora_up") if stem.startswith("lora_unet") else ("lora_A", "lora_B")
    return {
        f"{stem}.{down}.weight": zeros(rank, inputs),
        f"{stem}.{up}.weight": zeros(outputs, rank),
    }


def saved(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Path:
    save_file(tensors, path, metadata=dict(metadata) if metadata else None)
    return path


def refused(path: Path, *words: str) -> BadLora:
    with pytest.raises(BadLora) as raised:
        read(path)
    for word in (path.name, *words):
        assert word in raised.value.message, raised.value.message
    return raised.value


# --- the canonical table -----------------------------------------------------------------


def test_the_table_has_flux_1s_layers() -> None:
    """Counts of the two vocabularies, and no weight of the fused layers lost or doubled."""
    assert (len(MODULES), len(BY_PATH), len(BY_BFL)) == (504, 504, 314)
    assert sum(m.inputs + m.outputs for m in MODULES if "blocks" in m.path) == 5_369_856
    assert sum(s.inputs + s.outputs for n, s in BY_BFL.items() if "blocks" in n) == 4_786_176
    for site in BY_BFL.values():
        assert site.outputs == sum(part.module.outputs for part in site.parts)
        assert {part.module.inputs for part in site.parts} == {site.inputs}
    assert [n for n, s in BY_BFL.items() if s.parts[0].swapped] == [
        "final_layer.adaLN_modulation.1"
    ]


def test_no_two_spellings_are_alike() -> None:
    assert len(KEYS) == sum(len(format.stems) * len(format.suffixes) for format in FORMATS)
    assert len(KEYS) == 3 * 504 + 3 * 314


def test_the_oracles_names_are_ours() -> None:
    for path, shape in SPLIT.items():
        assert (BY_PATH[path].inputs, BY_PATH[path].outputs) == shape
    for stem, (inputs, outputs, places) in FUSED.items():
        site = KEYS[f"{stem}.alpha"][0].site
        assert (site.inputs, site.outputs) == (inputs, outputs)
        assert [part.module.path for part in site.parts] == [module for module, _ in places]


# --- what is read ------------------------------------------------------------------------


def test_a_diffusers_file(tmp_path: Path) -> None:
    spec = Spec(False, "BF16", {"proj_out": 3, "transformer_blocks.0.attn.to_q": 4})
    lora = read(write(spec, tmp_path / "a.safetensors"))
    assert (lora.format, lora.title, lora.path.name) == ("diffusers", None, "a.safetensors")
    assert (lora.ranks, lora.dtypes) == ((3, 4), ("BF16",))
    assert lora.modules == ("transformer_blocks.0.attn.to_q", "proj_out")
    assert {adapter.factor for adapter in lora.adapters} == {1.0}


def test_a_kohya_file_with_and_without_alpha(tmp_path: Path) -> None:
    stems = {QKV: 4, "lora_unet_img_in": 2}
    notes = {"ss_network_alpha": "1.0", "ss_output_name": "x"}
    lora = read(write(Spec(True, "F16", stems, {QKV: 1.0}, metadata=notes), tmp_path / "a"))
    assert (lora.format, lora.title) == ("kohya", "x")
    assert lora.metadata == notes
    assert {a.stem.text: a.factor for a in lora.adapters} == {QKV: 0.25, "lora_unet_img_in": 1.0}
    assert lora.modules == (
        *(f"transformer_blocks.0.attn.to_{part}" for part in "qkv"),
        "x_embedder",
    )


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_alphas(tmp_path: Path, shape: tuple[int, ...], dtype: Any) -> None:
    tensors = {**pair(Q, rank=4), f"{Q}.alpha": np.full(shape, 0.5, dtype)}
    lora = read(saved(tmp_path / "a.safetensors", tensors))
    assert [adapter.factor for adapter in lora.adapters] == [0.125]
    assert lora.dtypes == ("F32",)


def test_a_file_of_both_formats(tmp_path: Path) -> None:
    tensors = {**pair("lora_unet_double_blocks_1_img_attn_proj"), **pair(Q)}
    lora = read(saved(tmp_path / "a.safetensors", tensors))
    assert lora.format == "diffusers+kohya"
    assert len(lora.modules) == 2


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


@pytest.mark.parametrize(
    ("fields", "factors"),
    [
        ({"r": 4, "lora_alpha": 2}, (0.5, 0.5, 0.5)),
        ({"r": 4, "lora_alpha": 2, "use_rslora": True}, (1.0, 1.0, 1.0)),
        ({"r": 4, "lora_alpha": 4, "alpha_pattern": {"proj_out": 1}}, (1.0, 0.25, 0.25)),
        ({"r": 4, "lora_alpha": 4, "alpha_pattern": {"^proj_out": 1}}, (1.0, 1.0, 0.25)),
        ({"r": 4, "lora_alpha": 4, "alpha_pattern": {"attn.to_q": 2, "to_q": 1}}, (0.5, 1, 1)),
        ({"r": 4, "lora_alpha": 4, "alpha_pattern": {"o_q": 1}}, (1.0, 1.0, 1.0)),
        ({"r": 4, "lora_alpha": 4, "alpha_pattern": {r".*\.attn\.to_q": 1}}, (0.25, 1.0, 1.0)),
        ({"r": 4, "lora_alpha": 4, "alpha_pattern": {r"\d+\.(proj_out|x)": 2}}, (1.0, 0.5, 1.0)),
        ({"r": 8, "lora_alpha": 8, "rank_pattern": {"to_q": 4, "proj_out": 4}}, (2.0, 2.0, 2.0)),
        ({"r": 4, "lora_alpha": 4, "rank_pattern": None, "init": [1.5]}, (1.0, 1.0, 1.0)),
    ],
)
def test_adapter_metadata(
    tmp_path: Path, fields: dict[str, object], factors: tuple[float, ...]
) -> None:
    modules = (Q, "transformer.single_transformer_blocks.2.proj_out", "transformer.proj_out")
    tensors = {
        **pair(modules[0], rank=4),
        **pair(modules[1], 15360, 3072, rank=4),
        **pair(modules[2], 3072, 64, rank=4),
    }
    lora = read(saved(tmp_path / "a.safetensors", tensors, adapter_metadata(**fields)))
    found = {adapter.stem.text: adapter.factor for adapter in lora.adapters}
    assert tuple(found[module] for module in modules) == factors


def test_adapter_metadata_of_a_text_encoder_alone_says_nothing(tmp_path: Path) -> None:
    notes = {"lora_adapter_metadata": json.dumps({"text_encoder.r": 4})}
    lora = read(saved(tmp_path / "a.safetensors", pair(Q), notes))
    assert [adapter.factor for adapter in lora.adapters] == [1.0]


def test_our_own_result_is_read(tmp_path: Path) -> None:
    spec = Spec(False, "F32", {"proj_out": 3, "x_embedder": 2})
    compose([(read(write(spec, tmp_path / "a")), 0.5)], tmp_path / "b", metadata={})
    again = read(tmp_path / "b")
    assert (again.format, again.ranks) == ("diffusers", (2, 3))
    assert {adapter.rank * adapter.factor for adapter in again.adapters} == {2.0}


# --- what is refused ---------------------------------------------------------------------

ALONE: tuple[tuple[str, str], ...] = (
    # a key that stands beside a good LoRA, and a word of the reason
    (f"{QKV}.dora_scale", "DoRA"),
    (f"{Q}.lora_magnitude_vector", "DoRA"),
    (f"{Q}.lora_magnitude_vector.weight", "DoRA"),
    (f"{Q}.magnitude", "DoRA"),
    (f"{QKV}.diff", "full difference"),
    (f"{QKV}.diff_b", "full difference"),
    (f"{QKV}.set_weight", "full difference"),
    (f"{QKV}.w_norm", "full difference"),
    (f"{QKV}.lokr_w1", "LoKr"),
    ("lycoris_transformer_blocks_0_attn_to_q.lokr_w2_a", "LoKr"),
    (f"{QKV}.hada_w1_a", "LoHa"),
    (f"{QKV}.oft_blocks", "OFT"),
    (f"{Q}.oft_R.weight", "OFT"),
    (f"{QKV}.lora_mid.weight", "convolution"),
    (f"{Q}.lora_B.bias", "bias"),
    ("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "text encoder"),
    ("lora_te3_encoder_block_0_layer_0_SelfAttention_q.alpha", "text encoder"),
    ("text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight", "text encoder"),
    ("double_blocks.0.img_attn.norm.query_norm.scale", "norm's scale"),
    ("transformer.transformer_blocks.0.attn.norm_q.weight", "norm's scale"),
    ("double_blocks.0.processor.qkv_lora1.down.weight", "XLabs"),
    ("lora_transformer_transformer_blocks_0_attn_to_q.alpha", "OneTrainer"),
    ("diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight", "format"),
    ("base_model.model.double_blocks.0.img_attn.qkv.lora_A.weight", "format"),
    ("transformer.base_model.model.proj_out.lora_A.weight", "format"),
    ("double_blocks.0.img_attn.qkv.lora_A.weight", "format"),
    ("transformer_blocks.0.attn.to_q.lora_A.default.weight", "format"),
    (f"{Q}.lora_A.default.weight", "spelling"),
    (f"{Q}.lora.down.weight", "spelling"),
    (f"{Q}.lora_down.weight", "spelling"),
    ("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj.lora_A.weight", "FLUX.2"),
    ("lora_unet_distilled_guidance_layer_in_proj.lora_down.weight", "Chroma"),
    ("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight", "Stable Diffusion 3"),
    ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "SDXL"),
    ("lora_unet_input_blocks_4_1_proj_in.alpha", "SDXL"),
    ("unet.up_blocks.0.attentions.0.to_q.lora_A.weight", "SDXL"),
    ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "checkpoint"),
    ("double_blocks.0.img_attn.qkv.bias", "checkpoint"),
    ("transformer_blocks.0.attn.to_q.weight", "checkpoint"),
    ("lora_unet_double_blocks_19_img_attn_qkv.alpha", "no key of a FLUX.1 LoRA"),
    ("transformer.transformer_blocks.00.attn.to_q.alpha", "no key of a FLUX.1 LoRA"),
    ("extra", "no key of a FLUX.1 LoRA"),
)


@pytest.mark.parametrize(("key", "reason"), ALONE)
def test_a_key_that_is_not_read_is_never_dropped(tmp_path: Path, key: str, reason: str) -> None:
    tensors = {**pair(Q), **pair(QKV.replace("0_img", "1_img"), outputs=9216), key: zeros(2, 2)}
    refused(saved(tmp_path / "odd.safetensors", tensors), key, reason)


def test_an_sdxl_file_is_named_as_that_and_not_by_its_text_encoder(tmp_path: Path) -> None:
    keys = [
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha",
        "lora_unet_input_blocks_4_1_proj_in.alpha",
    ]
    error = refused(saved(tmp_path / "xl.safetensors", dict.fromkeys(keys, zeros())), keys[1])
    assert "SDXL" in error.message


def test_more_keys_are_counted(tmp_path: Path) -> None:
    tensors = {f"{QKV}.{end}": zeros(1) for end in ("lokr_w1", "lokr_w2_a", "lokr_w2_b")}
    refused(saved(tmp_path / "a.safetensors", tensors), "and 2 more keys: LoKr")


BROKEN: tuple[tuple[Tensors, str, str], ...] = (
    # tensors, the key or module named, and a word of the reason
    ({f"{Q}.lora_A.weight": zeros(2, 3072)}, Q, "no up weight"),
    ({f"{Q}.lora_B.weight": zeros(3072, 2)}, Q, "no down weight"),
    ({f"{Q}.alpha": zeros()}, Q, "no down and no up"),
    (pair(Q, 1536, 1536), f"{Q}.lora_A.weight", "made for another model"),
    (pair(Q, outputs=9216), f"{Q}.lora_B.weight", "3072 outputs"),
    (pair("transformer.x_embedder", inputs=128), "x_embedder", "64 inputs"),
    (pair("transformer.proj_out", 15360, 3072), "proj_out", "3072 inputs"),
    (pair(QKV, outputs=3072), QKV, "9216 outputs"),
    (pair(Q, rank=0), Q, "disagree on the rank"),
    ({**pair(Q), f"{Q}.lora_B.weight": zeros(3072, 3)}, Q, "disagree on the rank"),
    ({**pair(Q), f"{Q}.lora_A.weight": zeros(2, 3072, 1, 1)}, Q, "matrices only"),
    ({**pair(Q), f"{Q}.lora_A.weight": zeros(2, 3072, dtype=np.int8)}, Q, "I8"),
    ({**pair(Q), f"{Q}.lora_A.weight": zeros(2, 3072, dtype=np.float64)}, Q, "F64"),
    (
        {**pair(Q), f"{Q}.lora_A.weight": zeros(2, 3072, dtype=ml_dtypes.float8_e4m3fn)},
        f"{Q}.lora_A.weight",
        "F8_E4M3",
    ),
    ({**pair(Q), f"{Q}.alpha": zeros(dtype=np.int64)}, f"{Q}.alpha", "I64"),
    ({**pair(Q), f"{Q}.alpha": zeros(2)}, f"{Q}.alpha", "one number"),
    ({**pair(Q), f"{Q}.alpha": np.array(np.nan, np.float32)}, f"{Q}.alpha", "no finite number"),
    ({**pair(Q), f"{Q}.alpha": np.array(np.inf, np.float16)}, f"{Q}.alpha", "no finite number"),
    (
        {**pair(Q), **pair(QKV, outputs=9216)},
        "transformer_blocks.0.attn.to_q",
        f"as {QKV} and as {Q}",
    ),
)


@pytest.mark.parametrize(("tensors", "key", "reason"), BROKEN)
def test_broken_loras(tmp_path: Path, tensors: Tensors, key: str, reason: str) -> None:
    refused(saved(tmp_path / "broken.safetensors", tensors), key, reason)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"modelspec.architecture": "Flux.2-dev/lora"}, "FLUX.2"),
        ({"ss_base_model_version": "flux2"}, "FLUX.2"),
        ({"ss_base_model_version": "chroma"}, "Chroma"),
        ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "Stable Diffusion"),
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "Stable Diffusion"),
    ],
)
def test_a_base_model_that_is_not_flux_1(
    tmp_path: Path, metadata: dict[str, str], reason: str
) -> None:
    refused(saved(tmp_path / "a.safetensors", pair(Q), metadata), reason, "not for FLUX.1")


@pytest.mark.parametrize("base", ["flux1", "flux-1-dev/lora", "Flux.1-dev/lora", "flux", "", "x"])
def test_a_base_model_that_may_be_flux_1(tmp_path: Path, base: str) -> None:
    notes = {"modelspec.architecture": base, "ss_base_model_version": base}
    assert read(saved(tmp_path / "a.safetensors", pair(Q), notes)).modules


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"r": 8}, "rank 2 at transformer_blocks.0.attn.to_q, where"),
        ({"r": 0}, "rank 2 at"),
        ({"r": "2"}, "no sensible number"),
        ({"r": 2, "lora_alpha": True}, "no sensible number"),
        ({"r": 2, "lora_alpha": 1e300}, "no sensible number"),
        ({"r": 2, "use_dora": True}, "DoRA"),
        ({"r": 2, "alpha_pattern": []}, "no JSON object"),
        ({"r": 2, "alpha_pattern": {"(": 1}}, "none"),
        ({"r": 2, "alpha_pattern": {"(a+)+": 1}}, "too intricate"),
        ({"r": 2, "alpha_pattern": {".*.*.*x": 1}}, "too intricate"),
        ({"r": 2, "alpha_pattern": {f"a{n}.*": 1 for n in range(9)}}, "too intricate"),
        ({"r": 2, "alpha_pattern": {"[a-z]": 1}}, "too intricate"),
        ({"r": 2, "alpha_pattern": {"": 1}}, "too intricate"),
    ],
)
def test_adapter_metadata_that_is_refused(
    tmp_path: Path, fields: dict[str, object], reason: str
) -> None:
    refused(saved(tmp_path / "a.safetensors", pair(Q), adapter_metadata(**fields)), reason)


@pytest.mark.parametrize("text", ["{", "[]", "1", '{"a":1,"a":2}', '{"a":NaN}', "[" * 99_999])
def test_adapter_metadata_that_is_no_json_object(tmp_path: Path, text: str) -> None:
    path = saved(tmp_path / "a.safetensors", pair(Q), {"lora_adapter_metadata": text})
    refused(path, "lora_adapter_metadata")


def test_alphas_beside_adapter_metadata_are_refused(tmp_path: Path) -> None:
    notes = adapter_metadata(r=2, lora_alpha=2)
    tensors = {**pair(Q), f"{Q}.alpha": zeros()}
    refused(saved(tmp_path / "a.safetensors", tensors, notes), "both .alpha keys and")
    kohya = pair(QKV, outputs=9216)
    refused(saved(tmp_path / "b.safetensors", kohya, notes), "keys that aren't diffusers'")


def test_a_file_cut_after_its_header_is_refused(tmp_path: Path) -> None:
    path = write(Spec(False, "F32", {"proj_out": 2}), tmp_path / "a.safetensors")
    assert load_file(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert refused(path, "is cut short").hint
