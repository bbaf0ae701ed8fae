"""The number formats of a safetensors file: their sizes, and the three that we compute with.

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
}


def finite(values: NDArray[Any]) -> bool:
    """Whether no value is NaN or infinite."""
    return bool(np.isfinite(values).all())
