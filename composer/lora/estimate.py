"""How a composed file will turn out, from the headers of its parts alone: its type and its size.

The engine asks before it starts whether the disk has room; `composition` asks for the type.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from composer.lora.dtypes import F16, F32, WRITTEN
from composer.lora.layout import comes_whole, empty, layer_specs
from composer.lora.writer import Spec, header

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from composer.lora.output_formats import Form, Place
    from composer.lora.reading import LoraFile

    Parts = Sequence[tuple[LoraFile, float]]

METADATA_ALLOWANCE = 64 * 1024  # bytes that are kept for the caller's metadata


def shared_dtype(parts: Parts) -> str:
    """The type of all weights that take part, float32 if there are several.

    float8 fits into either of the 16-bit types without loss, and becomes float16 by itself.
    """
    heard = [lora for lora, scale in parts if scale] or [lora for lora, _ in parts]
    dtypes = {dtype for lora in heard for dtype in lora.dtypes}
    wide = dtypes.intersection(WRITTEN) or {F16}
    return wide.pop() if len(wide) == 1 else F32


def most_bytes(parts: Parts, form: Form, rank: int | None, dtype: str | None) -> int:
    """Bytes that the composed file takes at most.

    Ranks count as stored (those of a block-diagonal file shrink), float16 as float32 unless it is
    asked for, since it may become that, and the caller's metadata as 64 KiB.
    """
    if dtype is None:
        dtype = F32 if (shared := shared_dtype(parts)) == F16 else shared
    heard = [lora for lora, scale in parts if scale]
    width = (form.norm_width,)
    specs = [Spec(form.norm.format(path), F32, width) for path in _norms(heard) if form.norm]
    totals = _totals(heard, form)
    for place, most in totals.most(rank).items():
        inputs = max(place.site.parts[0].module.widths)
        layer = replace(empty(place), inputs=inputs, rank=most)
        specs += layer_specs(layer, form, dtype, alpha=True, bias=bool(totals.biased))
    return len(header(specs, {})) + METADATA_ALLOWANCE + sum(spec.size for spec in specs)


@dataclass(frozen=True, slots=True)
class _Totals:
    """Summed ranks of the layers of a result, those with biases, and those that come in anyway."""

    ranks: dict[Place, int] = field(default_factory=dict)
    biased: set[Place] = field(default_factory=set)
    company: tuple[Place, ...] = ()

    def most(self, rank: int | None) -> dict[Place, int]:
        """The highest rank of each layer; one that may have no weights is filled up with zeros,
        to a rank that another layer has."""
        bounds = {place: _bound(place, total, rank) for place, total in self.ranks.items()}
        filler = max(bounds.values(), default=1)
        filled = dict.fromkeys((*self.company, *self.biased), filler)
        return {
            place: max(1, _bound(place, filled.get(place, 0), None), bounds.get(place, 0))
            for place in {**bounds, **filled}
        }


def _bound(place: Place, total: int, rank: int | None) -> int:
    inputs = max(place.site.parts[0].module.widths)
    return min(total, inputs, place.site.outputs, total if rank is None else rank)


def _totals(heard: Iterable[LoraFile], form: Form) -> _Totals:
    found = _Totals()
    by_path = form.by_path()
    for adapter in (adapter for lora in heard for adapter in lora.adapters):
        paths = (part.module.path for part in adapter.site.parts)
        for place in {by_path[path][0] for path in paths if path in by_path}:
            found.ranks[place] = found.ranks.get(place, 0) + adapter.rank
            if adapter.biases:
                found.biased.add(place)
    whole = any(comes_whole(place, form) for place in found.ranks)
    company = [place for place in form.places if comes_whole(place, form)] if whole else []
    return replace(found, company=(*company, by_path[form.silent][0]))


def _norms(heard: Iterable[LoraFile]) -> set[str]:
    return {path for lora in heard for path in lora.norms}
