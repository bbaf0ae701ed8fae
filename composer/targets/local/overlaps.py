"""How much the LoRAs of a library overlap, remembered pair by pair in the store."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from composer.errors import ComposeError
from composer.lora.analysis import distinct, grams, seconds
from composer.lora.families import registered
from composer.lora.inspection import NOT_COMPARED, Mix, advice_on
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from composer.lora import LoraFile
    from composer.lora.fingerprint import Fingerprint
    from composer.lora.inspection import Advice, Gram
    from composer.model import Concept
    from composer.targets.local.library import Lora

    Overlap = Mapping[str, float]


log = logging.getLogger("composer.inspect")
BUDGET = 1.0  # seconds that all advice of a plan may take, as estimated


@lru_cache(maxsize=64)
def lora_file(fingerprint: Fingerprint) -> LoraFile:
    """The file, read once while it is the same. Raises `BadLora`."""
    return fingerprint.read()


class OverlapCache(Protocol):
    """Keeps what was computed for two LoRAs: the store."""

    def get_overlap(self, pair: str, version: str) -> str | None: ...

    def put_overlap(self, pair: str, version: str, numbers: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Overlaps:
    """The mixes of a library's LoRAs; each pair is computed once.

    The inner products at scale 1 (block -> number) are kept by the ids of the two LoRAs, which are
    derived from their bytes.
    """

    memory: OverlapCache

    def advise(
        self, mixes: Mapping[str, Sequence[Concept]], loras: Mapping[str, Lora]
    ) -> dict[str, Advice]:
        """What to know of each mix, by its key; nothing of a LoRA alone, or of one that is not in
        the library or can't be read.

        All together may take `BUDGET`, by estimate: what is beyond it is not compared. What is kept
        of earlier times counts too, so that equal inputs give equal advice.
        """
        left, compared = BUDGET, set[str]()
        advised: dict[str, Advice] = {}
        for key, mix in mixes.items():
            parts = [(loras[c.model_id], c.scale) for c in mix if c.model_id in loras]
            if len(parts) < max(2, len(mix)):
                continue
            pairs = {_key(one, two) for one, _ in parts for two, _ in parts}
            try:
                cost = 0.0 if pairs <= compared else _cost(parts)
                advice = advice_on(self.mix(parts)) if cost <= left else NOT_COMPARED
            except (ComposeError, OSError) as error:
                log.debug("no advice on %s: %s", key, error)
                continue
            if advice is not NOT_COMPARED:
                left, compared = left - cost, compared | pairs
            if advice:
                advised[key] = advice
        return advised

    def mix(
        self,
        parts: Sequence[tuple[Lora, float]],
        progress: Callable[[float], None] = lambda share: None,
    ) -> Mix:
        """The mix of these LoRAs. Raises `BadLora` for a file that can't be used, or changed."""
        loras = [part for part, _ in parts]
        pairs = [(i, j) for i in range(len(loras)) for j in range(i, len(loras))]
        kept = {(i, j): self._kept(loras[i], loras[j]) for i, j in pairs}
        overlaps = {pair: overlap for pair, overlap in kept.items() if overlap is not None}
        if len(overlaps) < len(pairs):
            overlaps = self._compute(loras, pairs, progress)
        names = distinct([part.name for part in loras])
        return Mix(names, tuple(scale for _, scale in parts), _joined(overlaps, len(loras)))

    def _kept(self, one: Lora, two: Lora) -> Overlap | None:
        text = self.memory.get_overlap(_key(one, two), __version__)
        return None if text is None else _parsed(text)

    def _compute(
        self,
        loras: Sequence[Lora],
        pairs: Sequence[tuple[int, int]],
        progress: Callable[[float], None],
    ) -> dict[tuple[int, int], Overlap]:
        blocks = grams([lora_file(part.fingerprint) for part in loras], progress).blocks
        for part in loras:
            part.fingerprint.check_unchanged()
        computed: dict[tuple[int, int], Overlap] = {
            (i, j): {block: float(gram[i, j]) for block, gram in blocks.items()} for i, j in pairs
        }
        for (i, j), numbers in computed.items():
            self.memory.put_overlap(_key(loras[i], loras[j]), __version__, json.dumps(numbers))
        return computed


def _cost(parts: Sequence[tuple[Lora, float]]) -> float:
    return seconds([lora_file(lora.fingerprint) for lora, _ in parts])


def _key(one: Lora, two: Lora) -> str:
    return " ".join(sorted((one.id, two.id)))


def _parsed(text: str) -> Overlap | None:
    """What was kept; None if it can't be read, so that it is computed again."""
    try:
        numbers = json.loads(text)
        return {block: float(number) for block, number in numbers.items() if block in _blocks()}
    except (ValueError, TypeError, AttributeError):
        return None


def _joined(overlaps: Mapping[tuple[int, int], Overlap], count: int) -> dict[str, Gram]:
    """The inner products of each block that any LoRA changes, (count, count)."""
    present = {block for numbers in overlaps.values() for block in numbers}
    return {
        block: tuple(
            tuple(overlaps[min(i, j), max(i, j)].get(block, 0.0) for j in range(count))
            for i in range(count)
        )
        for block in _blocks()
        if block in present
    }


def _blocks() -> tuple[str, ...]:
    """The blocks of all model families, in their order."""
    return tuple(dict.fromkeys(block for family in registered() for block in family.files.blocks))
