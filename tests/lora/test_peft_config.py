"""PEFT's configuration of a LoRA in the metadata, and its say on factors."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from support.lora_files import adapter_metadata
from support.lora_tensors import QKV, Q, pair, saved, zeros

from composer.errors import BadLora
from composer.lora import read

if TYPE_CHECKING:
    from pathlib import Path

    from support.lora_tensors import Tensors

    from composer.lora import LoraFile

FC1 = "encoder.layers.0.mlp.fc1"


def factors(lora: LoraFile) -> dict[str, float]:
    return {adapter.prefix.text: adapter.factor for adapter in lora.adapters}


@pytest.mark.parametrize(
    ("fields", "wanted"),
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
def test_the_transformers(
    tmp_path: Path, fields: dict[str, object], wanted: tuple[float, ...]
) -> None:
    modules = (Q, "transformer.single_transformer_blocks.2.proj_out", "transformer.proj_out")
    tensors = {
        **pair(modules[0], rank=4),
        **pair(modules[1], 15360, 3072, rank=4),
        **pair(modules[2], 3072, 64, rank=4),
    }
    lora = read(saved(tmp_path / "a.safetensors", tensors, adapter_metadata(**fields)))
    assert tuple(factors(lora)[module] for module in modules) == wanted


@pytest.mark.parametrize("start", ["", "text_model."])
def test_a_text_encoders_speaks_of_its_own_keys(tmp_path: Path, start: str) -> None:
    """Patterns name layers as the file does, whichever version of transformers it was."""
    said = {
        "transformer.r": 2,
        "transformer.lora_alpha": 1,
        "text_encoder.r": 8,
        "text_encoder.lora_alpha": 2,
        "text_encoder.rank_pattern": {f"^{start}{FC1}": 2},
        "text_encoder.alpha_pattern": {f"^{start}{FC1}": 8},
    }
    stem = f"text_encoder.{start}{FC1}"
    tensors = {**pair(Q), **pair(stem, 768, 3072)}
    notes = {"lora_adapter_metadata": json.dumps(said)}
    lora = read(saved(tmp_path / "a.safetensors", tensors, notes))
    assert factors(lora) == {Q: 0.5, stem: 4.0}


def test_one_of_a_text_encoder_alone_says_nothing_about_the_transformer(tmp_path: Path) -> None:
    notes = {"lora_adapter_metadata": json.dumps({"text_encoder.r": 4})}
    assert factors(read(saved(tmp_path / "a.safetensors", pair(Q), notes))) == {Q: 1.0}


def test_one_of_a_model_saved_alone(tmp_path: Path) -> None:
    """Then neither its entries nor the keys have a beginning."""
    bare = Q.removeprefix("transformer.")
    said = {"r": 2, "lora_alpha": 8, "alpha_pattern": {"^proj_out": 1}}
    notes = {"lora_adapter_metadata": json.dumps(said)}
    tensors = {**pair(bare), **pair("proj_out", 3072, 64)}
    lora = read(saved(tmp_path / "a.safetensors", tensors, notes))
    assert factors(lora) == {bare: 4.0, "proj_out": 0.5}
    with pytest.raises(BadLora, match=f"{QKV}, which it does not cover"):
        read(saved(tmp_path / "b.safetensors", pair(QKV, outputs=9216), notes))


# --- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"r": 8}, "rank 2 at transformer_blocks.0.attn.to_q, where"),
        ({"r": 0}, "rank 2 at"),
        ({"r": "2"}, "not a usable number"),
        ({"r": 2.7}, "is 2.7, not a whole number"),
        ({"r": 2, "lora_alpha": True}, "not a usable number"),
        ({"r": 2, "lora_alpha": 1e300}, "not a usable number"),
        ({"r": 2, "use_dora": True}, "DoRA"),
        ({"r": 2, "alpha_pattern": []}, "not a JSON object"),
        ({"r": 2, "alpha_pattern": {"(": 1}}, "invalid pattern"),
        ({"r": 2, "alpha_pattern": {"(a+)+": 1}}, "too complex"),
        ({"r": 2, "alpha_pattern": {".*.*.*x": 1}}, "too complex"),
        ({"r": 2, "alpha_pattern": {f"a{n}.*": 1 for n in range(9)}}, "too complex"),
        ({"r": 2, "alpha_pattern": {"[a-z]": 1}}, "too complex"),
        ({"r": 2, "alpha_pattern": {"": 1}}, "too complex"),
    ],
)
def test_one_that_is_refused(tmp_path: Path, fields: dict[str, object], reason: str) -> None:
    with pytest.raises(BadLora) as raised:
        read(saved(tmp_path / "a.safetensors", pair(Q), adapter_metadata(**fields)))
    assert reason in raised.value.message


@pytest.mark.parametrize("text", ["{", "[]", "1", '{"a":1,"a":2}', '{"a":NaN}', "[" * 99_999])
def test_one_that_is_no_json_object(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadLora, match="lora_adapter_metadata"):
        read(saved(tmp_path / "a.safetensors", pair(Q), {"lora_adapter_metadata": text}))


def test_alphas_that_disagree_with_one_are_refused(tmp_path: Path) -> None:
    """diffusers refuses that too: which one counts can't be known."""
    notes = adapter_metadata(r=2, lora_alpha=2)
    with pytest.raises(BadLora, match=r"both \.alpha keys and lora_adapter_metadata"):
        read(saved(tmp_path / "a.safetensors", {**pair(Q), f"{Q}.alpha": zeros()}, notes))
    with pytest.raises(BadLora, match=f"{QKV}, which it does not cover"):
        read(saved(tmp_path / "b.safetensors", pair(QKV, outputs=9216), notes))


# --- `.alpha` keys that say the same -----------------------------------------------------

K = Q.replace("to_q", "to_k")


def with_alphas(tensors: Tensors, *alphas: float, dtype: Any = np.float32) -> Tensors:
    stems = dict.fromkeys(key.partition(".lora_")[0] for key in tensors)
    named = {f"{s}.alpha": np.array(a, dtype) for s, a in zip(stems, alphas, strict=False)}
    return {**tensors, **named}


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize(
    ("fields", "alphas"),
    [
        ({"r": 2, "lora_alpha": 1}, (1, 1)),
        ({"r": 2, "lora_alpha": 1}, (1,)),
        (
            {"r": 2, "lora_alpha": 1, "alpha_pattern": {"^transformer_blocks.0.attn.to_k": 4}},
            (1, 4),
        ),
        ({"r": 2, "lora_alpha": 2, "use_rslora": True}, (2 * 2**0.5, 2 * 2**0.5)),
        ({"r": 8, "lora_alpha": 4}, (1, 1)),
        ({"r": 2, "lora_alpha": 0}, (0, 0)),
    ],
)
def test_alphas_that_agree_with_one_are_read(
    tmp_path: Path, fields: dict[str, object], alphas: tuple[float, ...], bare: bool
) -> None:
    """As SimpleTuner writes them; `bare` is a model saved alone."""
    fields = {"peft_type": "LORA", "rank_pattern": {}, **fields}
    notes = {"lora_adapter_metadata": json.dumps(fields)} if bare else adapter_metadata(**fields)
    tensors = with_alphas({**pair(Q), **pair(K)}, *alphas)
    found = factors(read(saved(tmp_path / "a.safetensors", tensors, notes)))
    second = alphas[1] if len(alphas) > 1 else 1
    assert found == pytest.approx({Q: alphas[0] / 2, K: second / 2})


@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2]
)
def test_they_agree_within_the_rounding_of_the_key(tmp_path: Path, dtype: Any) -> None:
    stored = np.array(10.3).astype(dtype)
    notes = adapter_metadata(r=2, lora_alpha=10.3)
    save = partial(saved, tmp_path / "a.safetensors", metadata=notes)
    (factor,) = factors(read(save(with_alphas(pair(Q), float(stored), dtype=dtype)))).values()
    assert factor == float(stored) / 2
    with pytest.raises(BadLora, match="disagree"):
        read(save(with_alphas(pair(Q), 13.0, dtype=dtype)))


@pytest.mark.parametrize(
    ("fields", "alphas"),
    [
        ({"r": 2, "lora_alpha": 1}, (1, 2)),
        ({"r": 2, "lora_alpha": 1, "use_rslora": True}, (1, 1)),
        ({"r": 2, "lora_alpha": 1, "alpha_pattern": {"to_k": 4}}, (1, 1)),
        ({"r": 2, "lora_alpha": 1.01}, (1, 1)),
    ],
)
def test_alphas_of_which_one_disagrees_are_refused(
    tmp_path: Path, fields: dict[str, object], alphas: tuple[float, ...]
) -> None:
    tensors = with_alphas({**pair(Q), **pair(K)}, *alphas)
    with pytest.raises(BadLora, match=r"disagree at transformer\.transformer_blocks\.0\.attn"):
        read(saved(tmp_path / "a.safetensors", tensors, adapter_metadata(**fields)))


def test_alphas_under_other_names_are_compared_by_the_module(tmp_path: Path) -> None:
    pattern = {"^transformer_blocks.0.attn.to_q": 8}
    notes = adapter_metadata(r=2, lora_alpha=4, alpha_pattern=pattern)
    stem = "lora_unet_transformer_blocks_0_attn_to_q"
    path = saved(tmp_path / "a.safetensors", with_alphas(pair(stem), 8), notes)
    assert factors(read(path)) == {stem: 4.0}
    with pytest.raises(BadLora, match=f"disagree at {stem}"):
        read(saved(tmp_path / "b.safetensors", with_alphas(pair(stem), 4), notes))


LINEAR1 = "lora_unet_single_blocks_0_linear1"
BFL = "diffusion_model.double_blocks.0.txt_attn.qkv"


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize(
    ("stem", "outputs", "pattern"),
    [
        (QKV, 9216, "to_k"),
        (QKV, 9216, "^transformer_blocks.0.attn.to_v"),
        (LINEAR1, 21504, "proj_mlp"),
        (LINEAR1, 21504, r".*\.0\.attn\.to_v"),
        (BFL, 9216, "add_v_proj"),
    ],
)
def test_every_module_of_a_fused_layer_is_compared(
    tmp_path: Path, stem: str, outputs: int, pattern: str, bare: bool
) -> None:
    tensors = with_alphas(pair(stem, outputs=outputs, rank=4), 2)
    for value, patterns in ((2, {pattern: 2}), (9, {pattern: 9}), (2, {"x_embedder": 9})):
        fields = {"r": 4, "lora_alpha": 2, "alpha_pattern": patterns}
        notes = {"lora_adapter_metadata": json.dumps(fields)}
        path = saved(
            tmp_path / "a.safetensors", tensors, notes if bare else adapter_metadata(**fields)
        )
        if value == 2:
            assert factors(read(path)) == {stem: 0.5}
            continue
        name = pattern.rpartition(".")[2]
        with pytest.raises(
            BadLora, match=rf"disagree at {stem} \(.*{name}\): factors 0.5 and 2.25"
        ):
            read(path)


def test_a_rank_pattern_of_one_module_of_a_fused_layer_counts_too(tmp_path: Path) -> None:
    notes = adapter_metadata(r=4, lora_alpha=2, rank_pattern={"to_v": 2})
    tensors = with_alphas(pair(QKV, outputs=9216, rank=4), 2)
    with pytest.raises(BadLora, match=r"attn\.to_v\): factors 0.5 and 1"):
        read(saved(tmp_path / "a.safetensors", tensors, notes))


def test_a_pattern_that_names_the_fused_layer_itself_counts_for_all_of_it(tmp_path: Path) -> None:
    stem = "base_model.model.double_blocks.0.img_attn.qkv"
    said = {"r": 4, "lora_alpha": 2, "alpha_pattern": {"img_attn.qkv": 8, "to_k": 1}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(said), "utf-8")
    path = tmp_path / "a.safetensors"
    tensors = pair(stem, outputs=9216, rank=4)
    assert factors(read(saved(path, with_alphas(tensors, 8)))) == {stem: 2.0}
    with pytest.raises(BadLora, match=r"to_q\): factors 0.5 and 2"):
        read(saved(path, with_alphas(tensors, 2)))
