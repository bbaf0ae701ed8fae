"""The number formats of a safetensors file, and rounding to them without leaving their range.

The numpy types serve reading and writing; `weights` rounds every tensor of a result through
here, from float64 (for bfloat16, float32). A value that is not a number is out of every range.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from composer.errors import BadLora

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]

F64, F32, F16, BF16 = "F64", "F32", "F16", "BF16"

NUMPY: Mapping[str, np.dtype[Any]] = {
    F32: np.dtype("<f4"),
    F16: np.dtype("<f2"),
    BF16: np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    F64: np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
}
# Alphas come in any of them, weights in these; results are written in the first three.
WEIGHTS = (F32, F16, BF16, "F8_E4M3", "F8_E5M2", F64)
WRITTEN = WEIGHTS[:3]

# The bits of infinity, or of NaN where there is none: all above are not numbers.
_NO_NUMBER = {F32: 0x7F800000, F16: 0x7C00, BF16: 0x7F80, "F8_E4M3": 0x7F, "F8_E5M2": 0x7C}
_LIMITS = {NUMPY[name]: limit for name, limit in _NO_NUMBER.items()}


def finite(values: NDArray[Any]) -> bool:
    """Whether no value is NaN or infinite.

    Compares the bits, as signed numbers for the positive values and as unsigned ones for the
    negative: `np.isfinite` takes ten times as long for types that numpy doesn't know.
    """
    limit = _LIMITS.get(values.dtype)
    if limit is None or not values.size:
        return bool(np.isfinite(values).all())
    sign = 1 << (8 * values.itemsize - 1)
    signed, unsigned = values.view(f"<i{values.itemsize}"), values.view(f"<u{values.itemsize}")
    return bool(signed.max() < limit and unsigned.max() < sign + limit)


NORMAL, BEYOND = 2.0**-14, 65520.0  # float16: the smallest normal number, and what rounds to inf
TABLE = 1 << 15  # values from which on a table of all that a 16-bit number can become pays


class TooNarrow(Exception):
    """Values don't fit float16; `error` says it to the user who asked for that type.

    `small`: most of them are too small to keep their digits; else one is too large.
    """

    def __init__(self, name: object, *, small: bool) -> None:
        super().__init__(str(name))
        self.small = small
        what = "too small for float16" if small else "beyond float16's range"
        hint = "take the precision bfloat16 or float32"
        self.error = BadLora(f"{name} has values {what}", hint=hint)


def round_to_dtype(exact: Array, dtype: str, name: object) -> Array:
    """`exact` in the type of the result. `name` as a text is what it is, for the message.

    To bfloat16 by way of float32: that conversion is the same in every version of `ml_dtypes`.
    Raises `TooNarrow` where float16 can't hold it, `BadLora` where even a wide type can't.
    """
    target = NUMPY[dtype]
    if exact.dtype == target:
        return exact
    if dtype == F16:
        _check_f16(np.abs(exact), NORMAL, BEYOND, name)
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = (exact.astype(np.float32) if dtype == BF16 else exact).astype(target)
    check_range(narrow, name)
    return narrow


def scale_into(out: Array, values: Array, factor: float, name: object) -> None:
    """Put factor * values into `out`, computed in float64, or in float32 for bfloat16: what that
    loses is a 2**15th of the rounding.

    In one pass without copies, as numpy's buffered loops do it. Raises `TooNarrow`. The range of
    other types is left to `check_range`, which checks a whole tensor at once.
    """
    if out.dtype != NUMPY[F16]:
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(values, factor, out=out, dtype=_width(out, factor), casting="unsafe")
    elif values.dtype == out.dtype and abs(factor) == 1:
        np.multiply(values, out.dtype.type(factor), out=out)  # no digit is lost
    elif values.itemsize <= 2 and values.size >= TABLE:
        out[...] = _Halves.of(values.dtype, factor).taken(values, name)
    else:
        out[...] = round_to_dtype(values.astype(np.float64) * factor, F16, name)


def _width(out: Array, factor: float) -> type[np.floating[Any]]:
    narrow = out.dtype == NUMPY[BF16] and 2.0**-64 < abs(factor) < 2.0**64
    return np.float32 if narrow else np.float64


def check_range(values: Array, name: object) -> None:
    """Raise `BadLora` where a value is out of range."""
    if not finite(values):
        raise BadLora(f"{name} is too large for {values.dtype} once it is scaled")


def _check_f16(sizes: Array, normal: float, beyond: float, name: object) -> None:
    """Raise `TooNarrow` unless float16 holds them with a relative error (Frobenius) below 1e-3.

    Numbers from `normal` on err by 2**-11 at most. Smaller ones err by 2**-25 each: if they are at
    most as many as the normal ones, which are at least 2**-14 each, together by 2**-11 of the norm
    again. Counting, unlike adding up squares, comes out the same on every machine.
    """
    large = np.count_nonzero(sizes >= normal)
    small = np.count_nonzero(sizes) - large
    if not sizes.max(initial=0) < beyond:
        raise TooNarrow(name, small=False)
    if small > large:
        raise TooNarrow(name, small=True)


@dataclass(frozen=True, slots=True)
class _Halves:
    """What every number of a type of at most 16 bits becomes in float16 once it is scaled: looking
    that up takes a third of the time of two conversions in software.

    `normal` and `beyond` are the first bits, without the sign, of what `_check_f16` calls so:
    numbers rise with their bits, and no number is above them all.
    """

    results: Array
    normal: int
    beyond: int

    @classmethod
    @lru_cache(maxsize=64)  # 128 KiB each
    def of(cls, dtype: np.dtype[Any], factor: float) -> _Halves:
        bits = np.arange(1 << (8 * dtype.itemsize), dtype=f"<u{dtype.itemsize}")
        with np.errstate(over="ignore", invalid="ignore"):
            exact = bits.view(dtype).astype(np.float64) * factor
            results = exact.astype(NUMPY[F16])
        sizes = np.abs(exact[: len(bits) // 2])
        sizes[np.isnan(sizes)] = np.inf
        normal, beyond = np.searchsorted(sizes, (NORMAL, BEYOND))
        return cls(results, int(normal), int(beyond))

    def taken(self, values: Array, name: object) -> Array:
        """The results for these values."""
        bits = values.view(f"<u{values.itemsize}")
        _check_f16(bits & (len(self.results) // 2 - 1), self.normal, self.beyond, name)
        taken: Array = np.take(self.results, bits, mode="clip")
        return taken
