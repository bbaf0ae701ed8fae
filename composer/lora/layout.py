"""What a composed file will hold: which layers, of which ranks, made of what, in which order.

`composition` plans with this and then writes; `weights` makes the tensors of each layer. The type
and the largest size of a result are known from the headers of its parts alone: the local target
asks before it starts whether the disk has room.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from composer.lora.contributions import Shares, check_inputs, norms, open_parts, shares_by_layer
from composer.lora.dtypes import F16, F32, F64, WRITTEN
from composer.lora.writer import Spec, header, order

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import ExitStack

    from composer.lora.contributions import Norm, OpenPart, ScaledDelta
    from composer.lora.formats import OutputFormat, OutputLayer
    from composer.lora.reading import LoraFile, ScaledLora


@dataclass(frozen=True, slots=True)
class Block:
    """Terms of one layer that have the same A: it is written once."""

    terms: tuple[ScaledDelta, ...]

    @property
    def rank(self) -> int:
        return self.terms[0].rank


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the result. `rank` is that of its tensors, `total` that of all blocks together;
    where they differ, it is reduced."""

    output: OutputLayer
    inputs: int
    blocks: tuple[Block, ...]
    shares: Shares
    rank: int

    @property
    def total(self) -> int:
        return sum(block.rank for block in self.blocks)

    @property
    def outputs(self) -> int:
        return self.output.layer.outputs

    @property
    def shortest(self) -> int:
        """What no matrix of this shape exceeds in rank."""
        return min(self.inputs, self.outputs)


@dataclass(frozen=True, slots=True)
class Layout:
    """What will be written: the layers, the norms by key, and the one alpha if ranks are mixed;
    and of which open files it is made."""

    parts: tuple[OpenPart, ...]
    output_format: OutputFormat
    layers: tuple[Layer, ...]
    norms: Mapping[str, Norm]
    alpha: int | None
    biased: bool  # whether any layer has a bias

    @classmethod
    def of(
        cls,
        parts: Sequence[ScaledLora],
        output_format: OutputFormat,
        rank: int | None,
        stack: ExitStack,
    ) -> Layout:
        """The layout of these parts, whose files stay open as long as `stack` does.

        `rank` is the most that a layer may have; None keeps what there is. Raises `BadLora`.
        """
        files = open_parts(parts, stack)
        shares_of = shares_by_layer(files, output_format)
        for shares in shares_of.values():
            check_inputs(shares.terms)
        layers = [_layer(output, shares, rank) for output, shares in shares_of.items()]
        layers = _filled(layers, output_format)
        return cls(
            files,
            output_format,
            tuple(layers),
            norms=norms(files, output_format),
            alpha=_one_alpha(layers, output_format),
            biased=any(layer.shares.biases for layer in layers),
        )

    def check(self) -> None:
        """Raise `BadLora` if one of the files was written to since it was opened."""
        for part in self.parts:
            part.check()

    @property
    def ranks(self) -> tuple[int, ...]:
        """The different ranks of the layers, sorted."""
        return tuple(sorted({layer.rank for layer in self.layers}))

    def has_bias(self, layer: Layer) -> bool:
        """Whether a bias is written: for one layer that has one, PEFT wants all to."""
        if self.output_format.one_alpha:
            return self.biased and not layer.output.layer.module.encoder
        return bool(layer.shares.biases)

    def alpha_of(self, layer: Layer) -> int | None:
        """The `.alpha` to write, if any."""
        return self.alpha if self.output_format.one_alpha else layer.rank

    def alpha_correction(self, layer: Layer) -> float:
        """What up is multiplied by, so that alpha / rank comes out as 1."""
        return 1.0 if (alpha := self.alpha_of(layer)) is None else layer.rank / alpha

    def specs(self, dtype: str) -> list[Spec]:
        """The tensors to write, in the order of the file."""
        specs = [Spec(key, F32, (self.output_format.norm_width,)) for key in self.norms]
        for layer in self.layers:
            alpha, bias = self.alpha_of(layer) is not None, self.has_bias(layer)
            specs += layer_specs(layer, self.output_format, dtype, alpha=alpha, bias=bias)
        return sorted(specs, key=order)


def layer_specs(
    layer: Layer, output_format: OutputFormat, dtype: str, *, alpha: bool, bias: bool
) -> Iterator[Spec]:
    """The tensors of one layer."""
    prefix = layer.output.prefix
    yield Spec(prefix + output_format.down, dtype, (layer.rank, layer.inputs))
    yield Spec(prefix + output_format.up, dtype, (layer.outputs, layer.rank))
    if alpha:
        yield Spec(f"{prefix}.alpha", F32, ())
    if bias:
        yield Spec(prefix + output_format.bias, dtype, (layer.outputs,))


def comes_whole(output: OutputLayer, output_format: OutputFormat) -> bool:
    """Whether this layer is in a file as soon as another one of its text encoder is."""
    encoder = output.layer.module.encoder
    return encoder is not None and encoder == output_format.whole_encoder


def _layer(output: OutputLayer, shares: Shares, rank: int | None) -> Layer:
    inputs = max((term.inputs for term in shares.terms), default=output.layer.inputs)
    blocks = tuple(_blocks(shares.terms))
    layer = Layer(output, inputs, blocks, shares, 0)
    most = min(layer.total, layer.shortest, layer.total if rank is None else rank)
    return Layer(output, inputs, blocks, shares, most)


def _blocks(terms: Sequence[ScaledDelta]) -> Iterator[Block]:
    """Terms of one file with equal A's together, as q, k and v have that were split from one."""
    groups: list[list[ScaledDelta]] = []
    for term in terms:
        for group in groups:
            if group[0].source is term.source and _same_down(group[0], term):
                group.append(term)
                break
        else:
            groups.append([term])
    return (Block(tuple(group)) for group in groups)


def _same_down(one: ScaledDelta, two: ScaledDelta) -> bool:
    """By what is stored: A itself can be much larger than that."""
    if type(one.delta) is not type(two.delta) or one.keep is not None or two.keep is not None:
        return False
    first, second = one.delta.downs, two.delta.downs
    return len(first) == len(second) and all(
        a.shape == b.shape and np.array_equal(one.source.array(a), two.source.array(b))
        for a, b in zip(first, second, strict=True)
    )


def _filled(layers: list[Layer], output_format: OutputFormat) -> list[Layer]:
    """With layers of zeros where the format needs them, of the others' rank if they share one."""
    present = {layer.output for layer in layers}
    outputs = [output for output in output_format.layers if output in present]
    if any(comes_whole(output, output_format) for output in present):
        outputs = [
            output
            for output in output_format.layers
            if output in present or comes_whole(output, output_format)
        ]
    if not present:
        outputs = [output_format.by_path[output_format.silent][0]]
    ranks = {layer.rank for layer in layers if layer.rank}
    filler = ranks.pop() if len(ranks) == 1 else 1
    by_output = {layer.output: layer for layer in layers}
    return [_at_least(by_output.get(output) or empty(output), filler) for output in outputs]


def empty(output: OutputLayer) -> Layer:
    """A layer without anything in it."""
    return Layer(output, output.layer.inputs, (), Shares(), 0)


def _at_least(layer: Layer, rank: int) -> Layer:
    """A layer without weights, as one that has a bias alone, gets zeros of this rank."""
    if layer.rank:
        return layer
    return Layer(layer.output, layer.inputs, (), layer.shares, min(rank, layer.shortest))


def _one_alpha(layers: Iterable[Layer], output_format: OutputFormat) -> int | None:
    """None for one rank throughout, else the commonest of those with weights.

    Up is multiplied by rank / alpha: with the commonest rank most layers stay as they are, and
    those that differ by a power of two lose nothing.
    """
    if not output_format.one_alpha or len({layer.rank for layer in layers}) < 2:
        return None
    return _commonest([layer.rank for layer in layers if layer.blocks])


def _commonest(ranks: Sequence[int]) -> int | None:
    """The smallest of several equally common ones."""
    counts = Counter(ranks)
    return min(counts, key=lambda rank: (-counts[rank], rank), default=None)


METADATA_ALLOWANCE = 64 * 1024  # bytes that are kept for the caller's metadata


def shared_dtype(parts: Sequence[ScaledLora]) -> str:
    """The type of all weights that take part, float32 if there are several, or one is float64.

    float8 fits into either of the 16-bit types without loss, and becomes float16 by itself.
    """
    used = [lora for lora, scale in parts if scale] or [lora for lora, _ in parts]
    dtypes = {dtype for lora in used for dtype in lora.dtypes}
    if F64 in dtypes:
        return F32
    wide = dtypes.intersection(WRITTEN) or {F16}
    return wide.pop() if len(wide) == 1 else F32


def most_bytes(
    parts: Sequence[ScaledLora], output_format: OutputFormat, rank: int | None, dtype: str | None
) -> int:
    """Bytes that the composed file takes at most.

    Ranks count as stored (those of a block-diagonal file shrink), float16 as float32 unless it is
    asked for, since it may become that, and the caller's metadata as 64 KiB.
    """
    if dtype is None:
        dtype = F32 if (shared := shared_dtype(parts)) == F16 else shared
    used = [lora for lora, scale in parts if scale]
    width = (output_format.norm_width,)
    specs = [
        Spec(output_format.norm.format(path), F32, width)
        for path in _norms(used)
        if output_format.norm
    ]
    totals = _totals(used, output_format)
    for output, most in totals.most(rank).items():
        inputs = max(output.layer.module.widths)
        layer = replace(empty(output), inputs=inputs, rank=most)
        specs += layer_specs(layer, output_format, dtype, alpha=True, bias=bool(totals.biased))
    return len(header(specs, {})) + METADATA_ALLOWANCE + sum(spec.size for spec in specs)


@dataclass(frozen=True, slots=True)
class _Totals:
    """Summed ranks of the layers of a result, those with biases, and those that come in anyway."""

    ranks: dict[OutputLayer, int] = field(default_factory=dict)
    biased: set[OutputLayer] = field(default_factory=set)
    extra: tuple[OutputLayer, ...] = ()

    def most(self, rank: int | None) -> dict[OutputLayer, int]:
        """The highest rank of each layer; one that may have no weights is filled up with zeros,
        to a rank that another layer has."""
        bounds = {output: _bound(output, total, rank) for output, total in self.ranks.items()}
        filler = max(bounds.values(), default=1)
        filled = dict.fromkeys((*self.extra, *self.biased), filler)
        return {
            output: max(1, _bound(output, filled.get(output, 0), None), bounds.get(output, 0))
            for output in {**bounds, **filled}
        }


def _bound(output: OutputLayer, total: int, rank: int | None) -> int:
    inputs = max(output.layer.module.widths)
    return min(total, inputs, output.layer.outputs, total if rank is None else rank)


def _totals(loras: Iterable[LoraFile], output_format: OutputFormat) -> _Totals:
    totals = _Totals()
    by_path = output_format.by_path
    for adapter in (adapter for lora in loras for adapter in lora.adapters):
        paths = (part.module.path for part in adapter.layer.parts)
        for output in {by_path[path][0] for path in paths if path in by_path}:
            totals.ranks[output] = totals.ranks.get(output, 0) + adapter.rank
            if adapter.biases:
                totals.biased.add(output)
    whole = any(comes_whole(output, output_format) for output in totals.ranks)
    extra = (
        [output for output in output_format.layers if comes_whole(output, output_format)]
        if whole
        else []
    )
    return replace(totals, extra=(*extra, by_path[output_format.silent][0]))


def _norms(loras: Iterable[LoraFile]) -> set[str]:
    return {path for lora in loras for path in lora.norms}
