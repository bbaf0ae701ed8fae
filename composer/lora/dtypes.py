"""The number formats of a safetensors file: their sizes, and those that we read and write.

`container` measures tensors with the sizes; reading and composing use the numpy types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

F32, F16, BF16 = "F32", "F16", "BF16"

# Bits of one value, by the name in the header (the safetensors format's own list).
BITS: Mapping[str, int] = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", F16, BF16), 16),
    **dict.fromkeys(("I32", "U32", F32), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}

NUMPY: Mapping[str, np.dtype[Any]] = {
    F32: np.dtype("<f4"),
    F16: np.dtype("<f2"),
    BF16: np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
}
# Alphas come in any of them, weights in these; results are written in the first three.
WEIGHTS = (F32, F16, BF16, "F8_E4M3", "F8_E5M2")
WRITTEN = WEIGHTS[:3]

# The bits of infinity, or of NaN where there is none: all above is no number.
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
