"""What a composition reports: the type and ranks of the result, and what a reduction kept.

`composition` fills it; the engine puts it into the result's metadata, and `inspect` shows it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from composer.lora.layout import Layer
    from composer.lora.weights import Weights

KEPT = "compose.kept"  # the key in the metadata


@dataclass(frozen=True, slots=True)
class Report:
    """`kept`: group of layers -> the share of the Frobenius norm, 0..1, that is left of those that
    lost something; none where nothing was lost."""

    dtype: str
    ranks: tuple[int, ...]
    kept: Mapping[str, float] = field(default_factory=dict)


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
    return layer.place.site.parts[0].module.group
