"""Inspections for a terminal and for programs.

In a terminal: each LoRA with a bar, and block by block shares and overlaps. A character stands for
a block, so that the heat map says the same without colours. As JSON: what `compose schema inspect`
describes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from composer.lora.inspection import Level
from composer.output.listing import left_out_json, left_out_text
from composer.output.merge import lora_facts, number_types
from composer.output.plan_text import weight
from composer.output.style import aligned, bar, dumped, painted
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from composer.lora.inspection import Inspection, LoraInfo, Verdict
    from composer.lora.listing import Listing


LONGEST = 200  # characters of other people's text
NAME = 40
NOTHING = " "  # for a block that isn't changed
SHARES = "▁▂▃▄▅▆▇█"
# From each cosine on, its character and colour; below the first of its sign, two are independent.
ALIKE = ((0.7, "█", "red"), (0.5, "▓", "red"), (0.3, "▒", "yellow"), (0.1, "░", "yellow"))
AGAINST = ((0.5, "≡", "cyan"), (0.3, "=", "cyan"), (0.1, "-", "cyan"))
INDEPENDENT = ("·", "dim")
COLOURS = {Level.STRONG: "red", Level.OPPOSED: "red", Level.SOME: "yellow"}
LEGEND = "cosine: · below 0.1   ░ 0.1   ▒ 0.3   ▓ 0.5   █ 0.7   - = ≡ the same, against each other"

Cell = tuple[str, str | None]  # a character, and its colour


def text(
    inspections: Sequence[Inspection], listing: Listing | None = None, *, color: bool = False
) -> str:
    """All inspections, an empty line between two, and what else was found in folders: that a file
    which was named can't be used is an error."""
    left_out = left_out_text(listing, named=False) if listing else []
    pieces = ["\n".join(_lines(one, color=color)) + "\n" for one in inspections]
    return "\n".join([*pieces, *(["\n".join(left_out) + "\n"] if left_out else [])])


def named(name: str) -> str:
    """A LoRA's name as it is printed."""
    return shorten(visible(name), NAME)


def _lines(one: Inspection, *, color: bool) -> Iterator[str]:
    if one.title or one.source:
        head = f"{visible(one.title)}   {visible(one.source)}".strip()
        yield painted(head, "bold", color=color)
        yield ""
    for number, info in enumerate(one.loras):
        yield from _concept(one, number, info, color=color)
    if one.verdicts:
        yield "overlap, block by block"
        yield LEGEND
        for verdict in one.verdicts:
            yield ""
            yield from _pair(one, verdict, color=color)


def _concept(one: Inspection, number: int, info: LoraInfo, *, color: bool) -> Iterator[str]:
    share = one.mix.share(number)
    share_words = (
        f"{bar(share)} {share:.0%} of the total weight change"
        if share is not None
        else "changes nothing"
    )
    name = painted(named(one.mix.names[number]), "bold", color=color)
    yield f"{weight(one.mix.scales[number])}  {name}  {share_words}"
    yield from (f"      {line}" for line in aligned(list(_facts(info))))
    if len(one.loras) > 1:
        yield from _strips(one, lambda block: _share(one.mix.share(number, block)), color=color)
    yield ""


def _facts(info: LoraInfo) -> Iterator[tuple[str, str]]:
    """What is known of a file, as label and text; all safe to print."""
    for label, words in facts(info):
        yield label, shorten(visible(words), LONGEST)


def facts(info: LoraInfo) -> Iterator[tuple[str, str]]:
    """What is known of a file, as label and text, for every output format; not escaped."""
    yield "file", info.file
    if info.id:
        yield "id", info.id
    yield "format", weights_format(info)
    kinds = "; ".join(f"{n} in {kind}" for kind, n in info.modules.items())
    yield "modules", f"{sum(info.modules.values())}: {kinds}"
    for kind, format in info.only_in.items():
        yield kind, f"only the {format} format holds it: compose merge --format {format}"
    if info.norms:
        yield "norms", f"{info.norms}, which take the place of the base model's"
    if info.biases:
        yield "biases", f"of {info.biases} {'layer' if info.biases == 1 else 'layers'}"
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
    rank = f"rank {_range(info.ranks)}"
    alpha = f"alpha {_range(info.alphas)}" if info.alphas else "no alpha (factor 1)"
    kinds = " and ".join(info.kinds)
    return f"{info.format} {kinds}, {rank}, {alpha}, {number_types(info.dtypes)}"


def _range(values: Sequence[float]) -> str:
    low, high = f"{values[0]:g}", f"{values[-1]:g}"
    return low if low == high else f"{low} to {high}"


def decimals(cosine: float, digits: int = 2) -> str:
    """A cosine, and never minus zero."""
    return f"{round(cosine, digits) + 0.0:.{digits}f}"


# --- block by block ----------------------------------------------------------------------


def _pair(one: Inspection, verdict: Verdict, *, color: bool) -> Iterator[str]:
    first, second = (named(one.mix.names[n]) for n in (verdict.first, verdict.second))
    cosine = "" if verdict.cosine is None else f"   cosine {decimals(verdict.cosine)}"
    yield f"{first} × {second}{cosine}"
    cells: Callable[[str], Cell] = lambda block: _heat(  # noqa: E731 - one line of drawing
        one.mix.cosine(verdict.first, verdict.second, block)
    )
    yield from _strips(one, cells, color=color)
    colour = COLOURS.get(verdict.level)
    words = visible(verdict.words)
    yield f"      {painted(words, colour, color=color) if colour else words}"


def _strips(one: Inspection, cell: Callable[[str], Cell], *, color: bool) -> Iterator[str]:
    """A line for each kind of block that is there, a character for each block."""
    for label, blocks in rows(one.mix.blocks).items():
        cells = [cell(block) if block in one.mix.blocks else (NOTHING, None) for block in blocks]
        drawn = "".join(painted(c, by, color=color) if by else c for c, by in cells)
        yield f"      {label:<14}|{drawn}|"


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


def _share(share: float | None) -> Cell:
    if not share:
        return NOTHING, None
    return SHARES[min(len(SHARES) - 1, int(share * len(SHARES)))], None


def _heat(cosine: float | None) -> Cell:
    if cosine is None:
        return NOTHING, None
    for limit, character, colour in ALIKE if cosine > 0 else AGAINST:
        if abs(cosine) >= limit:
            return character, colour
    return INDEPENDENT


FORMAT_VERSION = 1
DIGITS = 9  # of a number that was computed: its last ones differ between machines


def as_json(inspections: Sequence[Inspection], listing: Listing | None = None) -> str:
    """All inspections, and what else was found among files; names and notes as files have them."""
    plain = {"formatVersion": FORMAT_VERSION, "inspections": [_plain(one) for one in inspections]}
    return dumped(plain | (left_out_json(listing) if listing else {}))


def _plain(one: Inspection) -> dict[str, Any]:
    mix = one.mix
    numbers = range(len(mix.names))
    return {
        **({"name": one.title} if one.title else {}),
        **({"recipe": one.source} if one.source else {}),
        "verdict": one.headline,
        "concepts": [_plain_concept(one, n, info) for n, info in enumerate(one.loras)],
        "blocks": [
            {
                "block": block,
                "norms": [_rounded(mix.norm(n, block)) for n in numbers],
                "shares": [_rounded(mix.share(n, block)) for n in numbers],
            }
            for block in mix.blocks
        ],
        "pairs": [_plain_pair(one, verdict) for verdict in one.verdicts],
    }


def _plain_concept(one: Inspection, number: int, info: LoraInfo) -> dict[str, Any]:
    return {
        "name": one.mix.names[number],
        "scale": one.mix.scales[number],
        "file": info.file,
        **({"id": info.id} if info.id else {}),
        **lora_facts(info),
        "modules": dict(info.modules),
        "normScales": info.norms,
        "biases": info.biases,
        "triggers": list(info.triggers),
        "tags": [{"tag": tag, "count": count} for tag, count in info.tags],
        "notes": [{"label": label, "text": text} for label, text in info.notes],
        "madeOf": [{"name": made.label, "scale": made.scale} for made in info.made_of],
        "kept": dict(info.kept),
        "norm": _rounded(one.mix.norm(number)),
        "share": _rounded(one.mix.share(number)),
    }


def _plain_pair(one: Inspection, verdict: Verdict) -> dict[str, Any]:
    mix, first, second = one.mix, verdict.first, verdict.second
    return {
        "concepts": [mix.names[first], mix.names[second]],
        "level": str(verdict.level),
        "cosine": _rounded(verdict.cosine),
        "verdict": verdict.words,
        "decidedIn": list(verdict.blocks),
        "tryScales": list(verdict.scales) if verdict.scales else None,
        "cosines": {block: _rounded(mix.cosine(first, second, block)) for block in mix.blocks},
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.{DIGITS}g}")
