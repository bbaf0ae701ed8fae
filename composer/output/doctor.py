"""What `compose doctor` found, section by section, for people and for programs."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from composer.errors import NOTE, OK, SKIPPED, WRONG
from composer.output.style import dumped, painted
from composer.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.errors import Check

FORMAT_VERSION = 1
_SIGNS = {OK: "=", NOTE: "~", WRONG: "!", SKIPPED: " "}
_COLOURS = {OK: "green", NOTE: "yellow", WRONG: "red", SKIPPED: "dim"}


def text(checks: Sequence[Check], *, color: bool = False) -> str:
    """Each section with its checks; the last line counts what is wrong."""
    lines: list[str] = []
    for section, group in groupby(checks, key=lambda check: check.section):
        lines += [painted(section, "bold", color=color), *_lines([*group], color=color), ""]
    return "\n".join([*lines, _count(checks)]) + "\n"


def _lines(checks: Sequence[Check], *, color: bool) -> list[str]:
    lines = []
    for check in checks:
        line = f"  {_SIGNS[check.state]} {visible(check.words)}"
        lines.append(painted(line, _COLOURS[check.state], color=color))
        lines += [f"      {visible(check.hint)}"] if check.hint else []
    return lines


def _count(checks: Sequence[Check]) -> str:
    wrong, notes = (sum(c.state == state for c in checks) for state in (WRONG, NOTE))
    and_notes = f", {counted(notes, 'note')}" if notes else ""
    return f"{counted(wrong, 'problem')}{and_notes}." if wrong else f"Nothing is wrong{and_notes}."


def as_json(checks: Sequence[Check]) -> str:
    plain = [
        {
            "section": check.section,
            "state": check.state,
            "message": check.words,
            **({"hint": check.hint} if check.hint else {}),
        }
        for check in checks
    ]
    wrong = sum(check.state == WRONG for check in checks)
    return dumped({"formatVersion": FORMAT_VERSION, "problems": wrong, "checks": plain})
