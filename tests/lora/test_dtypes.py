"""Rounding to the type of the result: the same whichever way it is done, and never out of range."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from composer.lora.dtypes import TABLE, TooNarrow, round_to_dtype, scale_into

NARROW: dict[str, Any] = {
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}


def values(name: str, size: int, seed: int, spread: float) -> Any:
    noise = np.random.default_rng(seed).standard_normal(size) * spread
    most = float(ml_dtypes.finfo(NARROW[name]).max)
    return noise.clip(-most, most).astype(np.float32).astype(NARROW[name]).reshape(-1, 4)


def scaled(kind: Any, dtype: Any, factor: float) -> Any:
    place = np.zeros((len(kind), 2 * kind.shape[1]), dtype)
    scale_into(place[:, : kind.shape[1]], kind, factor, "it")
    return place[:, : kind.shape[1]]


@given(
    name=st.sampled_from(sorted(NARROW)),
    seed=st.integers(0, 99),
    spread=st.sampled_from([1e-6, 1e-3, 0.02, 1.0, 100.0, 40000.0]),
    factor=st.floats(-2, 2).filter(bool),
)
def test_many_numbers_become_in_float16_what_few_do(
    name: str, seed: int, spread: float, factor: float
) -> None:
    """From TABLE values on they are looked up, and it is the same, too narrow or not."""
    many = values(name, TABLE, seed, spread)
    exact = many.astype(np.float64) * factor
    try:
        wanted = round_to_dtype(exact, "F16", "it")
    except TooNarrow:
        with pytest.raises(TooNarrow):
            scaled(many, np.float16, factor)
    else:
        assert scaled(many, np.float16, factor).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["F16", "BF16", "F8_E5M2"])
def test_what_is_no_number_is_too_narrow(name: str, odd: float) -> None:
    many = values(name, TABLE, 1, 1.0)
    many[-1, -1] = odd
    with pytest.raises(TooNarrow):
        scaled(many, np.float16, 0.5)


@given(
    seed=st.integers(0, 99),
    spread=st.sampled_from([1e-38, 1e-3, 1.0, 1e30]),
    factor=st.floats(1e-30, 2) | st.sampled_from([1e-45, 2.0**-64, 2.0**64, 1e30]),
)
def test_bfloat16_is_rounded_once_but_for_a_trace(seed: int, spread: float, factor: float) -> None:
    """At most half a unit in the last place away, and a 2**15th of it."""
    many = values("BF16", 4096, seed, spread)
    exact = many.astype(np.float64) * factor
    got = scaled(many, ml_dtypes.bfloat16, factor).astype(np.float64)
    fits = np.abs(exact) < 3.3e38
    unit = 2.0 ** np.maximum(np.frexp(exact)[1] - 8, -133.0)
    assert (np.abs(got - exact) <= 0.5 * unit * (1 + 2.0**-14))[fits].all()
    assert not np.isfinite(got[np.abs(exact) > 3.4e38]).any()
