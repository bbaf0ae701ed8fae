"""What inspecting LoRAs finds out, as values, and the plain words for it. Pure: no file, no array.

`analysis` fills the values from LoRA files; plans and reports show them. The thresholds and
formulas of the verdicts are those of docs/inspect.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import sqrt
from typing import TYPE_CHECKING, TypeAlias

from composer.lora.formats import LoraFacts
from composer.text import joined, shorten

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

Gram: TypeAlias = "tuple[tuple[float, ...], ...]"


@dataclass(frozen=True, slots=True)
class Mix:
    """LoRAs by number, with their scales; `blocks` are the inner products <ΔWᵢ, ΔWⱼ> at scale 1.

    Every method takes a block, or none for all of them together.
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
        grams = self.blocks.values() if block is None else (self.blocks[block],)
        return self.scales[i] * self.scales[j] * sum(gram[i][j] for gram in grams)

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

    def likeness(self, i: int, j: int) -> float | None:
        """The cosine of the two at scale 1, whatever their scales; None if one changes nothing."""
        inner, first, second = (
            sum(gram[a][b] for gram in self.blocks.values()) for a, b in ((i, j), (i, i), (j, j))
        )
        size = sqrt(max(0.0, first) * max(0.0, second))
        return max(-1.0, min(1.0, inner / size)) if size else None

    def part(self, i: int, block: str) -> float:
        """‖ΔWᵢ‖² of a block over that of the whole, 0..1: those of all blocks add up to 1."""
        total = self.norm(i) ** 2
        return self.norm(i, block) ** 2 / total if total else 0.0

    def weights(self, i: int, j: int) -> dict[str, float]:
        """How much each block counts for a pair: the most it can add to the cosine of the whole."""
        size = self.norm(i) * self.norm(j)
        return {
            block: self.norm(i, block) * self.norm(j, block) / size if size else 0.0
            for block in self.blocks
        }

    def together(self, i: int, j: int) -> float:
        """‖sᵢΔWᵢ + sⱼΔWⱼ‖."""
        squared = self.inner(i, i) + 2 * self.inner(i, j) + self.inner(j, j)
        return sqrt(max(0.0, squared))


STRONG, SOME = 0.3, 0.1  # cosines, of either sign
COUNTS = 0.005  # a block's weight from which on it is looked at
PART = 0.1  # of the weight of all blocks: what makes a verdict on the pair
WINS = 1.5  # so much larger is the change that drowns the other
STEP, LARGEST = 0.05, 1.0  # of a suggested scale
NAME = 60  # characters of a LoRA's in a sentence
HOPELESS = 20  # the factor from which on none is suggested
NEAR = 0.9  # the cosine at scale 1 of near duplicates


class Level(StrEnum):
    """How much the two of a pair interfere, the gravest first."""

    STRONG = "strong overlap"
    OPPOSED = "opposed"
    SOME = "some overlap"
    PARTLY_OPPOSED = "partly opposed"
    INDEPENDENT = "independent"
    SILENT = "no effect"
    NOT_COMPARED = "not compared"


GRAVITY = tuple(Level)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One pair: the cosine of the whole, where it is decided, in words, and scales to try."""

    first: int
    second: int
    level: Level
    cosine: float | None
    blocks: tuple[str, ...]
    words: str
    scales: tuple[float, float] | None = None


def verdicts(mix: Mix) -> tuple[Verdict, ...]:
    """A verdict on each pair."""
    return tuple(_verdict(mix, i, j) for i, j in mix.pairs)


@dataclass(frozen=True, slots=True)
class Advice:
    """What to know of a mix, in one line, and the level of its gravest pair."""

    level: Level
    words: str

    @property
    def is_needed(self) -> bool:
        """Whether a reader of a plan should see it: LoRAs interfere, or were not compared."""
        return self.level not in (Level.INDEPENDENT, Level.SILENT)


NOT_COMPARED = Advice(Level.NOT_COMPARED, "not compared: too large for a plan; run compose inspect")


def headline(mix: Mix) -> str | None:
    """The gravest verdict in one line; None where there is no pair."""
    advice = advice_on(mix)
    return advice.words if advice else None


def advice_on(mix: Mix) -> Advice | None:
    """The gravest verdict; None where there is no pair."""
    ranked = gravest_first(verdicts(mix))
    if not ranked:
        return None
    quiet = (Level.INDEPENDENT, Level.SILENT)
    if len(ranked) > 1 and all(verdict.level is Level.INDEPENDENT for verdict in ranked):
        words = f"all {len(mix.names)} concepts are independent: each keeps its own effect"
        return Advice(Level.INDEPENDENT, words)
    others = sum(verdict.level not in quiet for verdict in ranked[1:])
    more = f" (and {others} more {'pair' if others == 1 else 'pairs'}: compose inspect)"
    return Advice(ranked[0].level, ranked[0].words + (more if others else ""))


def gravest_first(found: Iterable[Verdict]) -> list[Verdict]:
    """Verdicts by level; of one level, the largest cosine first, whatever its sign."""
    return sorted(found, key=lambda v: (GRAVITY.index(v.level), -abs(v.cosine or 0)))


def near_duplicates(mix: Mix) -> tuple[tuple[int, ...], ...]:
    """Groups of LoRAs in which each two have a cosine of `NEAR` at least, by number.

    Scales don't count: it is about the files. No LoRA is in two groups.
    """
    groups: list[list[int]] = []
    for n in range(len(mix.names)):
        for group in groups:
            if all((mix.likeness(n, member) or 0.0) >= NEAR for member in group):
                group.append(n)
                break
        else:
            groups.append([n])
    return tuple(tuple(group) for group in groups if len(group) > 1)


def _verdict(mix: Mix, i: int, j: int) -> Verdict:
    cosine = mix.cosine(i, j)
    if cosine is None:
        return Verdict(i, j, Level.SILENT, None, (), _silent(mix, i, j))
    level, blocks = _judged(mix, i, j)
    scales = _suggested(mix, i, j) if level in (Level.STRONG, Level.OPPOSED) else None
    return Verdict(i, j, level, cosine, blocks, _words(mix, i, j, level, blocks, scales), scales)


def _judged(mix: Mix, i: int, j: int) -> tuple[Level, tuple[str, ...]]:
    """The gravest level that enough blocks reach, and these blocks."""
    weights = mix.weights(i, j)
    counted = {block: w for block, w in weights.items() if w >= COUNTS}
    cosines = {block: mix.cosine(i, j, block) or 0.0 for block in counted}
    enough = PART * sum(weights.values())
    for threshold, alike, against in (
        (STRONG, Level.STRONG, Level.OPPOSED),
        (SOME, Level.SOME, Level.PARTLY_OPPOSED),
    ):
        for level, sign in ((alike, 1), (against, -1)):
            blocks = tuple(block for block in counted if sign * cosines[block] >= threshold)
            reached = sum(counted[block] for block in blocks)
            others = sum(w for b, w in counted.items() if -sign * cosines[b] >= threshold)
            if reached and reached >= enough and reached >= others:
                return level, blocks
    return Level.INDEPENDENT, ()


def _suggested(mix: Mix, i: int, j: int) -> tuple[float, float] | None:
    """Both scales times k, so that the two together are as large as they were if independent.

    k = sqrt((‖s₁Δ₁‖² + ‖s₂Δ₂‖²) / ‖s₁Δ₁ + s₂Δ₂‖²), in steps of 0.05 and at most 1. None where that
    changes nothing.
    """
    together = mix.together(i, j)
    apart = sqrt(mix.norm(i) ** 2 + mix.norm(j) ** 2)
    if together * HOPELESS < apart:  # they cancel: no scale helps
        return None
    given = (mix.scales[i], mix.scales[j])
    first, second = (_step(scale, apart / together) for scale in given)
    return None if (first, second) == given else (first, second)


def _step(scale: float, k: float) -> float:
    """In steps, at least one; not above 1, but where it is already."""
    size = max(STEP, round(abs(scale) * k / STEP) * STEP)
    limit = max(LARGEST, abs(scale))
    return round(min(size, limit), 2) * (1 if scale > 0 else -1)


# --- in words ----------------------------------------------------------------------------


def _words(
    mix: Mix,
    i: int,
    j: int,
    level: Level,
    blocks: tuple[str, ...],
    scales: tuple[float, float] | None,
) -> str:
    both = f"{_name(mix, i)} and {_name(mix, j)}"
    if level is Level.INDEPENDENT:
        return f"{both} are independent: each keeps its own effect"
    where = in_words(blocks, [block for block, w in mix.weights(i, j).items() if w >= COUNTS])
    trying = f"; try {scales[0]:g} and {scales[1]:g}" if scales else ""
    match level:
        case Level.STRONG:
            return f"{both} overlap strongly {where}: expect {_winner(mix, i, j, blocks)}{trying}"
        case Level.OPPOSED:
            return f"{both} pull against each other {where}: expect both to fade{trying}"
        case Level.SOME:
            return f"{both} overlap somewhat {where}: expect more of what they share"
    return f"{both} pull slightly against each other {where}: expect a little less of both"


def _winner(mix: Mix, i: int, j: int, blocks: tuple[str, ...]) -> str:
    first, second = (sqrt(sum(mix.norm(n, b) ** 2 for b in blocks)) for n in (i, j))
    if max(first, second) < WINS * min(first, second):
        return "one to win"
    return f"{_name(mix, i if first > second else j)} to win"


def _silent(mix: Mix, i: int, j: int) -> str:
    silent = [_name(mix, n) for n in (i, j) if not mix.norm(n)]
    return f"{' and '.join(silent)} {'change' if len(silent) > 1 else 'changes'} nothing here"


def _name(mix: Mix, i: int) -> str:
    return shorten(mix.names[i], NAME)


MOST = 4  # runs of blocks that a sentence can hold


def in_words(blocks: Sequence[str], among: Collection[str]) -> str:
    """Where these blocks are, for a sentence; `among` are all that could have been."""
    if len(blocks) == len(among) > 1:
        return "in every block that both change"
    kinds: dict[str, list[int]] = {}
    for block in blocks:
        kind, _, number = block.partition(" ")
        if number.isdecimal():
            kinds.setdefault(kind, []).append(int(number))
    runs = {kind: list(_runs(numbers)) for kind, numbers in kinds.items()}
    if sum(map(len, runs.values())) > MOST:
        return f"in {len(blocks)} of the {len(among)} blocks that both change"
    names = [_named(kind, runs[kind], len(kinds[kind])) for kind in runs]
    names += [f"the {block}" for block in blocks if not block.split(" ")[-1].isdecimal()]
    return f"in {joined(names)}"


def _runs(numbers: Sequence[int]) -> Iterator[str]:
    """Neighbours as `3-9`, a block that stands alone as its number."""
    start = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield _run(start, last)
            start = number
        last = number
    yield _run(start, last)


def _run(start: int, last: int) -> str:
    return str(start) if start == last else f"{start}-{last}"


def _named(kind: str, runs: Sequence[str], count: int) -> str:
    return f"{kind} {'block' if count == 1 else 'blocks'} {joined(runs)}"


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A LoRA that a result was composed of, as the result says."""

    label: str
    scale: float


@dataclass(frozen=True, slots=True)
class LoraInfo(LoraFacts):
    """A LoRA file: what it holds, and what its maker noted. All texts are untrusted.

    `modules`: kind of layer -> how many are changed. `norms` and `biases` are how many scales of
    norms it brings, and of how many layers it changes the bias. `only_in`: kind of layer -> the
    output format that holds it, where the one of compositions can't. `notes`: label and text, in
    the order to show them. `made_of` and `kept` (group of layers -> share of its norm) are those of
    a composed file. `id` is what a recipe may name it by, where that was computed.
    """

    file: str
    modules: Mapping[str, int]
    norms: int = 0
    biases: int = 0
    only_in: Mapping[str, str] = field(default_factory=dict)
    triggers: tuple[str, ...] = ()
    tags: tuple[tuple[str, int], ...] = ()  # with how often each occurs, the commonest first
    notes: tuple[tuple[str, str], ...] = ()
    made_of: tuple[Ingredient, ...] = ()
    kept: Mapping[str, float] = field(default_factory=dict)
    id: str = ""
    size: int = 0  # of the file, in bytes


@dataclass(frozen=True, slots=True)
class Inspection:
    """A recipe (or files that were named together): its LoRAs, in the order of the mix."""

    title: str
    source: str  # the recipe's path; empty for files
    loras: tuple[LoraInfo, ...]
    mix: Mix

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        return verdicts(self.mix)

    @property
    def headline(self) -> str | None:
        """The verdict in one line, as a plan shows it."""
        return headline(self.mix)
