"""Plans for programs: the JSON that `compose schema plan` describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.lock import Plain, plain_content
from composer.output.plan_view import summary
from composer.output.style import dumped
from composer.planner import is_stand_in

if TYPE_CHECKING:
    from composer.model import Content
    from composer.output.plan_view import PlanView
    from composer.planner import Action

FORMAT_VERSION = 1


def as_json(view: PlanView) -> str:
    """The plan as JSON; without a digest where the target was not asked."""
    plan = view.plan
    plain: Plain = {
        "formatVersion": FORMAT_VERSION,
        "target": plan.target,
        "targetAsked": plan.asked,
        "digest": plan.digest if plan.asked else None,
        "changeDigests": list(plan.change_digests) if plan.asked else [],
        "hasChanges": bool(plan.changes),
        "summary": " ".join(filter(None, [summary(plan), plan.left_out.words])),
        "leftOut": plan.left_out.recipes,
        "actions": [_plain_action(action, view) for action in plan.actions],
        "guards": [{"message": guard.message, "flag": guard.flag} for guard in view.refused],
        "lockEdits": [
            {"recipe": edit.path, "name": edit.name, "edit": edit.words} for edit in plan.lock_edits
        ],
        "notes": list(plan.notes),
    }
    return dumped(plain)


def _plain_action(action: Action, view: PlanView) -> Plain:
    advice = view.advice.get(action.path) if action.recipe is not None else None
    plain: Plain = {
        "action": str(action.shown),
        "isChange": action.is_change,
        "recipe": action.path,
        "name": action.name,
        "reason": action.explanation.reason,
        "drift": action.explanation.drift,
        "composition": action.model.id if action.model else None,
        "movedFrom": action.moved_from,
        **_contents(action),
        "update": action.update.words or None,
        "price": view.prices.get(action.path),
        "advice": advice and advice.words,
        "adviceLevel": advice and str(advice.level),
        "movesAwayFrom": action.transition.moves_away_from,
        "deletes": list(action.transition.deletes),
        "deletesUntrained": list(action.transition.deletes_untrained),
        "notes": list(action.notes),
    }
    return {key: value for key, value in plain.items() if value not in (None, "", [], {})}


def _contents(action: Action) -> Plain:
    """What it is made of now and will be, and the names of the LoRAs by their ids."""
    labels = sorted(action.explanation.labels.items())
    return {
        "before": _content(action, action.explanation.before),
        "after": _content(action, action.content),
        "names": {id: name for id, name in labels if not is_stand_in(id)},
    }


def _content(action: Action, content: Content | None) -> Plain | None:
    """A content; a LoRA without a pin, which only an offline plan has, by its name."""
    if content is None:
        return None
    plain = plain_content(content)
    for concept in plain["concepts"]:
        if is_stand_in(concept["modelId"]):
            concept["name"] = action.explanation.labels[concept.pop("modelId")]
    return plain
