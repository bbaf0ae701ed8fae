"""How the LoRAs of a mix interact, as drawings that are small: one path for each colour.

What a drawing shows is in its words too, which who can't see it hears.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.lora.inspection import Inspection
from composer.output.inspect_style import BANDS
from composer.output.inspect_view import BAD, decimals, overview, rows
from composer.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from composer.lora.inspection import Mix, Verdict

HIGH = 100  # of a drawing, in its own units; a block is 10 wide, and drawn 9 wide
MOST_PAIRS = 6  # that are drawn; the gravest first


@dataclass(frozen=True, slots=True)
class Strip:
    """A drawing of blocks in a row: the path of each colour, by the name of its class."""

    label: str  # of the row of blocks, as `double 0-18`
    blocks: int
    paths: tuple[tuple[str, str], ...]

    @property
    def width(self) -> int:
        return self.blocks * 10


@dataclass(frozen=True, slots=True)
class Share:
    """How much of the total change of a mix is a LoRA's, in words."""

    name: str
    words: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two LoRAs of a mix: where they overlap, or work against each other, and how much."""

    title: str
    words: str
    is_bad: bool
    strips: tuple[Strip, ...]


@dataclass(frozen=True, slots=True)
class Maps:
    """What each LoRA changes (in `influence` the classes are the LoRAs' numbers), the pairs that
    matter, how many others there are, and what to know where none matters."""

    shares: tuple[Share, ...]
    influence: tuple[Strip, ...]
    pairs: tuple[Pair, ...]
    others: str
    statements: tuple[str, ...]


def maps(mix: Mix) -> Maps:
    """The drawings of a mix."""
    seen = overview(Inspection("", "", (), mix))
    lines = rows(mix.blocks)
    drawn = seen.pairs[:MOST_PAIRS]
    hidden = len(mix.pairs) - len(drawn)
    return Maps(
        tuple(Share(name, _share(mix, n)) for n, name in enumerate(mix.names)),
        tuple(_influence(mix, label, blocks) for label, blocks in lines.items()),
        tuple(_pair(mix, verdict, lines.items()) for verdict in drawn),
        counted(hidden, "more pair") if hidden else "",
        tuple(said.words for said in seen.statements) if not drawn else (),
    )


def _share(mix: Mix, n: int) -> str:
    share = mix.share(n)
    if not share:
        return "changes nothing"
    ranked = sorted(mix.blocks, key=lambda block: -(mix.norm(n, block)))
    return f"{share:.0%} of the total change, most in {', '.join(ranked[:3])}"


def _influence(mix: Mix, label: str, blocks: Sequence[str]) -> Strip:
    """Each block as a column, divided among the LoRAs by their shares of its change."""
    paths: dict[str, list[str]] = defaultdict(list)
    for place, block in enumerate(blocks):
        top = 0.0
        for n in range(len(mix.names)) if block in mix.blocks else ():
            high = (mix.share(n, block) or 0.0) * HIGH
            if high >= 0.5:
                paths[str(n)].append(_column(place, round(top), round(top + high)))
            top += high
    return Strip(label, len(blocks), _joined(paths))


def _pair(mix: Mix, verdict: Verdict, lines: Iterable[tuple[str, Sequence[str]]]) -> Pair:
    names = f"{mix.names[verdict.first]} × {mix.names[verdict.second]}"
    cosine = "" if verdict.cosine is None else f", cosine {decimals(verdict.cosine)}"
    strips = tuple(_overlap(mix, verdict, label, blocks) for label, blocks in lines)
    return Pair(f"{names}{cosine}", verdict.words, verdict.level in BAD, strips)


def _overlap(mix: Mix, verdict: Verdict, label: str, blocks: Sequence[str]) -> Strip:
    paths: dict[str, list[str]] = defaultdict(list)
    for place, block in enumerate(blocks):
        there = block in mix.blocks
        cosine = mix.cosine(verdict.first, verdict.second, block) if there else None
        if cosine is not None:
            paths[band(cosine)].append(_column(place, 0, HIGH))
    return Strip(label, len(blocks), _joined(paths))


def band(cosine: float) -> str:
    """The colour of a cosine, as a class."""
    size = sum(abs(cosine) >= limit for limit in BANDS)
    return f"{'a' if cosine > 0 else 'o'}{size}" if size else "none"


def _column(place: int, top: int, bottom: int) -> str:
    return f"M{place * 10} {top}h9V{bottom}h-9z"


def _joined(paths: dict[str, list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, "".join(parts)) for name, parts in sorted(paths.items()))
