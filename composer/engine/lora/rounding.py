"""From float64 to the type of the result, once, and never out of its range.

`weights` rounds every tensor through here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from composer.engine.lora.dtypes import BF16, F16, NUMPY, finite
from composer.errors import BadLora

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TooNarrow(Exception):
    """A value doesn't fit float16; `error` says it to the user who asked for that type."""

    def __init__(self, error: BadLora) -> None:
        super().__init__(str(error))
        self.error = error


def rounded(exact: NDArray[Any], dtype: str, name: str) -> NDArray[Any]:
    """`exact` in the type of the result. `name` is what it is, for the message.

    To bfloat16 by way of float32: that conversion is the same in every version of `ml_dtypes`.
    Raises `TooNarrow` where float16 can't hold it, `BadLora` where even a wide type can't.
    """
    wanted = NUMPY[dtype]
    if exact.dtype == wanted:
        return exact
    if dtype == F16 and not _fits_f16(exact):
        raise TooNarrow(
            BadLora(
                f"{name} has values beyond float16's range",
                hint="take the precision bfloat16 or float32",
            )
        )
    with np.errstate(over="ignore"):
        narrow = (exact.astype(np.float32) if dtype == BF16 else exact).astype(wanted)
    if not finite(narrow):
        raise _too_large(name, wanted)
    return narrow


def scale_into(place: NDArray[Any], values: NDArray[Any], factor: float, name: str) -> None:
    """Put factor * values, computed in float64 and rounded once, into `place`.

    In one pass without copies, as numpy's buffered loops do it; to bfloat16 they round as the way
    through float32 would. Raises `TooNarrow`. Other types' range is for `check_range` to look at,
    once for all that lies side by side: a slice takes several times as long.
    """
    if place.dtype == NUMPY[F16]:
        place[...] = rounded(values.astype(np.float64) * factor, F16, name)
        return
    with np.errstate(over="ignore"):
        np.multiply(values, factor, out=place, dtype=np.float64, casting="unsafe")


def check_range(place: NDArray[Any], name: str) -> None:
    """Raise `BadLora` where scaling brought a value out of range."""
    if not finite(place):
        raise _too_large(name, place.dtype)


def _too_large(name: str, dtype: np.dtype[Any]) -> BadLora:
    return BadLora(f"{name} is too large for {dtype} once it is scaled")


def _fits_f16(values: NDArray[Any]) -> bool:
    """Whether float16 holds these values with a relative error (Frobenius) below 1e-3.

    Normal numbers err by 2**-11 at most. Smaller ones err by 2**-25 each: if they are no more
    than the normal ones, which are at least 2**-14 each, together by 2**-11 of the norm again.
    Counting, unlike adding up squares, comes out the same on every machine.
    """
    sizes = np.abs(values)
    normal = np.count_nonzero(sizes >= 2.0**-14)
    tiny = np.count_nonzero(sizes) - normal
    return bool(tiny <= normal and sizes.max(initial=0.0) < 65520.0)
