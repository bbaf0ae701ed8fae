"""Composing plain files: what is copied, rounded, refused and written, step by step."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from support import lora_oracle as oracle
from support.lora_checks import LIMITS
from support.lora_files import Spec, write

from composer.errors import BadLora
from composer.lora import compose, composed_size, read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TO_Q = "transformer_blocks.0.attn.to_q"
TO_OUT = "transformer_blocks.3.attn.to_out.0"
QKV = "lora_unet_double_blocks_0_img_attn_qkv"
HEAD = ("lora_unet_final_layer_adaLN_modulation_1", "lora_unet_final_layer_linear")
LINEAR1 = "lora_unet_single_blocks_0_linear1"


def composed(
    folder: Path, mix: Sequence[tuple[Spec, float]], name: str = "out"
) -> tuple[Path, list[tuple[Path, float]]]:
    """The composed file, and the files it was made from."""
    sources = [(write(spec, folder / f"{i}.safetensors"), s) for i, (spec, s) in enumerate(mix)]
    out = folder / f"{name}.tmp"
    compose([(read(path), scale) for path, scale in sources], out, metadata={"of": "a test"})
    return out, sources


def error(out: Path, sources: Sequence[tuple[Path, float]]) -> float:
    wanted = oracle.total(oracle.deltas(path, scale) for path, scale in sources)
    return oracle.worst(oracle.deltas(out), wanted)


@pytest.mark.parametrize("kohya", [False, True])
def test_all_modules_agree_with_dense_deltas(tmp_path: Path, kohya: bool) -> None:
    """Factors aside: whole matrices of a small module, and of one whose halves are swapped."""
    stems = {False: ("norm_out.linear", "proj_out"), True: HEAD}[kohya]
    spec = Spec(kohya, "F32", dict.fromkeys(stems, 2), dict.fromkeys(stems, 3.0))
    out, sources = composed(tmp_path, [(spec, 0.5)])
    tensors, given = load_file(out), load_file(sources[0][0])
    suffixes = ("lora_up", "lora_down") if kohya else ("lora_B", "lora_A")
    for module, stem in zip(("norm_out.linear", "proj_out"), stems, strict=True):
        name = stem if kohya else f"transformer.{stem}"
        up, down = (given[f"{name}.{suffix}.weight"].astype(np.float64) for suffix in suffixes)
        wanted = 0.5 * 3.0 / 2 * up @ down
        if kohya and module == "norm_out.linear":
            wanted = np.concatenate([wanted[3072:], wanted[:3072]])
        got = tensors[f"transformer.{module}.lora_B.weight"].astype(np.float64)
        got = got @ tensors[f"transformer.{module}.lora_A.weight"]
        assert np.allclose(got, wanted, rtol=1e-5, atol=1e-9)


def test_down_weights_are_copied_bit_for_bit(tmp_path: Path) -> None:
    mix = [(Spec(False, "BF16", {TO_Q: 3}, seed=n), 0.3) for n in (1, 2)]
    out, sources = composed(tmp_path, mix)
    key = f"transformer.{TO_Q}.lora_A.weight"
    stacked = np.concatenate([load_file(path)[key] for path, _ in sources])
    assert load_file(out)[key].tobytes() == stacked.tobytes()


def test_a_power_of_two_costs_nothing(tmp_path: Path) -> None:
    mix = [(Spec(False, "BF16", {TO_Q: 2, TO_OUT: 4}, {TO_Q: 1.0, TO_OUT: 1.0}), 0.5)]
    out, sources = composed(tmp_path, mix)
    assert error(out, sources) < 1e-12


@pytest.mark.parametrize(("stem", "parts"), [(QKV, 3), (LINEAR1, 4)])
def test_a_block_diagonal_file_gets_its_true_rank_back(
    tmp_path: Path, stem: str, parts: int
) -> None:
    spec = Spec(True, "F16", {stem: 2}, {stem: 2.0}, diagonal=True)
    out, sources = composed(tmp_path, [(spec, 0.7)])
    assert read(sources[0][0]).ranks == (2 * parts,)
    assert read(out).ranks == (2,)
    assert error(out, sources) <= LIMITS["F16"]


def test_a_fused_lora_that_misses_a_part_changes_the_others_alone(tmp_path: Path) -> None:
    path = write(Spec(True, "F32", {QKV: 2}), tmp_path / "in.safetensors")
    tensors = load_file(path)
    tensors[f"{QKV}.lora_up.weight"][3072:6144] = 0
    save_file(tensors, path)
    compose([(read(path), 1.0)], tmp_path / "out", metadata={})
    assert read(tmp_path / "out").modules == (TO_Q, TO_Q.replace("to_q", "to_v"))


def test_uniform_ranks_need_no_alpha(tmp_path: Path) -> None:
    out, _ = composed(tmp_path, [(Spec(False, "F32", {TO_Q: 4, TO_OUT: 4}, {TO_Q: 1.0}), 0.7)])
    assert not [key for key in load_file(out) if key.endswith("alpha")]


def test_mixed_ranks_share_one_alpha(tmp_path: Path) -> None:
    """The commonest rank; the smaller of two equally common."""
    out, _ = composed(tmp_path, [(Spec(False, "BF16", {TO_Q: 4, TO_OUT: 2, "proj_out": 2}), 0.7)])
    assert {float(v) for k, v in load_file(out).items() if k.endswith(".alpha")} == {2.0}
    out, _ = composed(tmp_path, [(Spec(False, "F32", {TO_Q: 4, TO_OUT: 3}), 0.7)])
    assert {float(v) for k, v in load_file(out).items() if k.endswith(".alpha")} == {3.0}


@pytest.mark.parametrize(
    ("dtypes", "wanted"),
    [
        (("BF16", "BF16"), "BF16"),
        (("F16", "F16"), "F16"),
        (("F32", "F32"), "F32"),
        (("BF16", "F16"), "F32"),
        (("BF16", "F32"), "F32"),
    ],
)
def test_types(tmp_path: Path, dtypes: tuple[str, ...], wanted: str) -> None:
    out, _ = composed(tmp_path, [(Spec(False, dtype, {TO_Q: 2}), 0.9) for dtype in dtypes])
    assert read(out).dtypes == (wanted,)


def test_a_part_of_scale_zero_adds_nothing(tmp_path: Path) -> None:
    silent = (Spec(False, "F32", {"proj_out": 7}), 0.0)
    heard = (Spec(False, "BF16", {TO_Q: 2}), 0.9)
    out, _ = composed(tmp_path, [silent, heard])
    assert read(out).modules == (TO_Q,)
    assert read(out).dtypes == ("BF16",)
    alone, _ = composed(tmp_path, [heard], "alone")
    assert alone.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("spec", "scale"),
    [
        (Spec(False, "BF16", {TO_OUT: 2}), 0.0),
        (Spec(True, "BF16", {QKV: 2}, {QKV: 0.0}), 1.0),
    ],
)
def test_nothing_left_is_a_valid_file_without_effect(
    tmp_path: Path, spec: Spec, scale: float
) -> None:
    out, sources = composed(tmp_path, [(spec, scale)])
    tensors = load_file(out)
    assert sorted(tensors) == [f"transformer.{TO_Q}.lora_{x}.weight" for x in "AB"]
    assert not any(np.asarray(value, np.float32).any() for value in tensors.values())
    assert out.stat().st_size <= composed_size([(read(sources[0][0]), scale)])


@pytest.mark.parametrize("factor", [1e-5, 3e6])
def test_float16_that_scaling_brings_out_of_range_becomes_float32(
    tmp_path: Path, factor: float
) -> None:
    """Once too small, once too large; the result keeps float16's promise and more."""
    spec = Spec(False, "F16", {TO_Q: 1, TO_OUT: 1})
    path = write(spec, tmp_path / "in.safetensors")
    parts = [(read(path), factor)]
    seen: list[float] = []
    out = tmp_path / "out"
    compose(parts, out, metadata={}, progress=seen.append)
    assert read(out).dtypes == ("F32",)
    assert error(out, [(path, factor)]) <= LIMITS["F32"]
    assert out.stat().st_size <= composed_size(parts)
    assert seen[-1] == 1.0


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_values_beyond_every_type_are_refused(tmp_path: Path, dtype: str) -> None:
    path = write(Spec(False, dtype, {TO_Q: 1}), tmp_path / "in.safetensors")
    with pytest.raises(BadLora, match=r"in\.safetensors.*to_q\.lora_B\.weight is too large"):
        compose([(read(path), 1e42)], tmp_path / "out", metadata={})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("kohya", "stem", "suffix"),
    [(False, TO_Q, "lora_A"), (False, TO_Q, "lora_B"), (True, QKV, "lora_up")],
)
def test_values_that_are_not_finite_are_refused(
    tmp_path: Path, value: float, kohya: bool, stem: str, suffix: str
) -> None:
    path = write(Spec(kohya, "BF16", {stem: 2}), tmp_path / "in.safetensors")
    tensors = load_file(path)
    key = next(key for key in tensors if suffix in key)
    tensors[key][-1, 1] = value
    save_file(tensors, path)
    lora = read(path)
    with pytest.raises(BadLora, match=rf"in\.safetensors: .*{suffix}.*not finite"):
        compose([(lora, 0.5)], tmp_path / "out", metadata={})
    assert not (tmp_path / "out").exists()


def test_a_scale_that_is_not_finite_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    lora = read(write(Spec(False, "F32", {TO_Q: 1}), tmp_path / "in.safetensors"))
    with pytest.raises(ValueError, match="finite"):
        compose([(lora, float("nan"))], tmp_path / "out", metadata={})


def test_a_file_that_changed_is_noticed(tmp_path: Path) -> None:
    path = write(Spec(False, "F32", {TO_Q: 1}), tmp_path / "in.safetensors")
    lora = read(path)
    write(Spec(False, "F32", {TO_Q: 2}), path)
    with pytest.raises(BadLora, match=r"in\.safetensors: was changed"):
        compose([(lora, 1.0)], tmp_path / "out", metadata={})
    path.unlink()
    with pytest.raises(BadLora, match=r"in\.safetensors: can't be read"):
        compose([(lora, 1.0)], tmp_path / "out", metadata={})


def test_progress_rises_and_may_cancel(tmp_path: Path) -> None:
    class Cancelled(Exception):
        pass

    lora = read(write(Spec(False, "F32", {TO_Q: 1, TO_OUT: 2}), tmp_path / "in.safetensors"))
    seen: list[float] = []
    compose([(lora, 1.0)], tmp_path / "out", metadata={}, progress=seen.append)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 1.0)
    assert len(seen) == 3  # before each of two layers, and at the end

    def cancel(share: float) -> None:
        if share > 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        compose([(lora, 1.0)], tmp_path / "out", metadata={}, progress=cancel)
    assert not (tmp_path / "out").exists()


def test_the_layout_is_the_reference_writers(tmp_path: Path) -> None:
    """Its bytes, for the same tensors and one entry of metadata (its order of more is random)."""
    lora = read(write(Spec(False, "BF16", {TO_Q: 1, TO_OUT: 2}), tmp_path / "in.safetensors"))
    compose([(lora, 0.3)], tmp_path / "out", metadata={})
    save_file(load_file(tmp_path / "out"), tmp_path / "reference", metadata={"format": "pt"})
    assert (tmp_path / "out").read_bytes() == (tmp_path / "reference").read_bytes()


def test_metadata_is_the_callers_and_the_format(tmp_path: Path) -> None:
    lora = read(write(Spec(False, "F32", {TO_Q: 1}), tmp_path / "in.safetensors"))
    given = {"modelspec.title": "Schlüssel – 鍵", "format": "np"}
    compose([(lora, 1.0)], tmp_path / "out", metadata=given)
    with safe_open(tmp_path / "out", framework="np") as file:
        reader: Any = file
        assert reader.metadata() == {"modelspec.title": "Schlüssel – 鍵", "format": "pt"}
    assert read(tmp_path / "out").title == "Schlüssel – 鍵"


def test_memory_is_about_a_module_not_a_file(tmp_path: Path) -> None:
    """Peak of Python's own allocations, which numpy reports too, for a file of many modules."""

    ranks = {stem: 32 for stem in oracle.SPLIT}
    lora = read(write(Spec(False, "F32", ranks), tmp_path / "in.safetensors"))
    largest = 12288 * 32 * 4
    tracemalloc.start()
    compose([(lora, 0.5)], tmp_path / "out", metadata={})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "out").stat().st_size > 8 * largest
    assert peak < 8 * largest
