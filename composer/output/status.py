"""`compose status` with what changed on the target behind the lock's back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.output.escape import dumped
from composer.output.results import status_rows
from composer.text import counted, visible

if TYPE_CHECKING:
    from composer.planner import Plan

FORMAT_VERSION = 1


def drift(plan: Plan) -> list[str]:
    """A line for each composition that drifted, and their count; none without drift."""
    drifted = [action for action in plan.actions if action.explanation.drift]
    lines = [
        f"drift: {visible(a.name)} ({visible(a.path)}): {visible(a.explanation.drift)}"
        for a in drifted
    ]
    count = f"{counted(len(drifted), 'composition')} drifted. next: compose plan"
    return [*lines, count] if lines else []


def as_json(plan: Plan) -> str:
    """The same for programs; `drift` stands only where there is some."""
    said = {
        action.path: action.explanation.drift for action in plan.actions if action.explanation.drift
    }
    rows = [
        {**row, **({"drift": said[row["recipe"]]} if row["recipe"] in said else {})}
        for row in status_rows(plan)
    ]
    plain = {"formatVersion": FORMAT_VERSION, "target": plan.target, "hasDrift": bool(said)}
    return dumped({**plain, "recipes": rows})
