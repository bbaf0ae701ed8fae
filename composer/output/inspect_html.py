"""Inspections as one page, for a browser without a network: the answer first, as in a terminal.

Nothing in it is loaded or run: no script, no font, no image, and a policy (CSP) that would stop
them. What a drawing shows is in a table as well; every text is escaped.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import TYPE_CHECKING

from composer.output.inspect_style import BANDS, style
from composer.output.inspect_view import (
    BAD,
    by_kind,
    decimals,
    facts,
    file_size,
    overview,
    rows,
    strongest,
)
from composer.output.style import weight
from composer.text import shorten, visible
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from composer.lora.inspection import Inspection, LoraInfo, Verdict
    from composer.output.inspect_view import Overview

LONGEST = 400  # characters of other people's text
HIGH = 20  # of a bar in a drawing
KEY = (
    "The upper number is ten times the cosine, a dot is below 0.1, and a minus means against each"
    " other; the lower number is the block's. A block without a colour is one that one of the two"
    " doesn't change."
)


def page(inspections: Sequence[Inspection], *, everything: bool = False) -> str:
    """The whole page, complete in itself; `everything` draws each pair, not only those that
    matter."""
    title = ", ".join(_text(one.title or "LoRA files") for one in inspections)
    sections = [
        _Section(one, overview(one, everything=everything), len(inspections) == 1)
        for one in inspections
    ]
    body = "\n".join("\n".join(section.lines()) for section in sections)
    css = style(
        {len(section.names) for section in sections}, {section.columns for section in sections}
    )
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}: what is in the mix</title>
<style>{css}</style>
</head>
<body>
<main>
<h1>{title}: what is in the mix</h1>
{body}
</main>
<footer><p>compose {_text(__version__)}</p></footer>
</body>
</html>
"""


def _text(text: str) -> str:
    """Other people's text, inert in an element and in an attribute."""
    return escape(shorten(visible(text), LONGEST), quote=True)


class _Section:
    """One inspection. If it is alone, the page's heading is its own."""

    def __init__(self, one: Inspection, found: Overview, alone: bool) -> None:
        self._one, self._mix, self._found, self._alone = one, one.mix, found, alone
        self.names = [_text(name) for name in one.mix.names]

    @property
    def columns(self) -> int:
        """How many columns the table of all numbers has beside the blocks' names."""
        return len(self._heads())

    def lines(self) -> Iterator[str]:
        title = _text(self._one.title or "LoRA files")
        yield "<section>" if self._alone else f"<section>\n<h2>{title}</h2>"
        if self._one.source:
            yield f'<p class="key"><small>{_text(self._one.source)}</small></p>'
        if self._found.statements:
            yield self._heading("What to know")
            yield '<ul class="verdicts">'
            for said in self._found.statements:
                bad = ' class="bad"' if said.level in BAD else ""
                yield f"<li{bad}>{escape(visible(said.words))}</li>"
            yield "</ul>"
        if len(self.names) > 1:
            yield from self._matrix()
        yield self._heading("LoRAs" if len(self.names) > 1 else "The LoRA")
        yield '<ol class="loras">'
        for number, info in enumerate(self._one.loras):
            yield from self._lora(number, info)
        yield "</ol>"
        yield from self._pairs()
        yield from self._numbers()
        yield "</section>"

    def _heading(self, words: str, below: int = 0) -> str:
        level = (2 if self._alone else 3) + below
        return f"<h{level}>{words}</h{level}>"

    # --- the matrix ----------------------------------------------------------------------

    def _matrix(self) -> Iterator[str]:
        yield self._heading("How similar they are")
        yield '<ul class="legend">'
        yield from (f'<li class="{band}">{words}</li>' for band, words in _LEGEND)
        yield "</ul>"
        heads = "".join(
            f'<th scope="col" title="{name}">{n}</th>' for n, name in enumerate(self.names, 1)
        )
        lines = [
            f'<tr><th scope="row"><span>{row + 1}</span> {name}</th>{self._cosines(row)}</tr>'
            for row, name in enumerate(self.names)
        ]
        yield from _scrolling(
            f"matrix-{len(self.names)}",
            "Cosine of each two LoRAs",
            f"<thead><tr><td></td>{heads}</tr></thead>\n<tbody>",
            *lines,
            "</tbody>",
        )

    def _cosines(self, row: int) -> str:
        return "".join(
            '<td class="self">1</td>' if n == row else _cosine_cell(self._mix.cosine(row, n))
            for n in range(len(self.names))
        )

    # --- the LoRAs -----------------------------------------------------------------------

    def _lora(self, number: int, info: LoraInfo) -> Iterator[str]:
        name, share = self.names[number], self._mix.share(number)
        words = f"{share:.0%} of the total weight change" if share else "changes nothing"
        scale = weight(self._mix.scales[number])
        head = f"<b>{name}</b><span>scale {scale}</span><span>{file_size(info.size)}</span>"
        known = "".join(f"<dt>{_text(a)}</dt><dd>{_text(b)}</dd>" for a, b in facts(info))
        if len(self.names) == 1:
            by_block = _text(by_kind(self._mix, 0))
            yield f'<li><p class="lora">{head}</p>\n<dl>{known}</dl>'
            yield f"{self._heading('By block', 1)}\n<p>{by_block}</p>"
            yield from self._bars(
                f"{name}: change of each block, the largest as a full bar",
                lambda block: strongest(self._mix, 0, block),
            )
        else:
            yield f'<li><p class="lora">{head}<span>{words}</span></p>'
            yield _share_bar(words, share or 0.0)
            yield f"<details><summary>About {name}</summary>\n<dl>{known}</dl>"
            yield "<p>Share of each block:</p>"
            yield from self._bars(
                f"{name}: share of each block", lambda block: self._mix.share(number, block)
            )
            yield "</details>"
        yield "</li>"

    def _bars(self, label: str, share: Callable[[str], float | None]) -> Iterator[str]:
        """A drawing for each kind of block, a bar for each block."""
        for kind, blocks in rows(self._mix.blocks).items():
            bars = [
                _bar(place, share(block) or 0.0)
                for place, block in enumerate(blocks)
                if block in self._mix.blocks
            ]
            yield (
                f'<figure><figcaption>{_text(kind)}</figcaption><svg class="bars" role="img"'
                f' aria-label="{label}, {_text(kind)}" viewBox="0 0 {len(blocks)} {HIGH}"'
                f' preserveAspectRatio="none">{"".join(bars)}</svg></figure>'
            )

    # --- pairs ---------------------------------------------------------------------------

    def _pairs(self) -> Iterator[str]:
        if self._found.pairs:
            yield f'{self._heading("Overlap, block by block")}\n<p class="key">{KEY}</p>'
        for verdict in self._found.pairs:
            names = f"{self.names[verdict.first]} × {self.names[verdict.second]}"
            cosine = "" if verdict.cosine is None else f", cosine {decimals(verdict.cosine)}"
            yield self._heading(f"{names}{cosine}, {verdict.level}", 1)
            yield "" if self._found.tells(verdict) else f"<p>{escape(visible(verdict.words))}</p>"
            for kind, blocks in rows(self._mix.blocks).items():
                cells = "".join(self._cell(verdict, block) for block in blocks)
                yield (
                    f'<figure><figcaption>{_text(kind)}</figcaption><div class="strip" role="img"'
                    f' aria-label="{names}: cosine of each block, {_text(kind)}">{cells}</div>'
                    "</figure>"
                )
        if self._found.others:
            words = f"{self._found.others} not shown block by block: compose inspect --all"
            yield f'<p class="key">{words}</p>'

    def _cell(self, verdict: Verdict, block: str) -> str:
        mix, number = self._mix, _text(block.rpartition(" ")[2])
        there = block in mix.blocks
        cosine = mix.cosine(verdict.first, verdict.second, block) if there else None
        if cosine is None:
            return f"<div><b></b><i>{number}</i></div>"
        band = _band(cosine)
        shown = f"{int(cosine * 10)}" if band != "none" else "·"
        title = f"{_text(block)}: cosine {decimals(cosine)}"
        return f'<div title="{title}"><b class="{band}">{shown}</b><i>{number}</i></div>'

    # --- the same as tables --------------------------------------------------------------

    def _heads(self) -> list[str]:
        names = self.names
        return [
            *(f"{name}: norm" for name in names),
            *(f"{name}: share" for name in names if len(names) > 1),
            *(f"{names[v.first]} × {names[v.second]}: cosine" for v in self._found.pairs),
        ]

    def _numbers(self) -> Iterator[str]:
        """Every number of the drawings, for who can't see them."""
        heads = "".join(f'<th scope="col">{head}</th>' for head in ("Block", *self._heads()))
        yield "<details><summary>All numbers</summary>"
        yield from _scrolling(
            f"numbers-{self.columns}",
            "Block by block",
            f"<thead><tr>{heads}</tr></thead><tbody>",
            *map(self._row, (*self._mix.blocks, None)),
            "</tbody>",
        )
        yield "</details>"

    def _row(self, block: str | None) -> str:
        mix, count = self._mix, range(len(self.names))
        cells = [
            *(f"{mix.norm(n, block):.4g}" for n in count),
            *(_percent(mix.share(n, block)) for n in count if len(count) > 1),
            *(_cosine(mix.cosine(v.first, v.second, block)) for v in self._found.pairs),
        ]
        data = "".join(f"<td>{cell}</td>" for cell in cells)
        return f'<tr><th scope="row">{_text(block or "all together")}</th>{data}</tr>'


def _scrolling(kind: str, label: str, *content: str) -> Iterator[str]:
    """A table that scrolls sideways where it doesn't fit, and says so."""
    yield f'<div class="fits {kind}"><p class="cue">Scroll sideways to see all columns →</p>'
    yield f'<div class="scroll" role="group" tabindex="0" aria-label="{label}">'
    yield f"<table><caption>{label}</caption>"
    yield from content
    yield "</table></div></div>"


_LEGEND = (
    ("o4", "-0.7 or less"),
    ("o3", "-0.5"),
    ("o2", "-0.3: against each other"),
    ("o1", "-0.1"),
    ("none", "0: independent"),
    ("a1", "0.1"),
    ("a2", "0.3: overlap"),
    ("a3", "0.5"),
    ("a4", "0.7 or more"),
)


def _band(cosine: float) -> str:
    """The colour of a cosine, as a class."""
    band = sum(abs(cosine) >= limit for limit in BANDS)
    return f"{'a' if cosine > 0 else 'o'}{band}" if band else "none"


def _cosine_cell(cosine: float | None) -> str:
    if cosine is None:
        return "<td></td>"
    return f'<td class="{_band(cosine)}">{decimals(cosine)}</td>'


def _share_bar(words: str, share: float) -> str:
    return (
        f'<svg class="share" role="img" aria-label="{words}"><rect class="none" width="100%"'
        ' height="100%"/>'
        f'<rect class="bar" width="{share:.1%}" height="100%"/></svg>'
    )


def _bar(place: int, share: float) -> str:
    high = round(share * HIGH, 2)
    return (
        f'<rect class="none" x="{place}.05" width=".9" height="{HIGH}"/>'
        f'<rect class="bar" x="{place}.05" y="{HIGH - high:g}" width=".9" height="{high:g}"/>'
    )


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.0%}"


def _cosine(cosine: float | None) -> str:
    return "none" if cosine is None else decimals(cosine, 3)
