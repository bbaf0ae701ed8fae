"""Inspections as one page: heat map, shares and notes, for a browser without a network.

Nothing in it is loaded or run: no script, no font, no image, and a policy (CSP) that would stop
them. Drawings are SVG with a table of the same numbers below; every text is escaped.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import TYPE_CHECKING

from composer.lora.inspection import Level
from composer.output.inspect import decimals, facts, rows
from composer.output.plan_text import weight
from composer.text import shorten, visible
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from composer.lora.inspection import Inspection, LoraInfo, Mix, Verdict

LONGEST = 400  # characters of other people's text
CELL, HIGH = 14, 20  # pixels of a block in a drawing
BANDS = (0.7, 0.5, 0.3, 0.1)  # of the cosine's size, as colours
BAD = (Level.STRONG, Level.OPPOSED)

STYLE = """
:root { color-scheme: light dark; --ink: #1d2433; --dim: #5b6474; --paper: #fff; --line: #d5dae3;
  --bar: #3b6fb6; --a4: #a50f15; --a3: #de2d26; --a2: #fb8a5f; --a1: #fdd0bb;
  --o4: #08519c; --o3: #3182bd; --o2: #7fb8dd; --o1: #cfe3f3; --none: #eef0f4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --dim: #9aa4b5; --paper: #14171d;
  --line: #343b48; --bar: #7aa7e6; --a4: #ff7a6b; --a3: #d9483b; --a2: #9c3b2e; --a1: #5a2d26;
  --o4: #7cc0f5; --o3: #3f8fcb; --o2: #2a618c; --o1: #23415a; --none: #232833; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 2rem auto; max-width: 62rem; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.25; } h2 { border-top: 1px solid var(--line); padding-top: 1rem; }
.verdict { border-left: 4px solid var(--dim); padding: .25rem .75rem; margin: .5rem 0; }
.bad { border-color: var(--a3); font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .5rem 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } svg { display: block; margin: .25rem 0; }
text { font: 9px system-ui, sans-serif; fill: var(--ink); text-anchor: middle; }
text.end { text-anchor: start; font-size: 11px; fill: var(--dim); }
rect { stroke: var(--paper); stroke-width: 1; } .bar { fill: var(--bar); }
.none { fill: var(--none); } .a1 { fill: var(--a1); } .a2 { fill: var(--a2); }
.a3 { fill: var(--a3); } .a4 { fill: var(--a4); } .o1 { fill: var(--o1); } .o2 { fill: var(--o2); }
.o3 { fill: var(--o3); } .o4 { fill: var(--o4); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid var(--line); padding: .1rem .5rem; text-align: right; }
th[scope=row], caption { text-align: left; } footer, .key { color: var(--dim); }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
KEY = (
    "A number is ten times the cosine, a dot is below 0.1, and a minus means against each other."
    " An empty place is a block that one of the two leaves alone."
)


def page(inspections: Sequence[Inspection]) -> str:
    """The whole page, complete in itself."""
    title = ", ".join(_text(one.title or "LoRA files") for one in inspections)
    body = "\n".join("\n".join(_section(one)) for one in inspections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}: what is in the mix</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{title}: what is in the mix</h1>
{body}
<footer><p>compose {_text(__version__)}</p></footer>
</body>
</html>
"""


def _text(text: str) -> str:
    """Other people's text, inert in an element and in an attribute."""
    return escape(shorten(visible(text), LONGEST), quote=True)


def _section(one: Inspection) -> Iterator[str]:
    yield "<section>"
    source = f" <small>{_text(one.source)}</small>" if one.source else ""
    yield f"<h2>{_text(one.title or 'LoRA files')}{source}</h2>"
    for number, info in enumerate(one.loras):
        yield from _concept(one.mix, number, info)
    if one.verdicts:
        yield f'<h3>Overlap, block by block</h3>\n<p class="key">{KEY}</p>'
        for verdict in one.verdicts:
            yield from _pair(one.mix, verdict)
    yield from _numbers(one)
    yield "</section>"


def _concept(mix: Mix, number: int, info: LoraInfo) -> Iterator[str]:
    name, share = _text(mix.names[number]), mix.share(number)
    share_words = "changes nothing" if share is None else f"{share:.0%} of the total weight change"
    yield f"<h3>{weight(mix.scales[number])} {name}</h3>\n<p>{share_words}</p>\n<dl>"
    yield from (f"<dt>{_text(a)}</dt><dd>{_text(b)}</dd>" for a, b in facts(info))
    yield "</dl>"
    if len(mix.names) > 1:
        yield _drawing(mix, f"{name}: share of each block", lambda block: _bar(mix, number, block))


def _pair(mix: Mix, verdict: Verdict) -> Iterator[str]:
    first, second = verdict.first, verdict.second
    names = f"{_text(mix.names[first])} × {_text(mix.names[second])}"
    cosine = "" if verdict.cosine is None else f", cosine {decimals(verdict.cosine)}"
    yield f"<h4>{names}{cosine}</h4>"
    yield _drawing(
        mix, f"{names}: cosine of each block", lambda block: _heat(mix, first, second, block)
    )
    bad = " bad" if verdict.level in BAD else ""
    yield f'<p class="verdict{bad}">{_text(verdict.words)}</p>'


# --- drawings ----------------------------------------------------------------------------


def _drawing(mix: Mix, label: str, cell: Callable[[str], str]) -> str:
    """A line of cells for each kind of block; `label` is escaped already, as are the cells."""
    lines = list(rows(mix.blocks).items())
    widest = max((len(blocks) for _, blocks in lines), default=0)
    wide, high = widest * CELL + 110, len(lines) * (HIGH + 4)
    parts = [
        f'<div class="wide"><svg role="img" aria-label="{label}; the numbers are in the table'
        f' below" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}">'
    ]
    for line, (name, blocks) in enumerate(lines):
        y = line * (HIGH + 4)
        parts.append(f'<text class="end" x="0" y="{y + 14}">{_text(name)}</text>')
        for place, block in enumerate(blocks):
            drawn = cell(block) if block in mix.blocks else ""
            if drawn:
                parts.append(f'<g transform="translate({90 + place * CELL} {y})">{drawn}</g>')
    return "".join(parts) + "</svg></div>"


def _bar(mix: Mix, number: int, block: str) -> str:
    share = mix.share(number, block)
    if share is None:
        return ""
    high = round(share * HIGH, 1)
    return (
        f"<title>{_text(block)}: {share:.0%}</title>"
        f'<rect class="none" width="{CELL}" height="{HIGH}"/>'
        f'<rect class="bar" y="{HIGH - high:g}" width="{CELL}" height="{high:g}"/>'
    )


def _heat(mix: Mix, first: int, second: int, block: str) -> str:
    cosine = mix.cosine(first, second, block)
    if cosine is None:
        return ""
    band = sum(abs(cosine) >= limit for limit in BANDS)
    colour = f"{'a' if cosine > 0 else 'o'}{band}" if band else "none"
    shown = f"{int(cosine * 10)}" if band else "·"
    return (
        f"<title>{_text(block)}: cosine {decimals(cosine)}</title>"
        f'<rect class="{colour}" width="{CELL}" height="{HIGH}"/>'
        f'<text x="{CELL / 2:g}" y="14">{shown}</text>'
    )


# --- the same as a table -----------------------------------------------------------------


def _numbers(one: Inspection) -> Iterator[str]:
    """Every number of the drawings, for who can't see them."""
    mix = one.mix
    shares = [f"{_text(name)}: share" for name in mix.names] if len(mix.names) > 1 else []
    norms = [f"{_text(name)}: norm" for name in mix.names]
    pairs = [f"{_text(mix.names[i])} × {_text(mix.names[j])}: cosine" for i, j in mix.pairs]
    yield "<details><summary>All numbers</summary>"
    yield '<div class="wide"><table><caption>Block by block</caption>'
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("Block", *norms, *shares, *pairs))
    yield f"<thead><tr>{heads}</tr></thead><tbody>"
    for block in (*mix.blocks, None):
        cells = [f"{mix.norm(n, block):.4g}" for n in range(len(norms))]
        cells += [_percent(mix.share(n, block)) for n in range(len(shares))]
        cells += [_cosine(mix.cosine(i, j, block)) for i, j in mix.pairs]
        data = "".join(f"<td>{cell}</td>" for cell in cells)
        yield f'<tr><th scope="row">{_text(block or "all together")}</th>{data}</tr>'
    yield "</tbody></table></div></details>"


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{share:.0%}"


def _cosine(cosine: float | None) -> str:
    return "none" if cosine is None else decimals(cosine, 3)
