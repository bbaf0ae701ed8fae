"""Composing LoRA files: their weighted sum as one LoRA, exact but for one rounding.

For every layer A = [A1; A2; …] and B = [s1 c1 B1, s2 c2 B2, …], in the caller's order of the
parts: the product is the sum of the parts' deltas, with no cross terms. A is copied bit for bit (or
widened, or in float16 shifted by a power of two); B is computed in float64 (for bfloat16 in
float32) and rounded. With a rank, the product is replaced by the best one of that rank. Layers are
worked on one by one, by a few threads: memory does not grow with the parts.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite, sqrt
from typing import TYPE_CHECKING

from composer.lora.dtypes import F32, TooNarrow
from composer.lora.layout import Layout, most_bytes, shared_dtype
from composer.lora.metadata import KEPT
from composer.lora.reading import shared_family
from composer.lora.threads import map_in_order
from composer.lora.weights import reduction_cost, weights_of
from composer.lora.writer import writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from composer.lora.formats import OutputFormat
    from composer.lora.layout import Layer
    from composer.lora.reading import ScaledLora
    from composer.lora.weights import Weights
    from composer.lora.writer import Output


@dataclass(frozen=True, slots=True)
class CompositionReport:
    """Data type and ranks of the result. `kept`: group of layers -> the share of its Frobenius norm
    that a reduction kept, 0..1, for the groups that lost something. `costs`: about how many
    multiplications it takes to reduce each layer that is reduced, where that is foreseen."""

    dtype: str
    ranks: tuple[int, ...]
    kept: Mapping[str, float] = field(default_factory=dict)
    costs: tuple[float, ...] = ()


class Kept:
    """Adds up, layer by layer, how much of each group's norm is left."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        """Only the groups that have a layer which may lose something are reported."""
        lossy = (layer for layer in layers if layer.rank < min(layer.total, layer.shortest))
        names = {_group(layer) for layer in lossy}
        self._sums = {name: (0.0, 0.0) for name in sorted(names)}

    def add(self, weights: Weights) -> None:
        name = _group(weights.layer)
        if name in self._sums and weights.kept is not None and weights.whole is not None:
            kept, whole = self._sums[name]
            self._sums[name] = (kept + weights.kept, whole + weights.whole)

    def shares(self) -> dict[str, float]:
        return {
            name: sqrt(min(1.0, kept / whole)) if whole else 1.0
            for name, (kept, whole) in self._sums.items()
        }

    def metadata(self) -> dict[str, str]:
        """As the file says it, in texts of one length, whatever the numbers are."""
        if not self._sums:
            return {}
        return {KEPT: json.dumps({name: f"{kept:.4f}" for name, kept in self.shares().items()})}


def _group(layer: Layer) -> str:
    return layer.output.layer.module.group


def compose(
    parts: Sequence[ScaledLora],
    out: Path,
    *,
    metadata: Mapping[str, str],
    format: str | None = None,
    rank: int | None = None,
    dtype: str | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> CompositionReport:
    """Write the sum of `parts`, each a file and its scale, to `out`.

    The order of `parts` is the order of the concatenation: the same parts in the same order give
    the same bytes anywhere, unless `rank` is given: then every layer has at most that rank, and is
    the best approximation there is. `format` is an output format of the parts' model family, by
    default its first.

    `dtype` is F32, F16 or BF16, by default the parts' own if they share one, else F32; F16 that
    scaling would bring out of range becomes F32 then. Diffusers' layers whose ranks differ get one
    constant `.alpha`, by which every loader computes the right strength.

    `progress` is called with 0..1 before each layer and at the end, and may raise to cancel; a
    change to F32 starts it over. `out` is complete when this returns (the caller syncs it to the
    disk), and gone if it raises. Raises `BadLora` for values that aren't finite or don't fit, and
    for a file that changed since it was read, and `OSError` where `out` can't be written.
    """
    if not all(isfinite(scale) for _, scale in parts):
        raise ValueError("a scale must be a finite number")
    with ExitStack() as stack:
        layout = Layout.of(parts, _output_format(parts, format), rank, stack)
        try:
            return _write(layout, dtype or shared_dtype(parts), out, metadata, progress)
        except TooNarrow as narrow:
            if dtype:
                raise narrow.error from None
            return _write(layout, F32, out, metadata, progress)


def composed_size(
    parts: Sequence[ScaledLora],
    *,
    format: str | None = None,
    rank: int | None = None,
    dtype: str | None = None,
) -> int:
    """Bytes that `compose` with the same arguments writes at most, from the headers alone."""
    return most_bytes(parts, _output_format(parts, format), rank, dtype)


def foreseen(
    parts: Sequence[ScaledLora],
    *,
    format: str | None = None,
    rank: int | None = None,
    dtype: str | None = None,
) -> CompositionReport:
    """What `compose` with the same arguments would report, but for what a reduction keeps.

    Reads no more than it takes to know the ranks. Raises `BadLora` for parts that don't fit.
    """
    with ExitStack() as stack:
        layout = Layout.of(parts, _output_format(parts, format), rank, stack)
        costs = tuple(filter(None, map(reduction_cost, layout.layers)))
        return CompositionReport(dtype or shared_dtype(parts), layout.ranks, costs=costs)


def check_together(parts: Sequence[ScaledLora]) -> None:
    """Raise `BadLora` for parts that can't be added, each of which is fine alone.

    Reads no more than it takes: only those for variants of a model can get in each other's way.
    """
    shared_family([file for file, _ in parts])
    if sum(file.for_variant for file, scale in parts if scale) > 1:
        foreseen(parts)


def _output_format(parts: Sequence[ScaledLora], name: str | None) -> OutputFormat:
    return shared_family([file for file, _ in parts]).files.named_format(name)


def _write(
    layout: Layout,
    dtype: str,
    out: Path,
    metadata: Mapping[str, str],
    progress: Callable[[float], None],
) -> CompositionReport:
    kept = Kept(layout.layers)
    noted = {**metadata, **layout.output_format.metadata(layout.ranks), "format": "pt"}
    with writing(out, layout.specs(dtype), {**noted, **kept.metadata()}) as output:
        for key, norm in layout.norms.items():
            output.put(key, norm.values())
        write = partial(_write_layer, layout, dtype, output)
        with closing(map_in_order(write, layout.layers)) as results:
            for number, done in enumerate(results):
                progress(number / len(layout.layers))
                kept.add(done)
        layout.check()
        output.annotate({**noted, **kept.metadata()})
        progress(1.0)
    return CompositionReport(dtype, layout.ranks, kept.shares())


def _write_layer(layout: Layout, dtype: str, output: Output, layer: Layer) -> Weights:
    """Make a layer's tensors and write them; what is returned no longer has them.

    In one thread, so that their memory serves for its next layer too: memory that another thread
    frees goes back to the system, and fresh pages cost as much as the arithmetic.
    """
    weights = weights_of(layout, dtype, layer)
    for key, values in weights.tensors.items():
        output.put(key, values)
    return replace(weights, tensors={})
