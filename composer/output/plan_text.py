"""Plans as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.output.plan_view import LOCK_ONLY, SIGNS, UNASKED, rows_of, summary
from composer.output.style import aligned, painted, weight
from composer.planner import Verb
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.output.plan_view import PlanView
    from composer.planner import Action

SHORT_DIGEST = 8
_MOST_NOTES = 10
COLOURS = {"+": "green", "~": "yellow", "-": "red", "!": "red", ">": "cyan", "=": "dim"}
_MADE = (Verb.CREATE, Verb.REPLACE, Verb.ADOPT, Verb.TRAIN)


def text(view: PlanView) -> str:
    """Each action with its reason; what apply would refuse; the counts; how to apply this plan.

    Recipes that nothing happens to are counted alone, unless the view lists all.
    """
    actions = [action for action in view.plan.actions if view.list_all or not _is_quiet(action)]
    actions = [] if view.counts_only else actions
    lines: list[str] = []
    for action, head in zip(actions, aligned([_head(one) for one in actions]), strict=True):
        lines.append(painted(head, COLOURS[SIGNS[action.shown]], color=view.color))
        lines += [f"             {line}" for line in _details(action, view)]
    lines += [""] if lines else []
    lines += [painted(line, "red", color=view.color) for line in _warnings(view)]
    lines += [f"note: {visible(note)}" for note in view.plan.notes]
    lines += _first_notes(view) if view.counts_only else []
    partial = visible(view.plan.left_out.words)
    lines += [painted(partial, "yellow", color=view.color)] if partial else []
    return "\n".join([*lines, summary(view.plan), *_footer(view)]) + "\n"


def _first_notes(view: PlanView) -> list[str]:
    """Notes on recipes that are not listed: the first of them, and how many more there are."""
    notes = [
        f"note: {visible(action.name)}: {visible(note)}"
        for action in view.plan.actions
        for note in action.explanation.notes
    ]
    more = len(notes) - _MOST_NOTES
    return [*notes[:_MOST_NOTES], *([f"note: {more:,} more notes on recipes"] if more > 0 else [])]


def _is_quiet(action: Action) -> bool:
    """Whether there is nothing to say of it but that it stays as it is."""
    return action.shown is Verb.KEEP and not action.notes and not action.explanation.drift


def _head(action: Action) -> tuple[str, ...]:
    path = visible(action.path)
    if action.moved_from:
        path = f"{visible(action.moved_from)} -> {path}"
    reason = action.explanation.reason
    if action.shown is Verb.MOVE and reason == "up to date":
        reason = ""
    return (f"{SIGNS[action.shown]} {action.shown}", visible(action.name), path, visible(reason))


def _details(action: Action, view: PlanView) -> Iterator[str]:
    """What it is made of (all concepts for a new one, before and after for a change), and notes."""
    if action.verb in _MADE and action.content:
        yield from _concepts(action)
    for id in action.transition.deletes:
        yield f"deletes {id}"
    if action.explanation.drift:
        yield f"drift: {visible(action.explanation.drift)}"
    for note in action.notes:
        yield f"note: {visible(note)}"
    if action.path in view.prices:
        yield f"price {view.prices[action.path]:g}"
    if advice := view.needed_advice(action):
        yield f"advice: {visible(advice)}"


def _concepts(action: Action) -> Iterator[str]:
    rows = []
    for row in rows_of(action, action.content):
        old, new = weight(row.before), weight(row.after)
        compared = action.explanation.before is not None and old != new
        rows.append((f"{old} -> {new}" if compared else new, visible(row.label)))
    yield from aligned(rows)


def _warnings(view: PlanView) -> Iterator[str]:
    for guard in view.refused:
        way = f"; allow it with {guard.flag}" if guard.flag else ""
        yield f"apply would refuse: {visible(guard.message)}{way}"
    for edit in view.plan.lock_edits:
        where = f"{visible(edit.name)} ({visible(edit.path)})"
        yield f"lock-only edit: {where}: {visible(edit.words)}; {LOCK_ONLY}"


def _footer(view: PlanView) -> Iterator[str]:
    digest = view.plan.digest[:SHORT_DIGEST]
    if not view.plan.asked:
        asking = (view.next_step or "compose plan").replace("compose apply", "compose plan")
        yield f"{UNASKED[0].upper()}{UNASKED[1:]}. To ask the target: {asking}"
    elif view.next_step and view.plan.changes and view.refused:
        yield f"Plan {digest}. compose apply would refuse it; see above."
    elif view.next_step and view.plan.changes:
        yield f"Plan {digest}. To apply exactly this plan: {view.next_step} --expect {digest}"
