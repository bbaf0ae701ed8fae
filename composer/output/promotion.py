"""The scales that `compose sweep --promote` wrote into a recipe, or would write."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.output.markdown import cell, code
from composer.output.style import aligned, dumped, painted, weight
from composer.text import visible

if TYPE_CHECKING:
    from composer.previews.sweeping import Promoted

FORMAT_VERSION = 1


def text(promoted: Promoted, *, color: bool = False) -> str:
    """A line on the recipe, and one for each scale that changes."""
    path, place = visible(promoted.path), promoted.place
    if not promoted.changes:
        return f"= {path} has the scales of {place} already\n"
    rows = [
        [f"    {weight(one.before)} -> {weight(one.after)}", visible(one.label)]
        for one in promoted.changes
    ]
    head = painted(f"~ {path} gets the scales of {place}", "yellow", color=color)
    return "".join(f"{line}\n" for line in [head, *aligned(rows)])


def as_markdown(promoted: Promoted) -> str:
    """The same as a heading and a table."""
    path, place = code(promoted.path), promoted.place
    if not promoted.changes:
        return f"{path} has the scales of {place} already.\n"
    rows = [
        f"| {cell(one.label)} | {weight(one.before)} | {weight(one.after)} |"
        for one in promoted.changes
    ]
    head = f"{path} gets the scales of {place}:"
    table = ["| LoRA | before | after |", "|---|---|---|", *rows]
    return "\n".join([head, "", *table]) + "\n"


def as_json(promoted: Promoted, *, dry_run: bool) -> str:
    """The same for programs, by the published schema `promotion`."""
    changes = [
        {"concept": one.label, "before": one.before, "after": one.after} for one in promoted.changes
    ]
    return dumped(
        {
            "formatVersion": FORMAT_VERSION,
            "dryRun": dry_run,
            "recipe": promoted.path,
            "name": promoted.name,
            "place": promoted.place,
            "changes": changes,
        }
    )
