"""Inspecting LoRA files: what each is, how much it changes each block of a model, and how far two
of them pull the same way.

The inner product of two changes, <ΔW, ΔW'> = Σ ΔW * ΔW', comes from their factors: with the A's of
a layer stacked above each other, and the B's side by side, it is the sum of (A Aᵀ) * (BᵀB) over
the ranks of the two, times their factors. ΔW itself is built, a few rows at a time, only where the
ranks are so high that this is cheaper.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, fields
from functools import partial
from itertools import accumulate, combinations, pairwise
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from composer.lora import metadata as notes
from composer.lora.contributions import (
    RowRange,
    ScaledDelta,
    check_inputs,
    open_parts,
    shares_by_layer,
)
from composer.lora.dtypes import finite
from composer.lora.errors import of_each
from composer.lora.formats import LoraFacts
from composer.lora.inspection import Inspection, LoraInfo, Mix
from composer.lora.reading import read, shared_family, with_scales
from composer.lora.threads import map_in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from composer.lora.contributions import OpenPart
    from composer.lora.deltas import Delta
    from composer.lora.formats import Module, OutputFormat, OutputLayer
    from composer.lora.reading import LoraFile, Loras

    Array = NDArray[Any]
    Terms = Mapping[int, ScaledDelta]  # what each file adds to one layer, by its number

TOGETHER, RANKS = 16, 1024  # files, and their ranks, of half of what is compared at a time
VALUES = 1 << 18  # of the B's of a layer, or of each ΔW where it is built, at a time
CANCELLED = 1e-2  # of the sum of the products' sizes: below, float32's digits don't do
SMALLEST, LARGEST = 1e-24, 1e24  # sums of squares that float32 adds up without loss


@dataclass(frozen=True, slots=True)
class Grams:
    """Inner products of the changes of `count` files at scale 1, by block, each (count, count).

    A block that no file changes isn't there; the others are in the family's order.
    """

    count: int
    blocks: Mapping[str, NDArray[np.float64]]


def grams(
    loras: Sequence[LoraFile], progress: Callable[[float], None] = lambda share: None
) -> Grams:
    """The inner products of the weights' changes of these files, biases aside.

    Accurate to about 1e-6 of the product of the two norms. Layer by layer, a few threads, and of
    many files a few at a time: memory doesn't grow with the files. `progress` is called with 0..1,
    at first and after each layer. Raises `BadLora` for values that aren't finite, and for a file
    that changed since it was read.
    """
    progress(0.0)
    groups = _groups(loras)
    if len(groups) == 1:
        return _grams(loras, progress)
    sums: dict[str, NDArray[np.float64]] = {}
    pairs = list(combinations(groups, 2))
    for done, (one, two) in enumerate(pairs):
        numbers = [*one, *two]
        some = _grams([loras[n] for n in numbers], share_of(progress, done, len(pairs)))
        for block, gram in some.blocks.items():
            whole = sums.setdefault(block, np.zeros((len(loras), len(loras))))
            whole[np.ix_(numbers, numbers)] = gram
    blocks = shared_family(loras).files.blocks
    return Grams(len(loras), {block: sums[block] for block in blocks if block in sums})


def share_of(progress: Callable[[float], None], done: int, count: int) -> Callable[[float], None]:
    """Tells `progress` of one of `count` parts of the work, after so many that are done."""
    return lambda share: progress((done + share) / count)


def _groups(loras: Sequence[LoraFile]) -> list[range]:
    """The numbers of the files in runs that are small enough to be compared two at a time."""
    starts, ranks = [0], 0
    for number, lora in enumerate(loras):
        rank = max(lora.ranks, default=0)
        if number > starts[-1] and (ranks + rank > RANKS or number - starts[-1] >= TOGETHER):
            starts.append(number)
            ranks = 0
        ranks += rank
    return [range(*edges) for edges in pairwise([*starts, len(loras)])]


def _grams(loras: Sequence[LoraFile], progress: Callable[[float], None]) -> Grams:
    family = shared_family(loras)
    sums: dict[str, NDArray[np.float64]] = {}
    with ExitStack() as stack:
        parts = open_parts([(lora, 1.0) for lora in loras], stack)
        layers = _layers(parts, family.files.inspected)
        products = map_in_order(partial(_layer, count=len(loras)), layers.values())
        for number, (output, gram) in enumerate(zip(layers, products, strict=True), 1):
            progress(number / len(layers))
            block = output.layer.module.block
            sums[block] = sums.get(block, 0) + gram
        for part in parts:
            part.check()
    return Grams(len(loras), {block: sums[block] for block in family.files.blocks if block in sums})


# What one core does in a second, in this module's arithmetic; measured, and the same everywhere.
_FACTORS, _DENSE, _READ = 5e10, 8e9, 7e8  # multiplications of two kinds, and values
_CORES = 2


def seconds(loras: Sequence[LoraFile]) -> float:
    """How long `grams` takes for these files, from their headers alone: an estimate that doesn't
    depend on the machine."""
    deltas: dict[OutputLayer, list[Delta]] = {}
    by_path = shared_family(loras).files.inspected.by_path
    values = 0
    for adapter in (adapter for lora in loras for adapter in lora.adapters):
        values += sum(prod(tensor.shape) for tensor in adapter.tensors)
        for output in {by_path[part.module.path][0] for part in adapter.layer.parts}:
            deltas.setdefault(output, []).extend([adapter.delta] if adapter.delta else [])
    layers = [_seconds(output, of_layer) for output, of_layer in deltas.items() if of_layer]
    return max(sum(layers) / _CORES, max(layers, default=0.0)) + values / _READ / _CORES


def _seconds(output: OutputLayer, deltas: Sequence[Delta]) -> float:
    shape = output.layer.outputs, max(delta.shape[1] for delta in deltas)
    factors, dense = _products(shape, sum(delta.rank for delta in deltas), deltas)
    return dense / _DENSE if factors > dense else factors / _FACTORS


def _products(shape: tuple[int, int], rank: int, deltas: Sequence[Delta]) -> tuple[int, int]:
    """How many multiplications the factors' products take, and how many building ΔW: it is made of
    its tensors (their widths say how), in float64, which takes twice the time."""
    outputs, inputs = shape
    widths = sum(min(tensor.shape) for delta in deltas for tensor in delta.tensors)
    return rank**2 * (outputs + inputs), 2 * outputs * inputs * (widths + len(deltas))


def _layers(
    parts: Sequence[OpenPart], output_format: OutputFormat
) -> dict[OutputLayer, dict[int, ScaledDelta]]:
    """The terms of each layer, by the number of the file; no file has two on one module."""
    layers: dict[OutputLayer, dict[int, ScaledDelta]] = {}
    for number, part in enumerate(parts):
        for output, shares in shares_by_layer([part], output_format).items():
            for term in shares.terms:
                layers.setdefault(output, {})[number] = term
    for terms in layers.values():
        check_inputs(terms.values())
    return layers


def _layer(by_file: Terms, count: int) -> NDArray[np.float64]:
    """One layer's inner products, (count, count); zero for files that have no part in it."""
    gram = np.zeros((count, count))
    numbers, terms = list(by_file), list(by_file.values())
    small = _from_dense(terms) if _dense_is_cheaper(terms) else _from_factors(terms)
    factors = np.array([term.factor for term in terms])
    gram[np.ix_(numbers, numbers)] = small * np.outer(factors, factors)
    return gram


def _dense_is_cheaper(terms: Sequence[ScaledDelta]) -> bool:
    """Whether building ΔW takes fewer multiplications than the factors' products."""
    deltas, rank = [term.delta for term in terms], sum(term.rank for term in terms)
    factors, dense = _products(terms[0].delta.shape, rank, deltas)
    return factors > dense


# --- from the factors --------------------------------------------------------------------


def _from_factors(terms: Sequence[ScaledDelta]) -> NDArray[np.float64]:
    """Σ (A Aᵀ) * (BᵀB) for each pair of terms, without their factors.

    In float32, and once more in float64 where a square doesn't fit, or where a term's own products
    nearly cancel, as in a file that was merged of a LoRA and another's opposite. If a square is not
    finite, one of the values isn't either.
    """
    starts = list(accumulate((term.rank for term in terms[:-1]), initial=0))
    with np.errstate(over="ignore", invalid="ignore"):
        inner, outer = _inner(terms, np.float32), _outer(terms, np.float32)
    if _in_range(inner, starts) and _in_range(outer, starts):
        products = np.multiply(inner, outer, dtype=np.float64)
        sums = _blocks(products, starts)
        if (sums.diagonal() >= CANCELLED * _blocks(np.abs(products), starts).diagonal()).all():
            return sums
    else:
        _check(terms)
    return _blocks(_inner(terms, np.float64) * _outer(terms, np.float64), starts)


def _blocks(products: NDArray[np.float64], starts: Sequence[int]) -> NDArray[np.float64]:
    """The sum of each block of ranks, (terms, terms)."""
    sums: NDArray[np.float64] = np.add.reduceat(np.add.reduceat(products, starts), starts, axis=1)
    return sums


def _in_range(gram: Array, starts: Sequence[int]) -> bool:
    """Whether float32 held the squares: those of a rank are safe or 0, and not all of a term 0."""
    squares = gram.diagonal()
    if squares.min() > SMALLEST and squares.max() < LARGEST:
        return True
    safe = (squares == 0) | ((squares > SMALLEST) & (squares < LARGEST))
    return bool(safe.all() and np.maximum.reduceat(squares, starts).all())


def _inner(terms: Sequence[ScaledDelta], dtype: type) -> Array:
    """A Aᵀ of the A's above each other, (ranks, ranks).

    One for fewer inputs is a LoRA for another model of the family: the other inputs are 0 to it.
    """
    widths = {term.inputs for term in terms}
    make = np.empty if len(widths) == 1 else np.zeros
    stacked: Array = make((sum(term.rank for term in terms), max(widths)), dtype)
    first = 0
    for term in terms:
        stacked[first : first + term.rank, : term.inputs] = term.down()
        first += term.rank
    product: Array = stacked @ stacked.T
    return product


def _outer(terms: Sequence[ScaledDelta], dtype: type) -> Array:
    """BᵀB of the B's side by side, (ranks, ranks), as many rows at a time as there is room for."""
    ranks = sum(term.rank for term in terms)
    total = np.zeros((ranks, ranks))
    for start, stop in _slices(terms, max(1, VALUES // ranks)):
        beside = _beside([term.up(_cut(term, start, stop)) for term in terms], dtype)
        total += beside.T @ beside
    return total


def _beside(ups: Sequence[Array], dtype: type) -> Array:
    """Matrices side by side, converted.

    Rows are copied as records, each matrix a field: half the time of copying number after number.
    Matrices of one type are therefore converted after they are joined.
    """
    kinds = {up.dtype for up in ups}
    kind = kinds.pop() if len(kinds) == 1 else np.dtype(dtype)
    fields = [(f"{n}", f"V{up.shape[1] * kind.itemsize}") for n, up in enumerate(ups)]
    rows = np.empty(len(ups[0]), fields)
    for (name, field), up in zip(fields, ups, strict=True):
        rows[name] = np.ascontiguousarray(up, kind).view(field)[:, 0]
    return rows.view(kind).reshape(len(rows), -1).astype(dtype, copy=False)


# --- from the changes themselves ---------------------------------------------------------


def _from_dense(terms: Sequence[ScaledDelta]) -> NDArray[np.float64]:
    """The same from rows of up @ down, a few at a time, in float64."""
    inputs = max(term.inputs for term in terms)
    total = np.zeros((len(terms), len(terms)))
    for start, stop in _slices(terms, max(1, VALUES // inputs)):
        changes = np.zeros((len(terms), stop - start, inputs))
        for change, term in zip(changes, terms, strict=True):
            change[:, : term.inputs] = term.dense(_cut(term, start, stop))
        flat = changes.reshape(len(terms), -1)
        total += flat @ flat.T
    if not finite(total):
        _check(terms)
    return total


def _check(terms: Sequence[ScaledDelta]) -> None:
    for term in terms:
        term.check()


def _slices(terms: Sequence[ScaledDelta], rows: int) -> Iterator[tuple[int, int]]:
    """Rows of the layer, so many at most, that are in one piece in every file."""
    edges = {edge for term in terms for run in term.runs for edge in (run.start, run.stop)}
    for first, last in pairwise(sorted(edges)):
        for start in range(first, last, rows):
            yield start, min(start + rows, last)


def _cut(term: ScaledDelta, start: int, stop: int) -> RowRange:
    """The run of these rows of the layer: every file's part in a module has all of its rows."""
    run = next(run for run in term.runs if run.start <= start < run.stop)
    first = run.first + start - run.start
    return RowRange(first, first + stop - start, start)


def inspect(
    loras: Loras,
    *,
    title: str = "",
    skip_text_encoder: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> Inspection:
    """Describe LoRA files, and what they do to each other in a mix.

    `loras` is a path, several paths, or `{path: scale}` (a scale is 1 if none is given).
    `skip_text_encoder` leaves out all parts for text encoders, readable or not. `progress` is
    called with 0..1 and may raise to cancel. Raises `BadLora` for a file that can't be used, and
    `UsageError` for a scale that isn't finite.
    """
    parts = with_scales(loras)
    reading = partial(read, skip_text_encoder=skip_text_encoder)
    files = of_each(reading, [path for path, _ in parts])
    scales = tuple(scale for _, scale in parts)
    blocks = grams(files, progress).blocks
    products = {block: tuple(map(tuple, gram.tolist())) for block, gram in blocks.items()}
    names = distinct([file.title or file.path.stem for file in files])
    infos = tuple(map(lora_info, files))
    return Inspection(title, "", infos, Mix(names, scales, products))


def lora_info(file: LoraFile) -> LoraInfo:
    """What a file is, and says of itself."""
    paths = {*file.modules}
    changed = [module for module in file.family.files.modules if module.path in paths]
    return LoraInfo(
        **{field.name: getattr(file, field.name) for field in fields(LoraFacts)},
        file=file.path.name,
        modules=dict(Counter(_kind(module) for module in changed)),
        norms=len(file.norms),
        biases=sum(bool(adapter.biases) for adapter in file.adapters),
        only_in=_only_in(file),
        triggers=notes.triggers(file.metadata),
        tags=notes.tags(file.metadata),
        notes=(*notes.notes(file.metadata), *(("note", note) for note in file.notes)),
        made_of=notes.made_of(file.metadata),
        kept=notes.kept(file.metadata),
        size=file.header.size,
    )


def _kind(module: Module) -> str:
    """The kind of layer that it is, in reports."""
    return module.encoder or module.group


def _only_in(file: LoraFile) -> dict[str, str]:
    other = file.fitting_format
    unfit = file.unfit_for(file.family.files.output_format)
    return {_kind(module): other for _, module in unfit} if other else {}


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, numbered where several are alike."""
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(numbered)
