"""PEFT's configuration of a LoRA, in the metadata or beside the file, and its say on factors."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from support.lora_files import adapter_metadata
from support.lora_tensors import QKV, Q, pair, saved, zeros

from composer.errors import BadLora
from composer.lora import inspect, merge, read
from composer.lora.fingerprint import fingerprint_file

if TYPE_CHECKING:
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


# --- beside the file ---------------------------------------------------------------------


WEIGHTS = "adapter_model.safetensors"


def beside(folder: Path, tensors: Tensors, text: str, name: str = WEIGHTS) -> Path:
    (folder / "adapter_config.json").write_text(text, "utf-8")
    return saved(folder / name, tensors)


@pytest.mark.parametrize("prefix", ["base_model.model.", "transformer.base_model.model."])
@pytest.mark.parametrize(
    ("layer", "outputs"),
    [("transformer_blocks.0.attn.to_q", 3072), ("single_blocks.0.linear1", 21504)],
)
def test_a_raw_save_has_it_beside(tmp_path: Path, prefix: str, layer: str, outputs: int) -> None:
    """Patterns name layers as the file does, Black Forest Labs' too."""
    if prefix.startswith("transformer.") and layer.startswith("single_blocks"):
        prefix = "base_model.model."
    said = {
        "peft_type": "LORA",
        "r": 8,
        "lora_alpha": 4,
        "rank_pattern": {layer: 2},
        "alpha_pattern": {f"^{layer}": 16},
    }
    stem = prefix + layer
    lora = read(beside(tmp_path, pair(stem, outputs=outputs), json.dumps(said)))
    assert factors(lora) == {stem: 8.0}
    assert lora.alphas == (16.0,)


def test_another_files_neighbour_is_not_asked(tmp_path: Path) -> None:
    stem = Q.replace("transformer.", "base_model.model.", 1)
    lora = read(beside(tmp_path, pair(stem), '{"r": 2, "lora_alpha": 8}', "b.safetensors"))
    assert factors(lora) == {stem: 1.0}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"r": 2, "peft_type": "LOHA"}', "is a LOHA"),
        ('{"r": 2, "use_dora": true}', "DoRA"),
        ('{"r": 3}', "rank 2 at transformer_blocks.0.attn.to_q, where its adapter_config.json"),
        ("[]", "not a JSON object"),
        ('{"r": NaN}', "NaN"),
        (" " * 1024 * 1024 + "{}", "1,048,576 bytes"),
    ],
)
def test_one_beside_that_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    stem = Q.replace("transformer.", "base_model.model.", 1)
    with pytest.raises(BadLora) as raised:
        read(beside(tmp_path, pair(stem), text))
    assert reason in raised.value.message


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize("place", ["library", ".", "gone"])
def test_a_link_to_one_is_followed_within_a_given_folder_alone(tmp_path: Path, place: str) -> None:
    """A repository could bring a link to any file of this machine."""
    stem = Q.replace("transformer.", "base_model.model.", 1)
    (tmp_path / "library/knight").mkdir(parents=True)
    path = beside(tmp_path / "library/knight", pair(stem), "{}")
    config, real = path.with_name("adapter_config.json"), tmp_path / place / "config.json"
    config.unlink()
    config.symlink_to(real)
    if real.parent.exists():
        real.write_text('{"r": 2, "lora_alpha": 8}', "utf-8")
    out = tmp_path / "out.safetensors"
    for use in (read, fingerprint_file, inspect, lambda path: merge(path, out)):
        with pytest.raises(BadLora, match="a link out of the folder of the weights"):
            use(path)
    if place == "library":
        assert factors(read(path, root=tmp_path / "library")) == {stem: 4.0}
        assert fingerprint_file(path, root=tmp_path / "library").unchanged()
    else:
        with pytest.raises(BadLora, match="leads outside the library"):
            read(path, root=tmp_path / "library")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize("layout", ["cache", "cache, absolute", "own folder", "own subfolder"])
def test_a_link_is_followed_beside_the_weights_themselves(tmp_path: Path, layout: str) -> None:
    """Hugging Face's cache has links to both files, in `snapshots`, and both files in `blobs`."""
    stem = Q.replace("transformer.", "base_model.model.", 1)
    snapshot, blobs = tmp_path / "snapshots/5f0c", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    if layout.startswith("own"):
        real = snapshot / ("configs/a.json" if layout == "own subfolder" else "a.json")
        real.parent.mkdir(exist_ok=True)
        saved(snapshot / WEIGHTS, pair(stem))
    else:
        real = blobs / "1b2c"
        saved(blobs / "9f8e", pair(stem))
        (snapshot / WEIGHTS).symlink_to(_place(blobs / "9f8e", snapshot, layout))
    real.write_text('{"r": 2, "lora_alpha": 8}', "utf-8")
    (snapshot / "adapter_config.json").symlink_to(_place(real, snapshot, layout))
    path, out = snapshot / WEIGHTS, tmp_path / "out.safetensors"
    assert factors(read(path)) == {stem: 4.0}
    assert inspect(path).loras[0].alphas == (8.0,)
    assert merge(path, out).parts[0].fingerprint.unchanged()
    real.write_text('{"r": 2, "lora_alpha": 4}', "utf-8")
    assert merge(path, out, force=True).parts[0].file.alphas == (4.0,)


def _place(real: Path, folder: Path, layout: str) -> Path:
    return real if layout.endswith("absolute") else Path(os.path.relpath(real, folder))


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize("place", ["other/config.json", "blobs/deeper/config.json", "config.json"])
def test_a_link_to_one_that_is_elsewhere_is_refused(tmp_path: Path, place: str) -> None:
    stem = Q.replace("transformer.", "base_model.model.", 1)
    for folder in ("snapshot", "blobs/deeper", "other"):
        (tmp_path / folder).mkdir(parents=True)
    saved(tmp_path / "blobs/9f8e", pair(stem))
    (tmp_path / place).write_text('{"r": 2, "lora_alpha": 8}', "utf-8")
    path = tmp_path / "snapshot" / WEIGHTS
    path.symlink_to("../blobs/9f8e")
    path.with_name("adapter_config.json").symlink_to(tmp_path / place)
    for use in (read, fingerprint_file, inspect):
        with pytest.raises(BadLora, match="a link out of the folder of the weights"):
            use(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    path = beside(tmp_path, pair(Q), "{}")
    (tmp_path / "adapter_config.json").unlink()
    os.mkfifo(tmp_path / "adapter_config.json")
    with pytest.raises(
        BadLora, match=r"adapter_config\.json that can't be read: not a regular file"
    ):
        read(path)


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


def test_alphas_beside_a_file_are_compared_too(tmp_path: Path) -> None:
    tensors = with_alphas(pair(Q.replace("transformer.", "base_model.model.", 1)), 4)
    assert {*factors(read(beside(tmp_path, tensors, '{"r": 2, "lora_alpha": 4}'))).values()} == {2}
    with pytest.raises(BadLora, match=r"\.alpha keys and adapter_config\.json, which disagree"):
        read(beside(tmp_path, tensors, '{"r": 2, "lora_alpha": 2}'))


def test_alphas_under_other_names_are_compared_by_the_module(tmp_path: Path) -> None:
    pattern = {"^transformer_blocks.0.attn.to_q": 8}
    notes = adapter_metadata(r=2, lora_alpha=4, alpha_pattern=pattern)
    stem = "lora_unet_transformer_blocks_0_attn_to_q"
    path = saved(tmp_path / "a.safetensors", with_alphas(pair(stem), 8), notes)
    assert factors(read(path)) == {stem: 4.0}
    with pytest.raises(BadLora, match=f"disagree at {stem}"):
        read(saved(tmp_path / "b.safetensors", with_alphas(pair(stem), 4), notes))
