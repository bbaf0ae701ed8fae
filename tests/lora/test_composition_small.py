"""Values at the edge of what a type holds, and changes that cancel: nothing grows or is lost."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.lora_checks import check, composed
from support.lora_tensors import pair, saved

from composer.errors import BadLora
from composer.lora import compose, read
from composer.lora.analysis import grams

if TYPE_CHECKING:
    from pathlib import Path

STEM = "transformer.transformer_blocks.0.attn.to_q"
KOHYA = "lora_unet_double_blocks_0_img_attn_qkv"
RNG = np.random.default_rng(7)


def noise(*shape: int, size: float, dtype: str = "f2") -> np.ndarray:
    return (RNG.standard_normal(shape) * size).astype(np.float32).astype(dtype)


def file(path: Path, *, up: float, down: float = 0.02, rank: int = 16) -> Path:
    tensors = {
        f"{STEM}.lora_A.weight": noise(rank, 3072, size=down),
        f"{STEM}.lora_B.weight": noise(3072, rank, size=up),
    }
    return saved(path, tensors)


# --- float16 -----------------------------------------------------------------------------


def test_a_float16_file_at_scale_1_stays_as_it_is(tmp_path: Path) -> None:
    """However small its values are: most of them below the smallest normal number here."""
    path = file(tmp_path / "in", up=3e-5)
    compose([(read(path), 1.0)], tmp_path / "out", metadata={})
    up, before, after = f"{STEM}.lora_B.weight", load_file(path), load_file(tmp_path / "out")
    assert {k: v.tobytes() for k, v in before.items()} == {k: v.tobytes() for k, v in after.items()}
    compose([(read(path), -1.0)], tmp_path / "out", metadata={})
    assert (load_file(tmp_path / "out")[up] == -before[up]).all()


@pytest.mark.parametrize(("up", "down"), [(3e-5, 0.02), (1e-4, 0.5), (4e-6, 0.1), (2.0, 1e-5)])
@pytest.mark.parametrize("scale", [0.5, 0.65])
def test_small_values_do_not_make_a_file_twice_the_size(
    tmp_path: Path, up: float, down: float, scale: float
) -> None:
    """As with kohya's default alpha of 1: a power of two goes from one factor to the other."""
    path = file(tmp_path / "in", up=up, down=down)
    sources = [(path, scale)]
    out = composed(sources, tmp_path / "out")
    assert read(out).dtypes == ("F16",)
    check(out, sources, whole_clip=True)


# --- changes that cancel -----------------------------------------------------------------


@pytest.mark.parametrize("rest", [1e-2, 1e-3, 1e-5])
def test_what_is_left_of_opposites_is_measured_right(tmp_path: Path, rest: float) -> None:
    """A slider: a LoRA and nearly the same with a minus, side by side in one file."""
    up, down = noise(3072, 8, size=1.0, dtype="f4"), noise(8, 3072, size=1.0, dtype="f4")
    other = up * (1 + rest * noise(3072, 8, size=1.0, dtype="f4"))
    factors = {
        f"{STEM}.lora_A.weight": np.concatenate([down, down]),
        f"{STEM}.lora_B.weight": np.concatenate([up, -other], axis=1),
    }
    path = saved(tmp_path / "in", factors)
    a, b = (factors[f"{STEM}.lora_{n}.weight"].astype(np.float64) for n in "AB")
    wanted = ((a @ a.T) * (b.T @ b)).sum()
    (block,) = grams([read(path)]).blocks.values()
    assert block[0, 0] == pytest.approx(wanted, rel=1e-6)


# --- what nothing is made of -------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_number_hides_behind_a_fused_layer_of_zeros(tmp_path: Path, value: float) -> None:
    tensors = pair(KOHYA, outputs=9216)
    down, up = (next(key for key in tensors if end in key) for end in ("down", "up"))
    tensors[up] = np.zeros_like(tensors[up])
    tensors[down] = tensors[down].copy()
    tensors[down][0, 5] = value
    path = saved(tmp_path / "in", tensors)
    with pytest.raises(BadLora, match=r"in: .*lora_down.* not finite"):
        compose([(read(path), 0.5)], tmp_path / "out", metadata={})
    with pytest.raises(BadLora, match=r"in: .*lora_down.* not finite"):
        grams([read(path)])


def test_memory_does_not_grow_with_the_square_of_a_loha_s_rank(tmp_path: Path) -> None:
    """Whether two parts share their A is told by what is stored: A has the square of its rank."""
    rank, tensors = 192, {}
    for part in ("q", "k", "v"):
        stem = f"lycoris_transformer_blocks_0_attn_to_{part}"
        for side in ("w1", "w2"):
            tensors[f"{stem}.hada_{side}_a"] = noise(3072, rank, size=0.1)
            tensors[f"{stem}.hada_{side}_b"] = noise(rank, 3072, size=0.1)
    path = saved(tmp_path / "in", tensors)
    one_layer = 9216 * 3072 * 8
    tracemalloc.start()
    compose([(read(path), 0.5)], tmp_path / "out", metadata={}, format="kohya")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * one_layer  # A alone would have taken that, twice
