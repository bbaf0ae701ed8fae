"""Previews and sweeps as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.output.preview_view import (
    failure_words,
    greatest_difference,
    mix_lines,
    nothing_words,
    price_words,
    result_words,
)
from composer.output.style import aligned, painted
from composer.text import percent, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.output.preview_view import PreviewView
    from composer.previews.report import GridResult


def text(view: PreviewView) -> str:
    """Each recipe with its sheet and how much it differs, its LoRAs, then what came of it.

    Of an interrupted run only what came of it.
    """
    report = view.report
    grids = () if report.interrupted else report.grids
    heads = aligned([_head(result, view) for result in grids])
    lines: list[str] = []
    for result, head in zip(grids, heads, strict=True):
        lines.append(painted(head, "bold", color=view.color))
        lines += [f"    {line}" for line in _mix(result)]
    lines += [""] if lines else []
    failed = [visible(words) for words in failure_words(report)]
    lines += [painted(line, "red", color=view.color) for line in failed]
    lines += [f"note: {visible(note)}" for note in report.notes]
    return "\n".join([*lines, *_summary(view)]) + "\n"


def _head(result: GridResult, view: PreviewView) -> tuple[str, ...]:
    grid, difference = result.grid, greatest_difference(result)
    stem = view.sheets.get(grid.path)
    sheet = visible(f"{view.folder}{stem}.png") if stem else ""
    differs = "" if difference is None else f"differs by {percent(difference)}"
    return (visible(grid.name), visible(grid.path), sheet, differs)


def _mix(result: GridResult) -> list[str]:
    return aligned([(scales, visible(label)) for scales, label in mix_lines(result.grid)])


def _summary(view: PreviewView) -> Iterator[str]:
    report = view.report
    if not report.grids:
        yield f"{nothing_words(report).capitalize()}."
    elif view.dry_run:
        yield f"{price_words(report.price)}."
    else:
        yield f"{result_words(report)}."
    if report.interrupted:
        yield "Interrupted. The images that were made are kept: run it again for the others."
