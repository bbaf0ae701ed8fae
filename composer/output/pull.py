"""What `compose pull` wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.output.style import aligned, dumped, painted
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.files.delivery import Pulled

FORMAT_VERSION = 1
_COLOURS = {"pulled": "green", "not pulled": "red", "training": "yellow"}


def text(pulled: Sequence[Pulled], *, color: bool = False) -> str:
    """A line for each recipe."""
    lines = aligned([[one.state, visible(one.name), one.note] for one in pulled])
    shown = [
        painted(line, _COLOURS[one.state], color=color) if one.state in _COLOURS else line
        for one, line in zip(pulled, lines, strict=True)
    ]
    return "".join(f"{line}\n" for line in shown)


def as_json(pulled: Sequence[Pulled], *, dry_run: bool) -> str:
    """The same for programs."""
    rows = [
        {
            "name": one.name,
            "state": one.state,
            "note": one.note,
            **({"composition": one.id} if one.id else {}),
            **({"file": one.file} if one.file else {}),
        }
        for one in pulled
    ]
    return dumped({"formatVersion": FORMAT_VERSION, "dryRun": dry_run, "pulled": rows})
