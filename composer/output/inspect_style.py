"""The style of the page of inspections: light and dark, from 400 pixels on, and for paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BANDS = (0.7, 0.5, 0.3, 0.1)  # of the cosine's size, as colours
NAME, CELL, NUMBER = 8, 3.6, 7  # rem: a name in a table, a cosine, and a cell of other numbers

# Each band with the colour of its digits: the contrast is 4.5 at least, in light and in dark.
LIGHT = {
    "none": ("#eef0f4", "#1d2433"),
    "a1": ("#fdd0bb", "#1d2433"),
    "a2": ("#fb8a5f", "#1d2433"),
    "a3": ("#c9211e", "#ffffff"),
    "a4": ("#8f0d14", "#ffffff"),
    "o1": ("#cfe3f3", "#1d2433"),
    "o2": ("#7fb8dd", "#1d2433"),
    "o3": ("#2171b5", "#ffffff"),
    "o4": ("#08427f", "#ffffff"),
}
DARK = {
    "none": ("#232833", "#e6e9ef"),
    "a1": ("#4a2620", "#ffffff"),
    "a2": ("#8c3226", "#ffffff"),
    "a3": ("#ec6a55", "#14171d"),
    "a4": ("#ffb8a8", "#14171d"),
    "o1": ("#1f3a52", "#ffffff"),
    "o2": ("#275d88", "#ffffff"),
    "o3": ("#4f9fd8", "#14171d"),
    "o4": ("#aadaff", "#14171d"),
}

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 2rem auto; max-width: 110rem; padding: 0 1rem; }
h1, h2, h3, h4 { line-height: 1.25; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.35rem; } h3 { font-size: 1.1rem; }
h2 { border-top: 1px solid var(--line); padding-top: 1rem; margin-top: 2rem; }
h3, h4 { margin: 1.25rem 0 .25rem; } p, li { max-width: 80ch; overflow-wrap: anywhere; }
.verdicts, .legend, .loras { list-style: none; padding: 0; }
.verdicts li { border-left: 4px solid var(--dim); padding: .25rem .75rem; margin: .5rem 0;
  max-width: 110ch; }
.verdicts .bad { border-color: var(--bad); font-weight: 600; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem; } .legend li { padding: .1rem .5rem; }
.loras { counter-reset: lora; } .loras > li { max-width: none; margin: .75rem 0; }
.lora { display: flex; flex-wrap: wrap; gap: 0 1.25rem; max-width: none; margin: 0; }
.lora b { flex: 1 1 14rem; } .lora span { font-variant-numeric: tabular-nums; }
.loras:not(:has(> li:only-child)) .lora b::before {
  counter-increment: lora; content: counter(lora) "\\2002"; color: var(--dim); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .5rem 0; }
dt, caption, figcaption, footer, .key, .strip i, .cue, .scroll span { color: var(--dim); }
dd { margin: 0; overflow-wrap: anywhere; }
svg { display: block; width: 100%; } .share { height: .8rem; } .bars { height: 3rem; }
.bar { fill: var(--bar); } rect.none { fill: var(--none); }
figure { margin: .5rem 0; } figcaption { font-size: .85rem; }
.strip { display: grid; grid-template-columns: repeat(auto-fit, minmax(1.7rem, 1fr)); gap: 1px;
  text-align: center; font-variant-numeric: tabular-nums; }
.strip b, .strip i { display: block; font-style: normal; font-weight: 400; }
.strip b { height: 1.5rem; } .strip i { font-size: .75rem; }
.strip > :only-child { max-width: 6rem; }
.fits { container-type: inline-size; } .cue { display: none; margin: .25rem 0; }
.scroll { overflow-x: auto; padding-bottom: .25rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid var(--line); padding: .1rem .5rem; text-align: right; }
th[scope=row] { position: sticky; left: 0; background: var(--paper); overflow-wrap: anywhere; }
th[scope=row], caption { text-align: left; } tbody th { font-weight: 400; }
.self { color: var(--dim); }
summary { cursor: pointer; } :focus-visible { outline: 2px solid var(--bar); }
@media print { .scroll { overflow: visible; } .cue { display: none; } }
"""


def style(matrices: Iterable[int], tables: Iterable[int]) -> str:
    """The style sheet of a page with matrices and other tables of so many columns."""
    return "\n".join(
        (
            ":root { color-scheme: light dark; --ink: #1d2433; --dim: #566072; --paper: #fff;"
            " --line: #d5dae3; --bar: #3b6fb6; --bad: #c9211e; --none: #e3e7ee; }",
            *_bands(LIGHT),
            "@media (prefers-color-scheme: dark) {",
            ":root { --ink: #e6e9ef; --dim: #a3adbd; --paper: #14171d;"
            " --line: #343b48; --bar: #7aa7e6; --bad: #ec6a55; --none: #2a303c; }",
            *_bands(DARK),
            "}",
            _STYLE,
            *(_table("matrix", columns, CELL) for columns in sorted({*matrices})),
            *(_table("numbers", columns, NUMBER) for columns in sorted({*tables})),
        )
    )


def _bands(colours: dict[str, tuple[str, str]]) -> list[str]:
    return [
        f".{band} {{ background: {back}; color: {ink}; }}" for band, (back, ink) in colours.items()
    ]


def _table(kind: str, columns: int, cell: float) -> str:
    """How wide a table is: equal columns beside the names, and a cue where it doesn't fit."""
    name, least = f".{kind}-{columns}", NAME + cell * columns
    return (
        f"{name} table {{ table-layout: fixed; width: 100%; min-width: {least:g}rem;"
        f" max-width: {2 * least:g}rem; }} {name} :is(td, th):first-child {{ width: {NAME}rem; }}\n"
        f"@container (max-width: {least:g}rem) {{ {name} > .cue {{ display: block; }} }}\n"
        f"@container (min-width: {least + NAME:g}rem) {{"
        f" {name} :is(td, th):first-child {{ width: {2 * NAME}rem; }} }}"
    )
