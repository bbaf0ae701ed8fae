"""Inspections for a terminal: the answer first, then the numbers, then the pairs that matter.

What to know; one matrix of cosines; a line for each LoRA with its share as a bar; block by block,
the pairs that `inspect_view` chooses. A character stands for a block, so that a drawing says the
same without colours.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from composer.output.inspect_matrix import COLOURS, LEGEND, heat, matrix
from composer.output.inspect_view import (
    by_kind,
    decimals,
    facts,
    file_size,
    overview,
    rows,
    span,
    strongest,
)
from composer.output.listing import left_out_text
from composer.output.style import bar, cut, padded, painted, weight, width
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from composer.lora.inspection import Inspection, Verdict
    from composer.lora.listing import Listing
    from composer.output.inspect_matrix import Cell
    from composer.output.inspect_view import Overview

LONGEST = 200  # characters of other people's text
NAME = 40  # columns of a LoRA's name, in a table at most
UNLIMITED = 160  # columns where no terminal limits them
WIDE = 100  # columns of a terminal with room for more
LEAST_NAME, LEAST_NAME_WIDE = 16, 28  # columns before there are more of a table
LEAST = 24  # columns of a file's name that are worth showing
FILE = "FILE"  # the heading of the column that may be cut
INDENT = "  "
NOTHING = " "  # for a block that isn't changed
LEVELS = "▁▂▃▄▅▆▇█"


def text(
    inspections: Sequence[Inspection],
    listing: Listing | None = None,
    columns: int = UNLIMITED,
    *,
    color: bool = False,
    everything: bool = False,
) -> str:
    """All inspections, an empty line between two, and what else was found in folders: that a file
    which was named can't be used is an error. `everything` adds each LoRA's facts and every pair.

    Tables and drawings are no wider than `columns`; sentences may be, and who prints wraps them.
    """
    views = [
        _View(one, overview(one, everything=everything), columns, color) for one in inspections
    ]
    pieces = ["\n".join(view.lines(everything=everything)) + "\n" for view in views]
    left_out = left_out_text(listing, named=False) if listing else []
    return "\n".join([*pieces, *(["\n".join(left_out) + "\n"] if left_out else [])])


class _View:
    """One inspection, for a terminal of so many columns."""

    def __init__(self, one: Inspection, found: Overview, columns: int, color: bool) -> None:
        self._one, self._mix, self._found = one, one.mix, found
        self._columns, self._color = columns, color

    def lines(self, *, everything: bool) -> Iterator[str]:
        """All of it; of one LoRA alone, its facts and its profile."""
        if self._one.title or self._one.source:
            head = f"{visible(self._one.title)}   {visible(self._one.source)}".strip()
            yield from (self._painted(head, "bold"), "")
        if len(self._one.loras) == 1:
            yield from self._alone()
        elif self._one.loras:
            yield from self._together(everything=everything)

    def _painted(self, words: str, colour: str | None) -> str:
        return painted(words, colour, color=self._color) if colour else words

    def _alone(self) -> Iterator[str]:
        yield from self._facts(0)
        yield from ("", f"by block: {by_kind(self._mix, 0)}")
        yield from self._strips(lambda block: _level(strongest(self._mix, 0, block)))
        yield self._painted("█ the block that it changes most   ▁ an eighth of that", "dim")

    def _together(self, *, everything: bool) -> Iterator[str]:
        for said in self._found.statements:
            yield self._painted(visible(said.words), COLOURS.get(said.level))
        yield from ("", *matrix(self._mix, self._columns, color=self._color))
        yield from ("", *self._shares())
        for number in range(len(self._one.loras) if everything else 0):
            yield from ("", *self._facts(number))
            yield from self._strips(partial(self._share, number))
        if self._found.pairs:
            yield from ("", "overlap, block by block", self._painted(LEGEND, "dim"))
        for verdict in self._found.pairs:
            yield from ("", *self._pair(verdict))
        others = f"{self._found.others} not shown block by block; " if self._found.others else ""
        if not everything:
            words = f"{others}compose inspect --all shows everything"
            yield from ("", self._painted(words, "dim"))

    def _facts(self, number: int) -> Iterator[str]:
        """A LoRA's name, and what is known of its file."""
        silent = "" if self._mix.norm(number) else "  changes nothing"
        scale, name = weight(self._mix.scales[number]), visible(self._mix.names[number])
        yield self._painted(f"{scale}  {cut(name, NAME)}{silent}", "bold")
        known = list(facts(self._one.loras[number]))
        labels = max(width(visible(label)) for label, _ in known)
        for label, words in known:
            yield f"{INDENT}{padded(visible(label), labels)}  {shorten(visible(words), LONGEST)}"

    # --- a line for each LoRA ------------------------------------------------------------

    def _shares(self) -> Iterator[str]:
        """Number, name, scale, share; then what else there is room for."""
        numbers = [str(n + 1) for n in range(len(self._one.loras))]
        names = [visible(name) for name in self._mix.names]
        scales = [weight(scale) for scale in self._mix.scales]
        parts = [
            ["", *(n.rjust(len(numbers[-1])) for n in numbers)],
            ["LORA", *names],
            ["SCALE", *(scale.rjust(5) for scale in scales)],
            ["SHARE", *self._bars()],
        ]
        longest = min(NAME, max(map(width, parts[1])))
        least = min(longest, LEAST_NAME_WIDE if self._columns >= WIDE else LEAST_NAME)
        for column in self._more():
            room = self._columns - _taken([*parts, column]) + max(map(width, parts[1])) - least
            widest = max(map(width, column))
            if widest + min(0, room) >= min(widest, LEAST if column[0] == FILE else widest):
                parts.append([cut(cell, widest + min(0, room)) for cell in column])
        room = self._columns - _taken(parts) + max(map(width, parts[1]))
        parts[1] = [cut(name, min(longest, room)) for name in parts[1]]
        sizes = [max(map(width, column)) for column in parts]
        for row, cells in enumerate(zip(*parts, strict=True)):
            line = "  ".join(map(padded, cells, sizes)).rstrip()
            yield line if row else self._painted(line, "dim")

    def _bars(self) -> list[str]:
        cells = 20 if self._columns >= WIDE else 10
        shares = [self._mix.share(n) or 0.0 for n in range(len(self._one.loras))]
        return [f"{bar(share, cells=cells)} {share:>4.0%}" for share in shares]

    def _more(self) -> Iterator[list[str]]:
        """More columns, the most useful first."""
        loras = self._one.loras
        yield ["SIZE", *(file_size(info.size) for info in loras)]
        yield ["RANK", *(span(info.ranks, "-") if info.ranks else "-" for info in loras)]
        yield [FILE, *(visible(info.file) for info in loras)]
        yield ["ID", *(info.id for info in loras)]

    def _share(self, number: int, block: str) -> Cell:
        return _level(self._mix.share(number, block))

    # --- block by block ------------------------------------------------------------------

    def _pair(self, verdict: Verdict) -> Iterator[str]:
        cosine = "" if verdict.cosine is None else f"   cosine {decimals(verdict.cosine)}"
        ending = f"{cosine}   {verdict.level}"
        room = min(NAME, (self._columns - len(ending) - 3) // 2)
        names = (cut(visible(self._mix.names[n]), room) for n in (verdict.first, verdict.second))
        yield " × ".join(names) + ending
        yield from self._strips(
            lambda block: heat(self._mix.cosine(verdict.first, verdict.second, block))
        )
        if not self._found.tells(verdict):
            words = f"{INDENT}{visible(verdict.words)}"
            yield self._painted(words, COLOURS.get(verdict.level))

    def _strips(self, cell: Callable[[str], Cell]) -> Iterator[str]:
        """A line for each kind of block that is there, a character for each block."""
        for label, blocks in rows(self._mix.blocks).items():
            cells = [cell(b) if b in self._mix.blocks else (NOTHING, None) for b in blocks]
            drawn = "".join(painted(c, by, color=self._color) if by else c for c, by in cells)
            yield f"{INDENT}{label:<14}|{drawn}|"


def _taken(parts: Sequence[Sequence[str]]) -> int:
    return sum(max(map(width, column)) for column in parts) + 2 * (len(parts) - 1)


def _level(share: float | None) -> Cell:
    if not share:
        return NOTHING, None
    return LEVELS[min(len(LEVELS) - 1, int(share * len(LEVELS)))], None
