"""What is shown of a preview or a sweep, as one value, and the words that every format shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from composer.output.markdown import COMMENT, Budget
from composer.previews.grid import AFTER, BEFORE, place_name
from composer.text import amount, counted, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from composer.previews.grid import Grid
    from composer.previews.report import GridResult, PreviewReport, Price

_LONGEST = 60  # characters of a prompt
PAGE, DATA, COMMENT_FILE = "index.html", "previews.json", "preview.md"


@dataclass(frozen=True, slots=True)
class PreviewView:
    """A report with all that a format may show beside it; each takes what it has a place for.

    `sheets` are the contact sheets by the recipes' paths: their file names without an ending.
    `folder` is where they are, as the user wrote it, or empty; `image_url` what stands before
    their names in Markdown, or empty where they lie beside it.
    """

    report: PreviewReport
    sheets: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    image_url: str = ""
    dry_run: bool = False
    budget: Budget = COMMENT
    color: bool = False


def price_words(price: Price) -> str:
    """`12 images: 8 to make, 4 already there; price 72`."""
    total = counted(price.cells + price.reused, "image")
    parts = [f"{price.cells:,} to make"] if price.cells else []
    parts += [f"{price.reused:,} already there"] if price.reused else []
    cost = "" if price.total is None else f"; price {amount(price.total)}"
    return f"{total}: {', '.join(parts)}{cost}" if parts else total


def result_words(report: PreviewReport) -> str:
    """`12 images: 7 made, 4 already there, 1 failed; cost 63`."""
    price, failed = report.price, len(report.failures)
    left = price.cells - report.made - failed
    parts = [f"{report.made:,} made"] if report.made else []
    parts += [f"{price.reused:,} already there"] if price.reused else []
    parts += [f"{failed:,} failed"] if failed else []
    parts += [f"{left:,} not made"] if left > 0 else []
    cost = "" if report.spent is None else f"; cost {amount(report.spent)}"
    total = counted(price.cells + price.reused, "image")
    return f"{total}: {', '.join(parts)}{cost}" if parts else f"{total}{cost}"


def nothing_words(report: PreviewReport) -> str:
    """Why there is no recipe to show; where notes say why, that is not repeated."""
    return "nothing to show" if report.notes else "no recipe changed its mix"


def failure_words(report: PreviewReport) -> list[str]:
    """`2 images failed: REASON`, once for each reason, as it came."""
    counts: dict[str, int] = {}
    for error in report.failures.values():
        counts[str(error)] = counts.get(str(error), 0) + 1
    return [f"{counted(n, 'image')} failed: {reason}" for reason, n in counts.items()]


def greatest_difference(result: GridResult) -> float | None:
    """How much *before* and *after* differ in the row where they do most."""
    known = [one for one in result.differences if one is not None]
    return max(known, default=None)


def mix_lines(grid: Grid) -> Iterator[tuple[str, str]]:
    """Each LoRA of a preview with its scale before and after: `0.60 -> 0.70` and `Pixel Dust`.

    Of a sweep, what stands in each column and row: `B` and `Pixel Dust 0.6`, `2` and a prompt.
    """
    if not grid.is_preview:
        yield from _places(grid)
        return
    column = grid.column(BEFORE)
    before = _scales(grid, column)
    after = _scales(grid, grid.column(AFTER))
    for label in sorted({*before, *after}):
        old, new = before.get(label, "none"), after.get(label, "none")
        yield (new if column is None or old == new else f"{old} -> {new}"), label


def _places(grid: Grid) -> Iterator[tuple[str, str]]:
    for column, heading in enumerate(grid.columns):
        yield place_name(0, column)[0], heading.title
    for row, heading in enumerate(grid.rows, start=1):
        texts = (heading.title, *grid.row_lines(row - 1))
        yield str(row), ", ".join(shorten(text, _LONGEST) for text in texts)


def _scales(grid: Grid, column: int | None) -> dict[str, str]:
    """The scales of a column's mix, by LoRA."""
    lines = () if column is None else grid.columns[column].lines
    pairs = (line.partition("  ") for line in lines)
    return {label: scale for scale, _, label in pairs}
