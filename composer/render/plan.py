"""Plans as text and as JSON: pure strings, which `cli` prints."""

from __future__ import annotations

import json
from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from composer.lockfile import Plain, plain_content
from composer.plan import Action, Plan, Verb
from composer.render.style import aligned, painted
from composer.words import counted, visible

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from composer.entities import Concept

FORMAT_VERSION = 1
SHORT_DIGEST = 8
NO_PRICES: Mapping[str, float] = MappingProxyType({})

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


# --- text --------------------------------------------------------------------------------


def text(
    plan: Plan,
    *,
    allowed: Collection[str] = (),
    color: bool = False,
    next_step: str = "compose apply",
    prices: Mapping[str, float] = NO_PRICES,
) -> str:
    """Every recipe with its answer and reason; what apply would refuse; the counts; the digest.

    `prices`, by recipe path, are what trainings would cost where the target says so.
    """
    heads = aligned([_head(action) for action in plan.actions])
    lines: list[str] = []
    for action, head in zip(plan.actions, heads, strict=True):
        lines.append(painted(head, COLOURS[SIGNS[action.shown]], color=color))
        lines += [f"             {line}" for line in _details(action)]
        if action.path in prices:
            lines.append(f"             price {prices[action.path]:g}")
    lines += [""] if lines else []
    for guard in plan.refused(allowed):
        way = f"; allow it with {guard.flag}" if guard.flag else ""
        lines.append(painted(f"apply would refuse: {guard.message}{way}", "red", color=color))
    lines += [f"note: {note}" for note in plan.notes]
    lines.append(summary(plan))
    if next_step and plan.changes:
        lines.append(_next_step(plan, allowed, next_step))
    return "\n".join(lines) + "\n"


def _head(action: Action) -> tuple[str, ...]:
    path = visible(action.path)
    if action.moved_from:
        path = f"{visible(action.moved_from)} -> {path}"
    reason = "" if action.shown is Verb.MOVE else visible(action.reason)
    return (f"{SIGNS[action.shown]} {action.shown}", visible(action.name), path, reason)


def _details(action: Action) -> Iterator[str]:
    """What it is made of: all concepts for a new one, before and after for a change."""
    if action.verb in (Verb.CREATE, Verb.REPLACE, Verb.ADOPT, Verb.TRAIN) and action.content:
        yield from _concepts(action)
    for id in action.deletes:
        yield f"deletes {id}"
    for note in action.notes:
        yield f"note: {visible(note)}"


def _concepts(action: Action) -> Iterator[str]:
    before = {} if action.before is None else {c.model_id: c for c in action.before.concepts}
    after = {} if action.content is None else {c.model_id: c for c in action.content.concepts}
    names = Counter(_label(action, id) for id in {*before, *after})
    rows = []
    for id in sorted({*before, *after}, key=lambda id: (_label(action, id), id)):
        label = _label(action, id)
        shown = label if names[label] == 1 else f"{label} ({id})"
        rows.append((_weights(before.get(id), after.get(id), compare=bool(before)), shown))
    yield from aligned(rows)


def _weights(before: Concept | None, after: Concept | None, *, compare: bool) -> str:
    old, new = _weight(before), _weight(after)
    return new if not compare or old == new else f"{old} -> {new}"


def _weight(concept: Concept | None) -> str:
    return (
        f"{concept.scale:.2f}"
        if concept and round(concept.scale, 2) == concept.scale
        else (f"{concept.scale:g}" if concept else "none")
    )


def _label(action: Action, id: str) -> str:
    return visible(action.labels.get(id, id))


def summary(plan: Plan) -> str:
    """`4 recipes: 1 to create, 1 to replace, 2 up to date.`"""
    recipes = sum(action.recipe is not None for action in plan.actions)
    counts = {
        words: sum(action.shown is verb for action in plan.actions)
        for verb, words in _COUNTED.items()
    }
    counts["up to date"] = sum(action.shown in (Verb.KEEP, Verb.MOVE) for action in plan.actions)
    said = ", ".join(f"{n} {words}" for words, n in counts.items() if n)
    if not said:
        return "Nothing to do: no recipe."
    return f"{counted(recipes, 'recipe')}: {said}." if recipes else f"{said.capitalize()}."


def _next_step(plan: Plan, allowed: Collection[str], command: str) -> str:
    refused = "" if not plan.refused(allowed) else "   (refused as it stands)"
    short = plan.digest[:SHORT_DIGEST]
    return f"plan sha256:{short}…   next: {command} --expect {short}{refused}"


# --- JSON --------------------------------------------------------------------------------


def as_json(
    plan: Plan, *, allowed: Collection[str] = (), prices: Mapping[str, float] = NO_PRICES
) -> str:
    """The plan for programs, as `compose schema plan` describes it."""
    return json.dumps(_plain(plan, allowed, prices), indent=2, ensure_ascii=True) + "\n"


def _plain(plan: Plan, allowed: Collection[str], prices: Mapping[str, float]) -> dict[str, Any]:
    return {
        "formatVersion": FORMAT_VERSION,
        "target": plan.target,
        "digest": plan.digest,
        "changeDigests": list(plan.change_digests),
        "hasChanges": bool(plan.changes),
        "summary": summary(plan),
        "actions": [_plain_action(a, prices.get(a.path)) for a in plan.actions],
        "guards": [
            {"message": guard.message, "flag": guard.flag} for guard in plan.refused(allowed)
        ],
        "notes": list(plan.notes),
    }


def _plain_action(action: Action, price: float | None) -> Plain:
    plain: Plain = {
        "action": str(action.shown),
        "isChange": action.is_change,
        "recipe": action.path,
        "name": action.name,
        "reason": action.reason,
        "composition": action.model.id if action.model else None,
        "movedFrom": action.moved_from,
        "before": plain_content(action.before) if action.before else None,
        "after": plain_content(action.content) if action.content else None,
        "names": dict(sorted(action.labels.items())),
        "update": action.update.words or None,
        "price": price,
        "movesAwayFrom": action.moves_away_from,
        "deletes": list(action.deletes),
        "drops": list(action.drops),
        "notes": list(action.notes),
    }
    return {key: value for key, value in plain.items() if value not in (None, [], {})}
