"""Tables as Markdown, which is what the docs show."""

from __future__ import annotations


def table(heads: list[str], rows: list[list[str]]) -> None:
    for row in (heads, ["---"] * len(heads), *rows):
        print(f"| {' | '.join(row)} |")


def limit(name: str, value: float, wanted: str, ok: bool) -> None:
    """A claim, and whether this run bears it out."""
    print(f"\n{'holds' if ok else 'FAILS'}: {name}: {value:.3g} (wanted: {wanted})")
