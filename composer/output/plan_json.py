"""Plans for programs: the JSON that `compose schema plan` describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from composer.lock import Plain, plain_content
from composer.output.escape import dumped
from composer.output.plan_text import NO_ADVICE, NO_PRICES, summary
from composer.planner import is_stand_in

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from composer.model import Content
    from composer.planner import Action, Plan

FORMAT_VERSION = 1


def as_json(
    plan: Plan,
    *,
    allowed: Collection[str] = (),
    prices: Mapping[str, float] = NO_PRICES,
    advice: Mapping[str, str] = NO_ADVICE,
) -> str:
    """The plan as JSON; without a digest where the target was not asked."""
    actions = [_plain_action(a, prices.get(a.path), advice.get(a.path)) for a in plan.actions]
    return dumped(_plain(plan, allowed, actions))


def _plain(plan: Plan, allowed: Collection[str], actions: list[Plain]) -> dict[str, Any]:
    return {
        "formatVersion": FORMAT_VERSION,
        "target": plan.target,
        "targetAsked": plan.asked,
        "digest": plan.digest if plan.asked else None,
        "changeDigests": list(plan.change_digests) if plan.asked else [],
        "hasChanges": bool(plan.changes),
        "summary": summary(plan),
        "actions": actions,
        "guards": [
            {"message": guard.message, "flag": guard.flag} for guard in plan.refused(allowed)
        ],
        "lockEdits": [
            {"recipe": edit.path, "name": edit.name, "edit": edit.words} for edit in plan.lock_edits
        ],
        "notes": list(plan.notes),
    }


def _plain_action(action: Action, price: float | None, advice: str | None) -> Plain:
    plain: Plain = {
        "action": str(action.shown),
        "isChange": action.is_change,
        "recipe": action.path,
        "name": action.name,
        "reason": action.reason,
        "drift": action.drift,
        "composition": action.model.id if action.model else None,
        "movedFrom": action.moved_from,
        "before": _content(action, action.before),
        "after": _content(action, action.content),
        "names": {id: n for id, n in sorted(action.labels.items()) if not is_stand_in(id)},
        "update": action.update.words or None,
        "price": price,
        "advice": advice if action.recipe is not None else None,
        "movesAwayFrom": action.moves_away_from,
        "deletes": list(action.deletes),
        "drops": list(action.drops),
        "notes": list(action.notes),
    }
    return {key: value for key, value in plain.items() if value not in (None, "", [], {})}


def _content(action: Action, content: Content | None) -> Plain | None:
    """A content; a LoRA without a pin, which only an offline plan has, by its name."""
    if content is None:
        return None
    plain = plain_content(content)
    for concept in plain["concepts"]:
        if is_stand_in(concept["modelId"]):
            concept["name"] = action.labels[concept.pop("modelId")]
    return plain
