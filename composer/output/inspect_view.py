"""What an inspection shows, in which order, for a terminal and for a page: the answer first.

Which LoRAs are near duplicates, which pairs interfere and what to try, and the pairs to show block
by block; the others are counted. Texts are not escaped here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from composer.lora.inspection import SOME, Level, gravest_first, near_duplicates
from composer.output.merge import number_types
from composer.output.style import weight
from composer.text import counted, joined, shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from composer.lora.inspection import Inspection, LoraInfo, Mix, Verdict

BAD = (Level.STRONG, Level.OPPOSED)
QUIET = (Level.INDEPENDENT, Level.SILENT)
MOST = 8  # pairs that are told first, and names in a sentence; the others are counted
MANY = 3  # LoRAs in a group of near duplicates whose pairs need not be shown one by one
NAME = 60  # characters of a LoRA's in a sentence


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence on the mix, and how grave it is."""

    level: Level
    words: str


@dataclass(frozen=True, slots=True)
class Overview:
    """What to know first, then the pairs to show, the gravest first, and how many others are."""

    statements: tuple[Statement, ...]
    pairs: tuple[Verdict, ...]
    others: str  # `12 independent pairs`; empty where every pair is shown

    def tells(self, verdict: Verdict) -> bool:
        """Whether the statements have this verdict's words."""
        return any(said.words == verdict.words for said in self.statements)


def overview(one: Inspection, *, everything: bool = False) -> Overview:
    """`everything` shows each pair; else only those that matter."""
    groups = near_duplicates(one.mix)
    ranked = gravest_first(one.verdicts)
    alike = {pair for group in groups for pair in combinations(group, 2)}
    within = [v for v in ranked if (v.first, v.second) in alike]
    apart = [v for v in ranked if (v.first, v.second) not in alike]
    many = {pair for group in groups if len(group) >= MANY for pair in combinations(group, 2)}
    shown = [v for v in ranked if everything or (_matters(v) and (v.first, v.second) not in many)]
    return Overview(
        (*_of_groups(one.mix, groups, within), *_of_pairs(one.mix, apart)),
        tuple(shown),
        _others([v for v in ranked if v not in shown], many),
    )


def _matters(verdict: Verdict) -> bool:
    return verdict.level not in QUIET or abs(verdict.cosine or 0.0) >= SOME


def _of_groups(
    mix: Mix, groups: Iterable[Sequence[int]], within: Sequence[Verdict]
) -> Iterator[Statement]:
    for group in groups:
        names = _names(mix, group)
        least = min(mix.likeness(i, j) or 0.0 for i, j in combinations(group, 2))
        how = f"cosine {decimals(least)}" + (" or more" if len(group) > 2 else "")
        scales = next((v.scales for v in within if (v.first, v.second) == tuple(group)), None)
        trying = f"; to use both, try {scales[0]:g} and {scales[1]:g}" if scales else ""
        words = f"{names} are near duplicates ({how}): use one of them{trying}"
        yield Statement(Level.STRONG, words)


def _of_pairs(mix: Mix, ranked: Sequence[Verdict]) -> Iterator[Statement]:
    """Pairs that interfere, LoRAs without an effect, and how many pairs are independent."""
    loud = [verdict for verdict in ranked if verdict.level not in QUIET]
    yield from (Statement(verdict.level, verdict.words) for verdict in loud[:MOST])
    if more := loud[MOST:]:
        are = "interferes" if len(more) == 1 else "interfere"
        yield Statement(more[0].level, f"{counted(len(more), 'more pair')} {are}: see below")
    silent = [n for n in range(len(mix.names)) if not mix.norm(n)]
    if silent and mix.pairs:
        change = "changes" if len(silent) == 1 else "change"
        yield Statement(Level.SILENT, f"{_names(mix, silent)} {change} nothing here")
    independent = [verdict for verdict in ranked if verdict.level is Level.INDEPENDENT]
    if independent:
        yield Statement(Level.INDEPENDENT, _independent(mix, ranked, independent))


def _names(mix: Mix, numbers: Sequence[int]) -> str:
    names = [shorten(mix.names[n], NAME) for n in numbers]
    rest = len(names) - MOST
    return joined(names if rest <= 0 else [*names[:MOST], f"{rest} more"])


def _independent(mix: Mix, ranked: Sequence[Verdict], independent: Sequence[Verdict]) -> str:
    pairs = len(mix.pairs)
    if pairs == 1:
        return ranked[0].words
    if len(independent) == pairs:
        return f"all {len(mix.names)} LoRAs are independent: each keeps its own effect"
    are = "is" if len(independent) == 1 else "are"
    return f"{len(independent)} of {pairs} pairs {are} independent"


def _others(hidden: Sequence[Verdict], many: set[tuple[int, int]]) -> str:
    """How many pairs are not shown, by kind."""
    kinds = Counter(
        "near"
        if (v.first, v.second) in many
        else "silent"
        if v.level is Level.SILENT
        else "independent"
        for v in hidden
    )
    return joined(
        [
            words
            for kind, words in (
                ("near", f"{counted(kinds['near'], 'pair')} of near duplicates"),
                ("independent", counted(kinds["independent"], "independent pair")),
                ("silent", f"{counted(kinds['silent'], 'pair')} without an effect"),
            )
            if kinds[kind]
        ]
    )


# --- what is known of a file -------------------------------------------------------------


def facts(info: LoraInfo) -> Iterator[tuple[str, str]]:
    """What is known of a file, as label and text, for every output format; not escaped."""
    yield "file", info.file
    if info.id:
        yield "id", info.id
    yield "size", file_size(info.size)
    yield "format", weights_format(info)
    kinds = "; ".join(f"{n} in {kind}" for kind, n in info.modules.items())
    yield "modules", f"{sum(info.modules.values())}: {kinds}"
    for kind, format in info.only_in.items():
        yield kind, f"only the {format} format holds it: compose merge --format {format}"
    if info.norms:
        yield "norms", f"{info.norms}, which take the place of the base model's"
    if info.biases:
        yield "biases", f"of {counted(info.biases, 'layer')}"
    yield from _provenance(info)


def _provenance(info: LoraInfo) -> Iterator[tuple[str, str]]:
    """What the file's metadata tells: trigger words, tags, notes, and what it was made of."""
    if info.triggers:
        yield "trigger", ", ".join(info.triggers)
    if info.tags:
        yield "tags", ", ".join(f"{tag} ({n})" for tag, n in info.tags)
    yield from info.notes
    if info.made_of:
        yield "made of", ", ".join(f"{weight(i.scale)} {i.label}" for i in info.made_of)
    if info.kept:
        listed = (f"{share:.1%} of {group}" for group, share in info.kept.items())
        yield "kept", "; ".join(listed)


def weights_format(info: LoraInfo) -> str:
    """`kohya LoRA, rank 2 to 4, alpha 2, BF16`."""
    if not info.ranks:
        return f"{info.format}, biases alone, {number_types(info.dtypes)}"
    rank = f"rank {span(info.ranks, ' to ')}"
    alpha = f"alpha {span(info.alphas, ' to ')}" if info.alphas else "no alpha (factor 1)"
    kinds = " and ".join(info.kinds)
    return f"{info.format} {kinds}, {rank}, {alpha}, {number_types(info.dtypes)}"


def span(values: Sequence[float], between: str) -> str:
    """The least and the most of sorted numbers, or the one that they are."""
    low, high = (f"{value:g}" for value in (values[0], values[-1]))
    return low if low == high else f"{low}{between}{high}"


def file_size(size: int) -> str:
    """`153.4 MB`, `12 kB`."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.0f} kB"


# --- numbers and blocks ------------------------------------------------------------------


def decimals(cosine: float, digits: int = 2) -> str:
    """A cosine, and never minus zero."""
    return f"{round(cosine, digits) + 0.0:.{digits}f}"


def by_kind(mix: Mix, n: int) -> str:
    """How much of its own change each kind of block has: `62% in double 0-18, 38% in single 0`."""
    kinds = rows(mix.blocks).items()
    parts = {kind: sum(mix.part(n, b) for b in blocks if b in mix.blocks) for kind, blocks in kinds}
    return ", ".join(f"{part:.0%} in {kind}" for kind, part in parts.items())


def strongest(mix: Mix, n: int, block: str) -> float | None:
    """The norm of a block over that of the LoRA's strongest one; None where it changes nothing."""
    return mix.norm(n, block) / max(mix.norm(n, b) for b in mix.blocks) if mix.norm(n) else None


def rows(blocks: Mapping[str, object]) -> dict[str, list[str]]:
    """The lines of a drawing: numbered blocks together, from 0 to the last one changed."""
    lines: dict[str, list[str]] = {}
    for block in blocks:
        kind, _, number = block.rpartition(" ")
        if number.isdecimal():
            lines[kind] = [f"{kind} {n}" for n in range(int(number) + 1)]
        else:
            lines[block] = [block]
    named = {kind: f"{kind} 0-{len(b) - 1}" if len(b) > 1 else b[0] for kind, b in lines.items()}
    return {named[kind]: blocks for kind, blocks in lines.items()}
