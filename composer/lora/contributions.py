"""What each part of a composition contributes to each layer of the result.

`layout` and `analysis` ask for the weights' changes with their two factors; they are read from
their file when they are asked for, and hold nothing themselves. Their files stay open as long as
the caller's `ExitStack` does. The scales of norms that some files bring along are new values, not
changes of the old ones: they take the place of the base model's, whatever the scale of the part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from composer.lora.container import Source
from composer.lora.deltas import Kronecker, LowRank, check_finite, read_finite
from composer.lora.dtypes import NUMPY, finite
from composer.lora.errors import LoraFormatError, Naming, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from numpy.typing import NDArray

    from composer.lora.adapters import Adapter
    from composer.lora.deltas import Delta
    from composer.lora.formats import ModuleSlice, OutputFormat, OutputLayer
    from composer.lora.header import Tensor
    from composer.lora.reading import LoraFile, ScaledLora

    Array = NDArray[Any]

PROBE = 64  # rows looked at before a fused B is searched for columns that are zero throughout


@dataclass(frozen=True, slots=True)
class OpenPart:
    """A part of a composition: an open file, and its scale."""

    lora: LoraFile
    source: Source
    scale: float

    def check(self) -> None:
        """Raise `BadLora` if the file was written to since it was opened."""
        with Naming(self.lora.path):
            self.source.check()


def open_parts(parts: Iterable[ScaledLora], stack: ExitStack) -> tuple[OpenPart, ...]:
    """The parts that count, in their order: those whose scale isn't 0.

    Raises `BadLora` for a file that isn't the one that was read.
    """
    return tuple(_open(lora, scale, stack) for lora, scale in parts if scale)


def _open(lora: LoraFile, scale: float, stack: ExitStack) -> OpenPart:
    with Naming(lora.path):
        return OpenPart(lora, stack.enter_context(Source(lora.path, lora.header)), scale)


@dataclass(frozen=True, slots=True)
class RowRange:
    """Rows of a file's layer, `first` up to `last`, and the row of the result's where they go."""

    first: int
    last: int
    start: int

    @property
    def stop(self) -> int:
        return self.start + self.last - self.first

    def chunks(self, rows: int) -> Sequence[RowRange]:
        """The same in runs of at most so many rows."""
        if self.last - self.first <= rows:
            return (self,)
        shift = self.start - self.first
        firsts = range(self.first, self.last, rows)
        return [RowRange(n, min(n + rows, self.last), n + shift) for n in firsts]


@dataclass(frozen=True, slots=True)
class ScaledDelta:
    """One adapter's share in a layer: factor * up @ down, the part's scale in the factor.

    `keep` are the ranks that count, None for all of them. The methods don't check that the values
    are finite: one that isn't shows in every result, and `check` names its tensor.
    """

    source: Source
    path: Path
    adapter: Adapter
    delta: Delta
    runs: tuple[RowRange, ...]
    factor: float
    keep: tuple[int, ...] | None = None

    @property
    def rank(self) -> int:
        return self.delta.rank if self.keep is None else len(self.keep)

    @property
    def inputs(self) -> int:
        return self.delta.shape[1]

    @property
    def width(self) -> int:
        """Of the products that `dense` takes, together; a Kronecker product is hardly one."""
        if isinstance(self.delta, Kronecker):
            return 1
        return sum(min(tensor.shape) for tensor in self.delta.tensors) // 2

    def __str__(self) -> str:
        """What a message calls it: the file and the weight that is scaled; of LoKr, the layer."""
        scaled, prefix = self.delta.tensors[-1].name, self.adapter.prefix.text
        return f"{shown(self.path.name)}: {prefix if self.delta.kind == 'LoKr' else scaled}"

    def down(self) -> Array:
        """A, (rank, inputs)."""
        with Naming(self.path):
            values = self.delta.down(self.source)
        if self.keep is None:
            return values
        if not finite(values):  # what isn't kept would not show
            self.check()
        return values[list(self.keep)]

    def down_into(self, out: Array) -> bool:
        """Read A straight into `out`, if it stays as it is in the file; else do nothing."""
        if not isinstance(self.delta, LowRank) or self.keep is not None:
            return False
        stored = self.delta.a
        if stored.shape != out.shape or NUMPY[stored.dtype] != out.dtype:
            return False
        with Naming(self.path):
            self.source.fill(stored, out)
        return True

    def up(self, run: RowRange) -> Array:
        """The rows of B that go into one run, (rows, rank)."""
        with Naming(self.path):
            values = self.delta.up(self.source, run.first, run.last)
        return values if self.keep is None else values[:, list(self.keep)]

    def dense(self, run: RowRange) -> Array:
        """The rows of up @ down that go into one run, (rows, inputs), in float64."""
        with Naming(self.path):
            return self.delta.dense(self.source, run.first, run.last)

    def matrices(self, delta: Kronecker) -> tuple[Array, Array]:
        """The two whose Kronecker product this delta is, in float64."""
        with Naming(self.path):
            return delta.w1.matrix(self.source), delta.w2.matrix(self.source)

    def check(self) -> None:
        """Raise `BadLora` with the name of a tensor that has values that aren't finite, if any."""
        with Naming(self.path):
            for tensor in self.delta.tensors:
                check_finite(self.source, tensor)


@dataclass(frozen=True, slots=True)
class ScaledBias:
    """One adapter's share in a layer's bias: factor * values, the part's scale in the factor."""

    source: Source
    path: Path
    tensor: Tensor
    runs: tuple[RowRange, ...]
    factor: float

    def values(self, run: RowRange) -> Array:
        """(rows,), in float64."""
        with Naming(self.path):
            return read_finite(self.source, self.tensor, run.first, run.last).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Shares:
    """What goes into one layer of the result."""

    terms: tuple[ScaledDelta, ...] = ()
    biases: tuple[ScaledBias, ...] = ()

    @property
    def any(self) -> bool:
        return bool(self.terms or self.biases)


def shares_by_layer(
    parts: Iterable[OpenPart], output_format: OutputFormat
) -> dict[OutputLayer, Shares]:
    """What these parts add to the layers of an output format, in their order.

    Adapters of factor 0 add nothing. Raises `BadLora` for a part for a layer that the format
    doesn't have.
    """
    shares_of: dict[OutputLayer, Shares] = {}
    by_path = output_format.by_path
    for part in parts:
        part.lora.check_fits(output_format)
        with Naming(part.lora.path):
            for adapter in part.lora.adapters:
                for output, runs in _runs(adapter, by_path).items():
                    before = shares_of.get(output, Shares())
                    shares_of[output] = Shares(
                        (*before.terms, *_term(part, adapter, runs)),
                        (*before.biases, *_biases(part, adapter, runs)),
                    )
    used = (output for output in output_format.layers if output in shares_of)
    return {output: shares_of[output] for output in used if shares_of[output].any}


def check_inputs(terms: Iterable[ScaledDelta]) -> None:
    """Raise `BadLora` where two LoRAs read different inputs besides those of the base model: of a
    control model and of a fill model they mean different things, and no model has both."""
    wider: dict[int, ScaledDelta] = {}
    for term in terms:
        if term.inputs != term.adapter.layer.module.inputs:
            wider.setdefault(term.inputs, term)
    if len(wider) > 1:
        one, two, *_ = wider.values()
        raise LoraFormatError(
            f"has {two.inputs} inputs at {two.adapter.prefix.text}, where {shown(one.path.name)}"
            f" has {one.inputs}: they mean different things, and can't be added",
            hint="combine LoRAs for one kind of model: control, or fill",
        ).of(two.path)


def _runs(
    adapter: Adapter, by_path: Mapping[str, tuple[OutputLayer, Any]]
) -> dict[OutputLayer, tuple[RowRange, ...]]:
    """Where the rows of an adapter's layer go."""
    runs_of: dict[OutputLayer, tuple[RowRange, ...]] = {}
    for part in adapter.layer.parts:
        output, place = by_path[part.module.path]
        runs_of[output] = (*runs_of.get(output, ()), *_rows(part, place))
    return runs_of


def _rows(source: ModuleSlice, result: ModuleSlice) -> Iterator[RowRange]:
    """The rows of a module, from a file's layer to the result's; in two halves where one of the
    two keeps them the other way round."""
    if source.swapped == result.swapped:
        yield RowRange(source.start, source.stop, result.start)
        return
    half = source.module.outputs // 2
    yield RowRange(source.start, source.start + half, result.start + half)
    yield RowRange(source.start + half, source.stop, result.start)


def _term(part: OpenPart, adapter: Adapter, runs: tuple[RowRange, ...]) -> Iterator[ScaledDelta]:
    """The adapter's weights on one layer; none where they are zero throughout."""
    delta = adapter.delta
    if delta is None or not adapter.factor:
        return
    source, factor = part.source, part.scale * adapter.factor
    keep = _kept(source, delta, runs) if adapter.layer.fused else None
    term = ScaledDelta(source, part.lora.path, adapter, delta, runs, factor, keep)
    if keep == ():
        term.check()  # nothing is made of it, so a value that is not a number would not show
    else:
        yield term


def _biases(part: OpenPart, adapter: Adapter, runs: tuple[RowRange, ...]) -> Iterator[ScaledBias]:
    for bias in adapter.biases:
        if bias.factor:
            factor = part.scale * bias.factor
            yield ScaledBias(part.source, part.lora.path, bias.tensor, runs, factor)


def _kept(source: Source, delta: Delta, runs: tuple[RowRange, ...]) -> tuple[int, ...] | None:
    """The ranks of a fused LoRA whose columns of B aren't zero in these rows; None means all.

    Files that were trained split and then fused are block-diagonal: each module uses its own
    ranks alone, and gets its true rank back. The probe spares dense files the search. A LoKr that
    is cut into modules has ranks of its own in each, too.
    """
    used = np.zeros(delta.rank, bool)
    if isinstance(delta, Kronecker):
        for run in runs:
            used |= delta.used(source, run.first, run.last)
        return _numbers(used)
    if not isinstance(delta, LowRank):
        return None
    for rows in (PROBE, None):
        for run in runs:
            last = run.last if rows is None else min(run.first + rows, run.last)
            used |= (delta.up(source, run.first, last) != 0).any(axis=0)
        if used.all():
            return None
    return _numbers(used)


def _numbers(used: NDArray[np.bool_]) -> tuple[int, ...] | None:
    return None if used.all() else tuple(int(rank) for rank in np.flatnonzero(used))


@dataclass(frozen=True, slots=True)
class Norm:
    """The scale of a norm in an open file."""

    source: Source
    path: Path
    tensor: Tensor

    def values(self) -> NDArray[np.float32]:
        """(128,); raises `BadLora` for values that aren't finite."""
        with Naming(self.path):
            return read_finite(self.source, self.tensor).astype(np.float32)


def norms(parts: Iterable[OpenPart], output_format: OutputFormat) -> dict[str, Norm]:
    """The scales of norms of these parts, by key of the output format.

    Raises `BadLora` where two parts bring different ones, or the format can't hold any.
    """
    norms_by_key: dict[str, Norm] = {}
    for part in parts:
        for key, norm in _norms_of(part, output_format).items():
            if not np.array_equal(norms_by_key.setdefault(key, norm).values(), norm.values()):
                other = f"brings another {norm.tensor.name} than {norms_by_key[key].path.name}"
                raise LoraFormatError(other).of(part.lora.path)
    return norms_by_key


def _norms_of(part: OpenPart, output_format: OutputFormat) -> dict[str, Norm]:
    path, brought = part.lora.path, part.lora.norms
    if brought and output_format.norm is None:
        formats = part.lora.family.files.output_formats.values()
        other = next((one.name for one in formats if one.norm), None)
        raise LoraFormatError(
            f"brings scales of norms, which the {output_format.name} format can't hold",
            hint=f"write it in the {other} format" if other else None,
        ).of(path)
    key = output_format.norm or ""
    return {key.format(name): Norm(part.source, path, tensor) for name, tensor in brought.items()}
