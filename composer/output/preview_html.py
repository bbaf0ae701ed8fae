"""Previews and sweeps as one page, for a browser without a network: see `templates/preview.html`.

A preview's images are compared with a slider, side by side, or by where they differ. A place of a
sweep opens large, with the command that writes its scales into the recipe. Without JavaScript
everything is shown side by side. Needs the extra `preview`.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.output.pages import page
from composer.output.preview_view import failure_words, greatest_difference, nothing_words
from composer.previews.cells import Look
from composer.previews.grid import AFTER, BEFORE, NO_LORA, Heading, difference_key, place_name
from composer.previews.report import difference_words
from composer.previews.sweeping import axis_arguments
from composer.text import amount, counted, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from composer.previews.cells import Cell
    from composer.previews.grid import Grid
    from composer.previews.report import GridResult, PreviewReport

LONGEST = 2_000  # characters of other people's text
DIFFERENCE = "difference"
KINDS = {NO_LORA: "none", BEFORE: "before", AFTER: "after"}


@dataclass(frozen=True, slots=True)
class Shot:
    """One image, or the reason why there is none."""

    kind: str  # none, before, after or difference
    label: str
    uri: str = ""
    reason: str = ""
    place: str = ""  # in a sweep, as B3
    promote: str = ""  # the command for this place


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and seed of a preview, or one row of a sweep, with what it is a scale of."""

    title: str
    axis: str
    facts: Sequence[str]
    shots: Sequence[Shot]
    difference: str = ""

    @property
    def kinds(self) -> set[str]:
        """Which images there are."""
        return {shot.kind for shot in self.shots if shot.uri}


@dataclass(frozen=True, slots=True)
class Line:
    """A LoRA with its scale, and whether *before* has no such line."""

    text: str
    changed: bool


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading: a title and a mix; in a sweep its letter and what it is a scale of."""

    letter: str
    title: str
    axis: str
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True)
class Part:
    """One recipe."""

    anchor: str
    name: str
    path: str
    is_preview: bool
    columns: Sequence[Column]
    rows: Sequence[Row]
    width: int
    height: int
    difference: str
    command: str
    axes: tuple[str, str]  # of a sweep: what columns and rows are scales of


def preview_page(report: PreviewReport, images: Mapping[str, str]) -> str:
    """The page of a preview or a sweep, complete in itself.

    `images` are data URIs, or paths relative to the page, by the cells' digests; those of where
    two cells differ by `difference_key`. `images.embedding` makes them.
    """
    parts = [_part(number, one, images) for number, one in enumerate(report.grids, 1)]
    relative = any(not uri.startswith("data:") for uri in images.values())
    return page(
        "preview.html",
        title=_title(report),
        images="file: 'self'" if relative else "",
        target=_text(report.target),
        parts=parts,
        compares=any(one.grid.column(BEFORE) is not None for one in report.grids),
        notes=[_text(note) for note in report.notes],
        failures=[_text(words) for words in failure_words(report)],
        nothing=nothing_words(report).capitalize(),
        summary=_summary(report),
    )


def _text(text: str) -> str:
    """Other people's text: short enough, and nothing in it that can't be seen."""
    return shorten(visible(text), LONGEST)


def _title(report: PreviewReport) -> str:
    kind = "Preview" if all(one.grid.is_preview for one in report.grids) else "Sweep"
    names = [_text(one.grid.name) for one in report.grids]
    return (
        f"{kind}: {names[0]}" if len(names) == 1 else f"{kind} of {counted(len(names), 'recipe')}"
    )


def _summary(report: PreviewReport) -> str:
    cells = {digest for one in report.grids for digest in one.images}
    words = [counted(len(cells), "image"), f"{report.made:,} new"]
    words += [] if report.spent is None else [f"cost {amount(report.spent)}"]
    return ", ".join(words)


def _part(number: int, result: GridResult, images: Mapping[str, str]) -> Part:
    grid = result.grid
    look = next((cell.look for cell in grid), Look())
    return Part(
        anchor=f"recipe-{number}",
        name=_text(grid.name),
        path=_text(grid.path),
        is_preview=grid.is_preview,
        columns=[_column(grid, n, heading) for n, heading in enumerate(grid.columns)],
        rows=[_row(result, row, images) for row in range(len(grid.rows))],
        width=look.width,
        height=look.height,
        difference=difference_words(greatest_difference(result)),
        command=_promote(grid, "PLACE"),
        axes=(_text(grid.axes[0]), _text(grid.axes[1])),
    )


def _column(grid: Grid, number: int, heading: Heading) -> Column:
    before = grid.column(BEFORE)
    compares = before is not None and heading.title == AFTER
    known = set(grid.columns[before].lines) if compares and before is not None else {*heading.lines}
    return Column(
        letter=place_name(0, number)[0] if not grid.is_preview else "",
        title=_text(heading.short),
        axis=_text(heading.axis),
        lines=[Line(_text(line), line not in known) for line in heading.lines],
    )


def _row(result: GridResult, row: int, images: Mapping[str, str]) -> Row:
    grid, heading = result.grid, result.grid.rows[row]
    shots = [_shot(result, row, column, images) for column in range(len(grid.columns))]
    pair = grid.compared(row)
    if pair and (uri := images.get(difference_key(*pair))):
        shots.append(Shot(DIFFERENCE, DIFFERENCE, uri))
    share = result.differences[row] if row < len(result.differences) else None
    lines = [_text(line) for line in grid.row_lines(row)]
    return Row(_text(heading.short), _text(heading.axis), lines, shots, difference_words(share))


def _shot(result: GridResult, row: int, column: int, images: Mapping[str, str]) -> Shot:
    grid = result.grid
    cell, title = grid.cells[row][column], grid.columns[column].title
    kind, label = KINDS.get(title, "swept"), _text(title)
    uri = images.get(cell.digest, "") if cell else ""
    place = "" if grid.is_preview else place_name(row, column)
    promote = _promote(grid, place) if place and title != NO_LORA else ""
    return Shot(kind, label, uri, "" if uri else _reason(result, cell), place, promote)


def _reason(result: GridResult, cell: Cell | None) -> str:
    if cell is None:
        return "no image to make"
    image = result.images.get(cell.digest)
    return _text(image.error.message) if image and image.error else "not rendered"


def _promote(grid: Grid, place: str) -> str:
    """It names the axes: this sweep need not be the last one of the recipe."""
    axes = [word for text in axis_arguments(grid) for word in ("--axis", text)]
    return f"compose sweep {shlex.join(map(_text, [grid.path, *axes]))} --promote {place}"
