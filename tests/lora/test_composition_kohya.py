"""Composing into the kohya format: fused layers, alpha = rank on each, nothing grown in vain."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from safetensors import safe_open
from support import lora_oracle as oracle
from support.lora_checks import LIMITS, check, composed, examples, mixes, saved
from support.lora_files import Spec, write
from support.lora_names import DIFFUSERS, FORMATS, NORMS, STEMS
from support.lora_tensors import QKV, pair
from support.lora_tensors import saved as stored
from support.lora_wild import File, Lora, save

from composer.errors import BadLora
from composer.lora import compose, read

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from support.lora_checks import Mix

IMG_QKV = tuple(f"transformer_blocks.0.attn.to_{part}" for part in "qkv")
T5 = "lora_te3_encoder_block_0_layer_0_SelfAttention_q"


@examples(30)
@given(mixes(t5=True))
def test_kohyas_form_holds_the_same(mix: Mix) -> None:
    with tempfile.TemporaryDirectory() as name:
        sources = saved(Path(name), mix)
        out = composed(sources, Path(name) / "out", "kohya")
        check(out, sources, whole_clip=False)
        keys = oracle.load(out)
        prefixes = ("lora_unet_", "lora_te1_", "lora_te3_")
        assert all(key.startswith(prefixes) for key in keys)
        for key, values in keys.items():
            if key.endswith(".lora_down.weight"):
                stem = key.removesuffix(".lora_down.weight")
                assert stem in FORMATS["kohya"] or stem in FORMATS["text encoder"]
                assert values.shape[1] == STEMS[stem].inputs or stem == "lora_unet_img_in"
                assert keys[f"{stem}.alpha"] == values.shape[0]


def test_a_fused_lora_keeps_its_rank_and_its_down(tmp_path: Path) -> None:
    """No row grows: fused in, fused out, with alpha = rank instead of what it was."""
    path = write(Spec(True, "BF16", {QKV: 3}, {QKV: 1.0}), tmp_path / "in")
    out = composed([(path, 0.7)], tmp_path / "out", "kohya")
    before, after = oracle.load(path), oracle.load(out)
    assert read(out).ranks == (3,)
    assert float(after[f"{QKV}.alpha"]) == 3.0
    key = f"{QKV}.lora_down.weight"
    assert after[key].tobytes() == before[key].tobytes()


def split(folder: Path, downs: dict[str, Any], rng: np.random.Generator) -> Path:
    """A diffusers file with these A's."""
    tensors: dict[str, NDArray[Any]] = {}
    for module, down in downs.items():
        up = rng.standard_normal((DIFFUSERS[module].outputs, len(down)))
        tensors[f"transformer.{module}.lora_A.weight"] = down.astype(np.float32)
        tensors[f"transformer.{module}.lora_B.weight"] = up.astype(np.float32)
    return stored(folder / f"{len(list(folder.iterdir()))}.safetensors", tensors)


def test_parts_that_share_their_down_grow_no_rank(tmp_path: Path) -> None:
    """As diffusers saves what was trained fused: q, k and v with one A."""
    rng = np.random.default_rng(0)
    shared, other = rng.standard_normal((2, 4, 3072))
    one = split(tmp_path, dict.fromkeys(IMG_QKV, shared), rng)
    two = split(tmp_path, dict.fromkeys(IMG_QKV[:2], other), rng)
    sources = [(one, 0.5), (two, -0.25)]
    out = composed(sources, tmp_path / "out", "kohya")
    check(out, sources, whole_clip=False)
    assert read(out).ranks == (8,)
    assert not oracle.load(out)[f"{QKV}.lora_up.weight"][6144:, 4:].any()  # v has no second


def test_parts_with_downs_of_their_own_are_block_diagonal(tmp_path: Path) -> None:
    """Ranks that differ and a part that misses; and back, each part has its own rank again."""
    rng = np.random.default_rng(1)
    downs = {
        IMG_QKV[0]: rng.standard_normal((2, 3072)),
        IMG_QKV[2]: rng.standard_normal((3, 3072)),
    }
    sources = [(split(tmp_path, downs, rng), 0.5)]
    out = composed(sources, tmp_path / "out", "kohya")
    check(out, sources, whole_clip=False)
    up = oracle.load(out)[f"{QKV}.lora_up.weight"]
    used = [
        [bool(up[rows, rank].any()) for rank in range(5)]
        for rows in (slice(0, 3072), slice(3072, 6144), slice(6144, 9216))
    ]
    assert used == [[True] * 2 + [False] * 3, [False] * 5, [False] * 2 + [True] * 3]
    again = composed([(out, 1.0)], tmp_path / "again")
    check(again, sources, whole_clip=True)
    assert read(again).ranks == (2, 3)


def test_a_block_diagonal_file_stays_as_it_is(tmp_path: Path) -> None:
    path = write(Spec(True, "F32", {QKV: 2}, diagonal=True), tmp_path / "in")
    out = composed([(path, 0.5)], tmp_path / "out", "kohya")
    check(out, [(path, 0.5)], whole_clip=False)
    assert read(out).ranks == (6,)


def test_t5_has_a_place_there_and_norms_have_none(tmp_path: Path) -> None:
    t5 = save(File((Lora(T5),)), tmp_path / "t5")
    out = composed([(t5, 0.5)], tmp_path / "out", "kohya")
    check(out, [(t5, 0.5)], whole_clip=False)
    assert {key.partition(".")[0] for key in oracle.load(out)} == {T5}
    norms = save(File((Lora("x_embedder"),), tuple(NORMS)[:1]), tmp_path / "norms")
    with pytest.raises(BadLora, match="norms: brings scales of norms") as raised:
        compose([(read(norms), 0.5)], tmp_path / "out", metadata={}, format="kohya")
    assert raised.value.hint
    compose([(read(norms), 0.0)], tmp_path / "out", metadata={}, format="kohya")


def test_the_metadata_is_what_sd_scripts_looks_for(tmp_path: Path) -> None:
    mixed = write(Spec(True, "F32", {QKV: 2, "lora_unet_img_in": 3}), tmp_path / "in")
    alike = write(Spec(True, "F32", {QKV: 2, "lora_unet_img_in": 2}), tmp_path / "in2")
    for path, dimension in ((mixed, "Dynamic"), (alike, "2")):
        compose([(read(path), 1.0)], tmp_path / "out", metadata={"a": "b"}, format="kohya")
        with safe_open(tmp_path / "out", framework="np") as file:
            reader: Any = file
            assert reader.metadata() == {
                "a": "b",
                "format": "pt",
                "ss_base_model_version": "flux1",
                "ss_network_module": "networks.lora_flux",
                "ss_network_dim": dimension,
                "ss_network_alpha": dimension,
            }


@pytest.mark.parametrize("dtype", sorted(LIMITS))
def test_biases_become_differences(tmp_path: Path, dtype: str) -> None:
    """PEFT's bias of up has the LoRA's factor in it, a difference of the bias none."""
    loras = (
        Lora(IMG_QKV[0], alpha=1.0, ranks=(4, 1), dtype=dtype, bias=".lora_B.bias"),
        Lora(IMG_QKV[2], kind="bias", dtype=dtype, bias=".diff_b"),
    )
    sources = [(save(File(loras), tmp_path / "in"), 0.5)]
    out = composed(sources, tmp_path / "out", "kohya")
    check(out, sources, whole_clip=False)
    bias = oracle.load(out)[f"{QKV}.diff_b"].astype(np.float64)
    given = {key: v.astype(np.float64) for key, v in oracle.load(sources[0][0]).items()}
    assert np.allclose(bias[:3072], given[f"{IMG_QKV[0]}.lora_B.bias"] / 8, 1e-2, 1e-6)
    assert not bias[3072:6144].any()
    assert np.allclose(bias[6144:], given[f"{IMG_QKV[2]}.diff_b"] / 2, 1e-2, 1e-6)


def test_all_keys_of_a_biased_file_come_in_threes(tmp_path: Path) -> None:
    """the diffusers format of the same: PEFT wants a bias on every layer, or on none."""
    tensors = {
        **pair(f"transformer.{IMG_QKV[0]}"),
        f"transformer.{IMG_QKV[1]}.diff_b": np.ones(3072, np.float32),
    }
    out = composed([(stored(tmp_path / "in", tensors), 1.0)], tmp_path / "out")
    found = oracle.load(out)
    assert len(found) == 6
    assert not found[f"transformer.{IMG_QKV[0]}.lora_B.bias"].any()
    assert found[f"transformer.{IMG_QKV[1]}.lora_B.bias"].all()
    assert found[f"transformer.{IMG_QKV[1]}.lora_A.weight"].shape == (2, 3072)
