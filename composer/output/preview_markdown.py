"""A preview as a document for a review comment: what changed, and the contact sheets.

Other people's text stands in code spans only. Images are named by files that compose wrote, never
by an address that a service gave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.output.markdown import Section, cell, code, fitted
from composer.output.preview_view import (
    PAGE,
    failure_words,
    greatest_difference,
    mix_lines,
    nothing_words,
    price_words,
)
from composer.text import counted, percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.output.preview_view import PreviewView
    from composer.previews.report import GridResult, PreviewReport

_TABLE = "| recipe | file | mix | differs by |\n|---|---|---|---:|"


def markdown(view: PreviewView) -> str:
    """The preview within the view's budget."""
    report = view.report
    sections = [
        Section("failures", 0, "### Failed\n", [f"- {code(w)}" for w in failure_words(report)]),
        Section("recipes", 1, _TABLE, [_row(result) for result in report.grids]),
        Section("contact sheets", 2, "### Contact sheets", list(_sheets(view)), gap="\n\n"),
        Section("notes", 3, "### Notes\n", [f"- {code(note)}" for note in report.notes]),
    ]
    return fitted(_head(view), sections, "", view.budget, whole=PAGE)


def _head(view: PreviewView) -> str:
    report = view.report
    title = nothing_words(report)
    if report.grids:
        kind = "preview" if all(one.grid.is_preview for one in report.grids) else "sweep"
        title = f"{counted(len(report.grids), 'recipe')}, {_images(report)}"
        return f"## compose {kind}: {title}\n\n{_outcome(view)}"
    return f"## compose preview: {title}\n\n{_outcome(view)}"


def _images(report: PreviewReport) -> str:
    return counted(report.price.cells + report.price.reused, "image")


def _outcome(view: PreviewView) -> str:
    """How many images were made now is left out: a comment stays as it is if nothing changed."""
    target = f"Target: {code(view.report.target)}\n"
    return f"{price_words(view.report.price)}. {target}" if view.dry_run else target


def _row(result: GridResult) -> str:
    grid, difference = result.grid, greatest_difference(result)
    mix = "<br>".join(f"{scales} {cell(label)}" for scales, label in mix_lines(grid))
    differs = "" if difference is None else percent(difference)
    return f"| {cell(grid.name)} | {cell(grid.path)} | {mix} | {differs} |"


def _sheets(view: PreviewView) -> Iterator[str]:
    """One for each recipe; the alternative text is made of letters that can't end it."""
    for result in view.report.grids:
        stem = view.sheets.get(result.grid.path)
        if stem:
            image = f"![{stem}]({view.image_url}{stem}.webp)"
            yield f"#### {code(result.grid.name)}\n\n{image}"
