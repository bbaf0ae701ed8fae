"""From cosines to plain words: who overlaps with whom, where, and which scales to try.

The thresholds and formulas are those of docs/inspect.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from typing import TYPE_CHECKING

from composer.lora.block_names import in_words
from composer.text import shorten

if TYPE_CHECKING:
    from composer.lora.mix import Mix

STRONG, SOME = 0.3, 0.1  # cosines, of either sign
COUNTS = 0.005  # a block's weight from which on it is looked at
PART = 0.1  # of the weight of all blocks: what makes a verdict on the pair
WINS = 1.5  # so much larger is the change that drowns the other
STEP, LARGEST = 0.05, 1.0  # of a suggested scale
NAME = 60  # characters of a LoRA's in a sentence
HOPELESS = 20  # the factor from which on none is suggested


class Level(StrEnum):
    """What a pair is to each other, the gravest first."""

    STRONG = "strong overlap"
    OPPOSED = "opposed"
    SOME = "some overlap"
    PARTLY_OPPOSED = "partly opposed"
    INDEPENDENT = "independent"
    SILENT = "no effect"


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


def headline(mix: Mix) -> str | None:
    """The gravest verdict in one line; None where there is no pair."""
    found = sorted(verdicts(mix), key=lambda v: (GRAVITY.index(v.level), -abs(v.cosine or 0)))
    if not found:
        return None
    quiet = (Level.INDEPENDENT, Level.SILENT)
    if len(found) > 1 and all(verdict.level is Level.INDEPENDENT for verdict in found):
        return f"all {len(mix.names)} concepts are independent: each keeps its own effect"
    others = sum(verdict.level not in quiet for verdict in found[1:])
    more = f" (and {others} more {'pair' if others == 1 else 'pairs'}: compose inspect)"
    return found[0].words + (more if others else "")


def _verdict(mix: Mix, i: int, j: int) -> Verdict:
    cosine = mix.cosine(i, j)
    if cosine is None:
        return Verdict(i, j, Level.SILENT, None, (), _silent(mix, i, j))
    level, blocks = _judged(mix, i, j)
    scales = _suggested(mix, i, j) if level in (Level.STRONG, Level.OPPOSED) else None
    return Verdict(i, j, level, cosine, blocks, _words(mix, i, j, level, blocks, scales), scales)


def _judged(mix: Mix, i: int, j: int) -> tuple[Level, tuple[str, ...]]:
    """The gravest level that enough blocks reach, and these blocks."""
    weights = {block: mix.weight(i, j, block) for block in mix.blocks}
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
    where = in_words(blocks, [block for block in mix.blocks if mix.weight(i, j, block) >= COUNTS])
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
