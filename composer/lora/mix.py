"""A mix of LoRAs in numbers: how much each changes a block, and which pairs change it alike.

`verdicts` judges these numbers, and the renderers draw them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Gram: TypeAlias = "tuple[tuple[float, ...], ...]"


@dataclass(frozen=True, slots=True)
class Mix:
    """LoRAs by number, with their scales; `blocks` are the inner products <ΔWᵢ, ΔWⱼ> at scale 1.

    Every verb takes a block, or none for all of them together.
    """

    names: tuple[str, ...]
    scales: tuple[float, ...]
    blocks: Mapping[str, Gram]

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        count = len(self.names)
        return tuple((i, j) for i in range(count) for j in range(i + 1, count))

    def inner(self, i: int, j: int, block: str | None = None) -> float:
        """<sᵢΔWᵢ, sⱼΔWⱼ>."""
        found = self.blocks.values() if block is None else (self.blocks[block],)
        return self.scales[i] * self.scales[j] * sum(gram[i][j] for gram in found)

    def norm(self, i: int, block: str | None = None) -> float:
        """‖sᵢΔWᵢ‖ (Frobenius)."""
        return sqrt(max(0.0, self.inner(i, i, block)))

    def share(self, i: int, block: str | None = None) -> float | None:
        """‖sᵢΔWᵢ‖ / Σⱼ‖sⱼΔWⱼ‖, 0..1; None where nothing is changed."""
        total = sum(self.norm(j, block) for j in range(len(self.names)))
        return self.norm(i, block) / total if total else None

    def cosine(self, i: int, j: int, block: str | None = None) -> float | None:
        """<sᵢΔWᵢ, sⱼΔWⱼ> / (‖sᵢΔWᵢ‖ ‖sⱼΔWⱼ‖), -1..1; None where one of the two changes nothing."""
        size = self.norm(i, block) * self.norm(j, block)
        return max(-1.0, min(1.0, self.inner(i, j, block) / size)) if size else None

    def weight(self, i: int, j: int, block: str) -> float:
        """How much a block counts for a pair: the most it can add to the cosine of the whole."""
        size = self.norm(i) * self.norm(j)
        return self.norm(i, block) * self.norm(j, block) / size if size else 0.0

    def together(self, i: int, j: int) -> float:
        """‖sᵢΔWᵢ + sⱼΔWⱼ‖."""
        squared = self.inner(i, i) + 2 * self.inner(i, j) + self.inner(j, j)
        return sqrt(max(0.0, squared))
