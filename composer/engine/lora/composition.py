"""Composing LoRA files: their weighted sum as one LoRA, exact but for one rounding.

For every module A = [A1; A2; …] and B = [s1 c1 B1, s2 c2 B2, …], in the caller's order of the
parts: the product is the sum of the parts' deltas, with no cross terms. A is copied bit for bit
(or widened); B is computed in float64 and rounded once. Memory holds one module at a time.
"""

from __future__ import annotations

from contextlib import ExitStack
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from composer.engine.lora.dtypes import BF16, F16, F32, NUMPY, finite
from composer.engine.lora.flaw import Flaw
from composer.engine.lora.formats import Piece
from composer.engine.lora.layout import Layout, shared_dtype
from composer.engine.lora.writer import writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from composer.engine.lora.container import Tensor
    from composer.engine.lora.layout import Slot, Term
    from composer.engine.lora.reading import LoraFile


class _TooNarrow(Exception):
    """A value doesn't fit float16 after scaling."""


def compose(
    parts: Sequence[tuple[LoraFile, float]],
    out: Path,
    *,
    metadata: Mapping[str, str],
    progress: Callable[[float], None] = lambda share: None,
) -> None:
    """Write the sum of `parts`, each a file and its scale, to `out`.

    The order of `parts` is the order of the concatenation: the same parts in the same order give
    the same bytes anywhere. The type is the parts' own if they share one, else float32; float16
    that scaling would bring out of range becomes float32 too. Modules whose ranks differ get one
    constant `.alpha`, by which every loader computes the right strength. Parts and LoRAs of factor
    0 add nothing.

    `progress` is called with 0..1 before each tensor and at the end, and may raise to cancel; a
    change to float32 starts it over. `out` is complete and on the disk when this returns, and gone
    if it raises. Raises `BadLora` for values that aren't finite, or a file that changed since it
    was read, and `OSError` where `out` can't be written.
    """
    if not all(isfinite(scale) for _, scale in parts):
        raise ValueError("a scale must be a finite number")
    with ExitStack() as stack:
        layout = Layout.of(parts, stack)
        dtype = shared_dtype(parts)
        try:
            _write(layout, dtype, out, metadata, progress)
        except _TooNarrow:
            _write(layout, F32, out, metadata, progress)


def _write(
    layout: Layout,
    dtype: str,
    out: Path,
    metadata: Mapping[str, str],
    progress: Callable[[float], None],
) -> None:
    slots = layout.slots(dtype)
    done, total = 0, sum(slot.spec.size for slot in slots)
    with writing(out, [slot.spec for slot in slots], {**metadata, "format": "pt"}) as add:
        for slot in slots:
            progress(done / total)
            for values in _values(layout, slot):
                add(values)
            done += slot.spec.size
    progress(1.0)


def _values(layout: Layout, slot: Slot) -> Iterator[NDArray[Any]]:
    """The values of a tensor of the result, in pieces."""
    terms = layout.modules.get(slot.path, ())
    dtype = NUMPY[slot.spec.dtype]
    if slot.piece is Piece.ALPHA:
        yield np.full((), layout.alpha, dtype)
    elif not terms:
        yield np.zeros(slot.spec.shape, dtype)
    elif slot.piece is Piece.DOWN:
        yield from (_down(term).astype(dtype, copy=False) for term in terms)
    else:
        up, column = np.empty(slot.spec.shape, dtype), 0
        for term in terms:
            shared = layout.factor(term, slot.path)
            up[:, column : column + term.rank] = _scaled(term, shared, slot.spec.dtype)
            column += term.rank
        yield up


def _down(term: Term) -> NDArray[Any]:
    """A, (rank, inputs), as it is in the file."""
    values = _checked(term, term.adapter.down, 0, term.adapter.rank)
    return values if term.keep is None else values[list(term.keep)]


def _up(term: Term) -> NDArray[Any]:
    """B, (outputs, rank), as it is in the file, rows in diffusers' order."""
    values = _checked(term, term.adapter.up, term.part.start, term.part.stop)
    if term.part.swapped:
        values = np.roll(values, values.shape[0] // 2, axis=0)
    return values if term.keep is None else values[:, list(term.keep)]


def _checked(term: Term, tensor: Tensor, first: int, last: int) -> NDArray[Any]:
    try:
        values = term.source.rows(tensor, first, last)
        if not finite(values):
            raise Flaw(f"{tensor.name} holds values that are not finite (NaN or infinity)")
        return values
    except Flaw as flaw:
        raise flaw.of(term.path) from None


def _scaled(term: Term, factor: float, dtype: str) -> NDArray[Any]:
    """factor * B in float64, rounded to the type of the result.

    To bfloat16 by way of float32: that conversion is the same in every version of `ml_dtypes`.
    """
    with np.errstate(over="ignore"):
        exact = _up(term).astype(np.float64) * factor
        rounded = (exact.astype(np.float32) if dtype == BF16 else exact).astype(NUMPY[dtype])
    if dtype == F16 and not _fits_f16(exact):
        raise _TooNarrow
    if not finite(rounded):
        reason = f"{term.adapter.up.name} is too large for {dtype} once it is scaled"
        raise Flaw(reason).of(term.path)
    return rounded


def _fits_f16(values: NDArray[np.float64]) -> bool:
    """Whether float16 holds these values with a relative error (Frobenius) below 1e-3.

    Normal numbers err by 2**-11 at most. Smaller ones err by 2**-25 each: if they are no more
    than the normal ones, which are at least 2**-14 each, together by 2**-11 of the norm again.
    Counting, unlike adding up squares, comes out the same on every machine.
    """
    sizes = np.abs(values)
    normal = np.count_nonzero(sizes >= 2.0**-14)
    tiny = np.count_nonzero(sizes) - normal
    return bool(tiny <= normal and sizes.max() < 65520.0)
