"""Inspecting LoRA files: what each is, and what they do to each other in a mix.

`Engine` inspects the LoRAs of its library with this, and keeps what it found of each pair, by the
bytes of the two; the command line inspects any files.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from composer import __version__, lora
from composer.errors import BadLora
from composer.lora import trainer_metadata as training_notes
from composer.lora.analysis import BLOCKS, grams
from composer.lora.encoders import CLIP, T5, encoder_of
from composer.lora.fingerprint import unchanged
from composer.lora.inspection_values import T5_PART, Inspection, LoraInfo, Mix
from composer.lora.modules import group_of
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from composer.lora import LoraFile
    from composer.lora.mix import Gram
    from composer.targets.local.library import Lora

    Overlap = Mapping[str, float]


ENCODERS = {CLIP: "CLIP", T5: T5_PART}


class OverlapCache(Protocol):
    """Where it is kept what was found of two LoRAs: the store."""

    def get_overlap(self, pair: str, version: str) -> str | None: ...

    def put_overlap(self, pair: str, version: str, numbers: str) -> None: ...


def inspect(parts: Sequence[tuple[LoraFile, float]], *, title: str = "") -> Inspection:
    """What these files, each with its scale, are and do together. Raises `BadLora`."""
    files = [file for file, _ in parts]
    scales = tuple(scale for _, scale in parts)
    found = {block: tuple(map(tuple, gram.tolist())) for block, gram in grams(files).blocks.items()}
    names = distinct([file.title or file.path.stem for file in files])
    portraits = tuple(map(portrait, files))
    return Inspection(title, "", portraits, Mix(names, scales, found))


def portrait(file: LoraFile) -> LoraInfo:
    """What a file is, and says of itself."""
    return LoraInfo(
        file=file.path.name,
        format=file.format,
        kinds=file.kinds,
        ranks=file.ranks,
        alphas=file.alphas,
        dtypes=file.dtypes,
        modules=dict(Counter(map(_group, file.modules))),
        norms=len(file.norms),
        biases=sum(bool(adapter.biases) for adapter in file.adapters),
        triggers=training_notes.triggers(file.metadata),
        tags=training_notes.tags(file.metadata),
        notes=training_notes.notes(file.metadata),
        made_of=training_notes.made_of(file.metadata),
        kept=training_notes.kept(file.metadata),
    )


def _group(path: str) -> str:
    return ENCODERS.get(encoder_of(path) or "") or group_of(path)


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, numbered where several are alike."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)


# --- what is remembered ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Overlaps:
    """The mixes of a library's LoRAs: what is known of a pair isn't computed again.

    What is kept are the inner products at scale 1 (block -> number), by the ids of the two LoRAs,
    which are those of their bytes.
    """

    memory: OverlapCache

    def mix(self, parts: Sequence[tuple[Lora, float]]) -> Mix:
        """The mix of these LoRAs. Raises `BadLora` for a file that can't be used, or changed."""
        loras = [part for part, _ in parts]
        pairs = [(i, j) for i in range(len(loras)) for j in range(i, len(loras))]
        known = {(i, j): self._known(loras[i], loras[j]) for i, j in pairs}
        if None in known.values():
            known = {**known, **self._computed(loras, pairs)}
        found = {pair: numbers for pair, numbers in known.items() if numbers is not None}
        names = distinct([part.name for part in loras])
        return Mix(names, tuple(scale for _, scale in parts), _joined(found, len(loras)))

    def _known(self, one: Lora, two: Lora) -> Overlap | None:
        text = self.memory.get_overlap(_key(one, two), __version__)
        return None if text is None else _parsed(text)

    def _computed(
        self, loras: Sequence[Lora], pairs: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], Overlap]:
        found = grams([lora.read(part.reading.path) for part in loras]).blocks
        for part in loras:
            if not unchanged(part.reading):
                raise BadLora(
                    f"{visible(part.reading.path.name)} changed while it was read",
                    hint="run the same again once it stays as it is",
                )
        computed: dict[tuple[int, int], Overlap] = {
            (i, j): {block: float(gram[i, j]) for block, gram in found.items()} for i, j in pairs
        }
        for (i, j), numbers in computed.items():
            self.memory.put_overlap(_key(loras[i], loras[j]), __version__, json.dumps(numbers))
        return computed


def _key(one: Lora, two: Lora) -> str:
    return " ".join(sorted((one.id, two.id)))


def _parsed(text: str) -> Overlap | None:
    """What was kept; None where it is none of ours, so that it is computed anew."""
    try:
        numbers = json.loads(text)
        return {block: float(number) for block, number in numbers.items() if block in BLOCKS}
    except (ValueError, TypeError, AttributeError):
        return None


def _joined(found: Mapping[tuple[int, int], Overlap], count: int) -> dict[str, Gram]:
    """The inner products of each block that any LoRA changes, (count, count)."""
    present = {block for numbers in found.values() for block in numbers}
    return {
        block: tuple(
            tuple(found[min(i, j), max(i, j)].get(block, 0.0) for j in range(count))
            for i in range(count)
        )
        for block in BLOCKS
        if block in present
    }
