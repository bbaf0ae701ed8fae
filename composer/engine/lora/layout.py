"""What a composed file will hold: which modules, of which ranks, made of what, in which order.

`composition` plans with this and then writes; `composed_size` answers from headers alone how much
room that takes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from composer.engine.lora.container import Source
from composer.engine.lora.dtypes import F16, F32
from composer.engine.lora.flaw import Flaw
from composer.engine.lora.formats import Piece
from composer.engine.lora.modules import BY_PATH
from composer.engine.lora.writer import Spec, header, order

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from composer.engine.lora.modules import Part
    from composer.engine.lora.reading import Adapter, LoraFile

# Where nothing is left to compose, the file has this module, with rank 1 and zeros: every
# program finds it, and it changes nothing.
SILENT = "transformer_blocks.0.attn.to_q"
METADATA_ALLOWANCE = 64 * 1024  # bytes that `composed_size` keeps for the caller's metadata
PROBE = 64  # rows looked at before a fused B is searched for columns that are zero throughout


@dataclass(frozen=True, slots=True)
class Term:
    """One part's share in a module: `keep` are the ranks that count, None for all of them."""

    source: Source
    path: Path
    adapter: Adapter
    part: Part
    factor: float
    keep: tuple[int, ...] | None = None

    @property
    def rank(self) -> int:
        return self.adapter.rank if self.keep is None else len(self.keep)


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor of the result: what it is, and of which module."""

    spec: Spec
    path: str
    piece: Piece


@dataclass(frozen=True, slots=True)
class Layout:
    """What will be written: the terms of each module, and the one alpha if ranks are mixed."""

    modules: Mapping[str, tuple[Term, ...]]
    ranks: Mapping[str, int]
    alpha: int | None

    @classmethod
    def of(cls, parts: Sequence[tuple[LoraFile, float]], stack: ExitStack) -> Layout:
        """The layout of these parts, whose files stay open as long as `stack` does."""
        modules = _modules(parts, stack)
        ranks = {path: sum(term.rank for term in terms) for path, terms in modules.items()}
        return cls(modules, ranks or {SILENT: 1}, _alpha(ranks.values()))

    def slots(self, dtype: str) -> list[Slot]:
        """The tensors to write, in the order of the file."""
        return _slots(self.ranks, dtype, alpha=self.alpha is not None)

    def factor(self, term: Term, path: str) -> float:
        """What B is multiplied by, so that alpha / rank of the result comes out right."""
        return term.factor if self.alpha is None else term.factor * self.ranks[path] / self.alpha


def composed_size(parts: Sequence[tuple[LoraFile, float]]) -> int:
    """Bytes that the composed file takes at most, from the headers alone.

    Ranks count as stored (those of a block-diagonal file shrink), float16 as float32, which it may
    become, and the caller's metadata as 64 KiB.
    """
    ranks: Counter[str] = Counter()
    for lora, scale in parts:
        for adapter in lora.adapters:
            if scale and adapter.factor:
                ranks.update({part.module.path: adapter.rank for part in adapter.site.parts})
    dtype = F32 if (shared := shared_dtype(parts)) == F16 else shared
    specs = [slot.spec for slot in _slots(ranks or {SILENT: 1}, dtype, alpha=True)]
    return len(header(specs, {})) + METADATA_ALLOWANCE + sum(spec.size for spec in specs)


def shared_dtype(parts: Sequence[tuple[LoraFile, float]]) -> str:
    """The type of all weights that take part, float32 if there are several."""
    heard = [lora for lora, scale in parts if scale] or [lora for lora, _ in parts]
    dtypes = {dtype for lora in heard for dtype in lora.dtypes}
    return dtypes.pop() if len(dtypes) == 1 else F32


def _alpha(ranks: Iterable[int]) -> int | None:
    """None for one rank throughout, else the commonest (the smallest of several such).

    B is multiplied by rank / alpha: with the commonest rank most modules stay as they are, and
    those that differ by a power of two lose nothing.
    """
    counts = Counter(ranks)
    if len(counts) < 2:
        return None
    return min(counts, key=lambda rank: (-counts[rank], rank))


def _slots(ranks: Mapping[str, int], dtype: str, *, alpha: bool) -> list[Slot]:
    """The result's tensors, in the order of the file."""
    slots: list[Slot] = []
    for path, rank in ranks.items():
        site, name = BY_PATH[path], f"transformer.{path}"
        down = Spec(f"{name}.lora_A.weight", dtype, (rank, site.inputs))
        up = Spec(f"{name}.lora_B.weight", dtype, (site.outputs, rank))
        slots += [Slot(down, path, Piece.DOWN), Slot(up, path, Piece.UP)]
        if alpha:
            slots.append(Slot(Spec(f"{name}.alpha", F32, ()), path, Piece.ALPHA))
    return sorted(slots, key=lambda slot: order(slot.spec))


def _modules(
    parts: Sequence[tuple[LoraFile, float]], stack: ExitStack
) -> dict[str, tuple[Term, ...]]:
    modules: dict[str, tuple[Term, ...]] = {}
    for lora, scale in parts:
        if not scale:
            continue
        try:
            for term in _terms(lora, scale, stack):
                path = term.part.module.path
                modules[path] = (*modules.get(path, ()), term)
        except Flaw as flaw:
            raise flaw.of(lora.path) from None
    return modules


def _terms(lora: LoraFile, scale: float, stack: ExitStack) -> Iterator[Term]:
    """What one part adds to each of its modules; nothing where it is zero throughout."""
    source = stack.enter_context(Source(lora.path))
    if source.header != lora.header:
        raise Flaw("was changed after it was read", hint="run the same again")
    for adapter in lora.adapters:
        if not adapter.factor:
            continue
        for part in adapter.site.parts:
            keep = _kept(source, adapter, part)
            term = Term(source, lora.path, adapter, part, scale * adapter.factor, keep)
            if term.rank:
                yield term


def _kept(source: Source, adapter: Adapter, part: Part) -> tuple[int, ...] | None:
    """The ranks of a fused LoRA whose columns of B aren't zero in this part; None means all.

    Files that were trained split and then fused are block-diagonal: each part uses its own
    ranks alone, and gets its true rank back. The probe spares dense files the search.
    """
    if not adapter.site.fused:
        return None
    probe = source.rows(adapter.up, part.start, part.start + PROBE)
    if (probe != 0).any(axis=0).all():
        return None
    used = (source.rows(adapter.up, part.start, part.stop) != 0).any(axis=0)
    return None if used.all() else tuple(int(rank) for rank in np.flatnonzero(used))
