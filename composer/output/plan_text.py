"""Plans as text for a terminal; and the signs and counts that every form of a plan shares."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from composer.output.concepts import rows_of
from composer.output.style import aligned, painted
from composer.planner import Verb
from composer.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from composer.planner import Action, Plan

SHORT_DIGEST = 8
NO_PRICES: Mapping[str, float] = MappingProxyType({})
NO_ADVICE: Mapping[str, str] = MappingProxyType({})
LOCK_ONLY = "the lock was changed, and no recipe asks for it"
UNASKED = "the target was not asked: this is the recipes against the lock alone, nothing to approve"

SIGNS = {
    Verb.CREATE: "+",
    Verb.ADOPT: "+",
    Verb.TRAIN: "+",
    Verb.REPLACE: "~",
    Verb.UPDATE: "~",
    Verb.DELETE: "-",
    Verb.MOVE: ">",
    Verb.KEEP: "=",
    Verb.WAIT: "=",
    Verb.LEAVE: "=",
    Verb.FORGET: "-",
    Verb.BLOCKED: "!",
}
COLOURS = {"+": "green", "~": "yellow", "-": "red", "!": "red", ">": "cyan", "=": "dim"}
_COUNTED = {
    Verb.CREATE: "to create",
    Verb.ADOPT: "to adopt",
    Verb.TRAIN: "to train",
    Verb.REPLACE: "to replace",
    Verb.UPDATE: "to update",
    Verb.DELETE: "to delete",
    Verb.WAIT: "still training",
    Verb.BLOCKED: "blocked",
    Verb.LEAVE: "left alone",
    Verb.FORGET: "to forget",
}
_MADE = (Verb.CREATE, Verb.REPLACE, Verb.ADOPT, Verb.TRAIN)


def text(
    plan: Plan,
    *,
    allowed: Collection[str] = (),
    color: bool = False,
    next_step: str = "compose apply",
    prices: Mapping[str, float] = NO_PRICES,
    advice: Mapping[str, str] = NO_ADVICE,
) -> str:
    """Every recipe with its answer and reason; what apply would refuse; the counts; the digest.

    `prices`, by recipe path, are what trainings would cost where the target says so; `advice`,
    likewise, is what it says of the mix.
    """
    heads = aligned([_head(action) for action in plan.actions])
    lines: list[str] = []
    for action, head in zip(plan.actions, heads, strict=True):
        lines.append(painted(head, COLOURS[SIGNS[action.shown]], color=color))
        lines += [f"             {line}" for line in _details(action, prices)]
        if action.path in advice and action.recipe is not None:
            lines.append(f"             advice: {visible(advice[action.path])}")
    lines += [""] if lines else []
    lines += [painted(line, "red", color=color) for line in _warnings(plan, allowed)]
    lines += [f"note: {visible(note)}" for note in plan.notes]
    lines.append(summary(plan))
    if not plan.asked:
        lines.append(f"{UNASKED}; next: compose plan")
    elif next_step and plan.changes:
        lines.append(_next_step(plan, allowed, next_step))
    return "\n".join(lines) + "\n"


def _head(action: Action) -> tuple[str, ...]:
    path = visible(action.path)
    if action.moved_from:
        path = f"{visible(action.moved_from)} -> {path}"
    said = "" if action.shown is Verb.MOVE and action.reason == "up to date" else action.reason
    return (f"{SIGNS[action.shown]} {action.shown}", visible(action.name), path, visible(said))


def _details(action: Action, prices: Mapping[str, float]) -> Iterator[str]:
    """What it is made of: all concepts for a new one, before and after for a change."""
    if action.verb in _MADE and action.content:
        yield from _concepts(action)
    for id in action.deletes:
        yield f"deletes {id}"
    if action.drift:
        yield f"drift: {visible(action.drift)}"
    for note in action.notes:
        yield f"note: {visible(note)}"
    if action.path in prices:
        yield f"price {prices[action.path]:g}"


def _concepts(action: Action) -> Iterator[str]:
    rows = []
    for row in rows_of(action, action.content):
        old, new = weight(row.before), weight(row.after)
        compared = action.before is not None and old != new
        rows.append((f"{old} -> {new}" if compared else new, visible(row.label)))
    yield from aligned(rows)


def weight(scale: float | None) -> str:
    """A scale with two decimals, or with as many as it needs; `none` where there is no concept."""
    if scale is None:
        return "none"
    return f"{scale:.2f}" if round(scale, 2) == scale else f"{scale:g}"


def _warnings(plan: Plan, allowed: Collection[str]) -> Iterator[str]:
    for guard in plan.refused(allowed):
        way = f"; allow it with {guard.flag}" if guard.flag else ""
        yield f"apply would refuse: {visible(guard.message)}{way}"
    for edit in plan.lock_edits:
        where = f"{visible(edit.name)} ({visible(edit.path)})"
        yield f"lock-only edit: {where}: {visible(edit.words)}; {LOCK_ONLY}"


def summary(plan: Plan) -> str:
    """`4 recipes: 1 to create, 1 to replace, 2 up to date.`"""
    recipes = sum(action.recipe is not None for action in plan.actions)
    counts = {
        words: sum(action.shown is verb for action in plan.actions)
        for verb, words in _COUNTED.items()
    }
    kept = "up to date" if plan.asked else "as the lock says"
    counts[kept] = sum(action.shown in (Verb.KEEP, Verb.MOVE) for action in plan.actions)
    said = ", ".join(f"{n} {words}" for words, n in counts.items() if n)
    if not said:
        return "Nothing to do: no recipe."
    return f"{counted(recipes, 'recipe')}: {said}." if recipes else f"{said.capitalize()}."


def _next_step(plan: Plan, allowed: Collection[str], command: str) -> str:
    refused = "" if not plan.refused(allowed) else "   (refused as it stands)"
    short = plan.digest[:SHORT_DIGEST]
    return f"plan sha256:{short}…   next: {command} --expect {short}{refused}"
