"""The tensors of one layer of the result: concatenated, or reduced to the rank that was asked.

`composition` calls `weights_of` for each layer, from several threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from composer.errors import BadLora
from composer.lora.contributions import RowRange
from composer.lora.deltas import Kronecker
from composer.lora.dtypes import (
    F32,
    NUMPY,
    TooNarrow,
    check_range,
    finite,
    round_to_dtype,
    scale_into,
)
from composer.lora.reduction import (
    building_cost,
    dense_cost,
    factors_cost,
    kronecker_cost,
    reduced,
    reduced_dense,
    reduced_kronecker,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from composer.lora.contributions import ScaledDelta
    from composer.lora.layout import Block, Layer, Layout
    from composer.lora.reduction import Reduced

    Array = NDArray[Any]

SHIFTS = (3, 6, 9, -3, -6, -9)  # bits that may go from A to B
ROWS = 4096  # of B at a time: larger pieces cost more in fresh memory than they save in calls


@dataclass(frozen=True, slots=True)
class Weights:
    """A layer's tensors by key; `kept` and `whole` are the squared norms of a reduced one."""

    layer: Layer
    tensors: Mapping[str, Array]
    kept: float | None = None
    whole: float | None = None


def weights_of(layout: Layout, dtype: str, layer: Layer) -> Weights:
    """The tensors of one layer, in the type of the result. Raises `BadLora`, `TooNarrow`."""
    try:
        return _weights_of(layout, dtype, layer)
    except (BadLora, TooNarrow):
        for term in layer.shares.terms:
            term.check()  # if its own values are not numbers, that is the reason
        raise


def _weights_of(layout: Layout, dtype: str, layer: Layer) -> Weights:
    prefix, output_format = layer.output.prefix, layout.output_format
    kept = whole = None
    if layer.total <= layer.rank:
        down, up = _concatenated(layer, layout.alpha_correction(layer), dtype)
    else:
        down, up, kept, whole = _reduced(layer, layout.alpha_correction(layer), dtype)
    tensors = {prefix + output_format.down: down, prefix + output_format.up: up}
    if (alpha := layout.alpha_of(layer)) is not None:
        tensors[f"{prefix}.alpha"] = np.full((), alpha, NUMPY[F32])
    if layout.has_bias(layer):
        bias = _bias(layer) * layout.alpha_correction(layer)  # a loader scales both alike
        tensors[prefix + output_format.bias] = round_to_dtype(bias, dtype, f"the bias of {prefix}")
    return Weights(layer, tensors, kept, whole)


# --- side by side ------------------------------------------------------------------------


def _concatenated(layer: Layer, alpha_correction: float, dtype: str) -> tuple[Array, Array]:
    make = np.empty if _all_given(layer) else np.zeros
    both = make(layer.rank * (layer.inputs + layer.outputs), NUMPY[dtype])
    down = both[: layer.rank * layer.inputs].reshape(layer.rank, layer.inputs)
    up = both[down.size :].reshape(layer.outputs, layer.rank)
    for block, ranks in _placed(layer):
        _beside(block, down[ranks], up[:, ranks], dtype, alpha_correction)
    if not finite(both):  # looked at once: a slice takes several times as long
        check_range(down, layer.output.prefix)
        for block, ranks in _placed(layer):
            check_range(up[:, ranks], block.terms[0])
    return down, up


def _all_given(layer: Layer) -> bool:
    """Whether each block alone gives every value of its ranks: nothing is left to be 0."""
    whole = (RowRange(0, layer.outputs, 0),)
    terms = [block.terms[0] for block in layer.blocks]
    return bool(terms) and all(
        len(block.terms) == 1 and term.runs == whole and term.inputs == layer.inputs
        for block, term in zip(layer.blocks, terms, strict=True)
    )


def _beside(block: Block, down: Array, up: Array, dtype: str, alpha_correction: float) -> None:
    """Put a block's two factors into their places.

    Where one has values too small for float16, a power of two of the other goes over to it, if that
    one stays large enough.
    """
    try:
        _shifted(block, down, up, dtype, alpha_correction, bits=0)
    except TooNarrow as narrow:
        fits = (_fits(block, down, up, dtype, alpha_correction, bits) for bits in SHIFTS)
        if not narrow.small or not any(fits):
            raise


def _fits(
    block: Block, down: Array, up: Array, dtype: str, alpha_correction: float, bits: int
) -> bool:
    try:
        _shifted(block, down, up, dtype, alpha_correction, bits)
    except TooNarrow:
        return False
    return True


def _shifted(
    block: Block, down: Array, up: Array, dtype: str, alpha_correction: float, bits: int
) -> None:
    first = block.terms[0]
    if bits:
        scale_into(down[:, : first.inputs], first.down(), 2.0**-bits, first)
    elif not first.down_into(down):
        down[:, : first.inputs] = round_to_dtype(first.down(), dtype, first)
    for term, run in _runs(block):
        factor = term.factor * alpha_correction * 2.0**bits
        scale_into(up[run.start : run.stop], term.up(run), factor, term)


# --- reduced -----------------------------------------------------------------------------


def _reduced(
    layer: Layer, alpha_correction: float, dtype: str
) -> tuple[Array, Array, float, float]:
    prefix, best = layer.output.prefix, _best(layer)
    down = round_to_dtype(best.down, dtype, prefix)
    return down, round_to_dtype(best.up * alpha_correction, dtype, prefix), best.kept, best.whole


def reduction_cost(layer: Layer) -> float:
    """About how many multiplications it takes to reduce this layer; 0 where nothing is lost."""
    if layer.rank >= min(layer.total, layer.shortest):
        return 0
    return min(cost for cost, _ in _ways(layer))


def _best(layer: Layer) -> Reduced:
    _, reduce = min(_ways(layer), key=itemgetter(0))
    return reduce(layer)


def _ways(layer: Layer) -> Iterator[tuple[float, Callable[[Layer], Reduced]]]:
    """The ways to reduce a layer, each with its cost, from shapes alone."""
    shape = layer.outputs, layer.inputs
    if sides := _kronecker_sides(layer):
        yield kronecker_cost(sides), _from_kronecker
    widths = sum(term.width for term in layer.shares.terms)
    yield building_cost(*shape, widths) + dense_cost(*shape, layer.rank), _from_change
    if layer.total <= layer.shortest:
        yield factors_cost(*shape, layer.total), _from_factors


def _from_kronecker(layer: Layer) -> Reduced:
    (term,) = layer.shares.terms
    assert isinstance(term.delta, Kronecker)
    one, two = term.matrices(term.delta)
    height = two.shape[0]
    rows = np.zeros((layer.outputs // height, one.shape[1]))
    for run in term.runs:
        rows[run.start // height : run.stop // height] = one[
            run.first // height : run.last // height
        ]
    rows *= term.factor
    for side in (rows, two):
        check_range(side, layer.output.prefix)
    return reduced_kronecker(rows, two, layer.rank)


def _from_change(layer: Layer) -> Reduced:
    change = _change(layer)
    check_range(change, layer.output.prefix)
    return reduced_dense(change, layer.rank)


def _from_factors(layer: Layer) -> Reduced:
    down, up = _factors(layer)
    for values in (down, up):
        check_range(values, layer.output.prefix)
    return reduced(down, up, layer.rank)


def _kronecker_sides(layer: Layer) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The shapes of two matrices whose Kronecker product the layer is, None for another layer.

    A LoKr of a fused layer is one here too if the rows that go into this layer are rows of the
    first matrix, each times the second.
    """
    terms = layer.shares.terms
    if len(terms) != 1 or not isinstance(terms[0].delta, Kronecker):
        return None
    one, two = terms[0].delta.w1.shape, terms[0].delta.w2.shape
    edges = [edge for run in terms[0].runs for edge in (run.first, run.last, run.start)]
    if any(edge % two[0] for edge in (*edges, layer.outputs)):
        return None
    return (layer.outputs // two[0], one[1]), two


def _factors(layer: Layer) -> tuple[Array, Array]:
    """A and B of all blocks together, in float64."""
    down = np.zeros((layer.total, layer.inputs))
    up = np.zeros((layer.outputs, layer.total))
    for block, ranks in _placed(layer):
        values = block.terms[0].down()
        down[ranks, : values.shape[1]] = values
        for term, run in _runs(block):
            place = up[run.start : run.stop, ranks]
            np.multiply(term.up(run), term.factor, out=place, dtype=up.dtype)
    return down, up


def _runs(block: Block) -> Iterator[tuple[ScaledDelta, RowRange]]:
    """Every term and run, in pieces that fit into the processor's cache."""
    for term in block.terms:
        for run in term.runs:
            for chunk in run.chunks(ROWS):
                yield term, chunk


def _placed(layer: Layer) -> Iterator[tuple[Block, slice]]:
    """The blocks, and the ranks of the whole that are theirs."""
    first = 0
    for block in layer.blocks:
        yield block, slice(first, first + block.rank)
        first += block.rank


def _change(layer: Layer) -> Array:
    """ΔW, (outputs, inputs), in float64."""
    change = np.zeros((layer.outputs, layer.inputs))
    for term in layer.shares.terms:
        for run in term.runs:
            change[run.start : run.stop, : term.inputs] += term.factor * term.dense(run)
    return change


def _bias(layer: Layer) -> Array:
    """The change of the layer's bias, (outputs,), in float64."""
    total = np.zeros(layer.outputs)
    for bias in layer.shares.biases:
        for run in bias.runs:
            total[run.start : run.stop] += bias.factor * bias.values(run)
    return total
