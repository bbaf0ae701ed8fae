"""Planning without asking the target: what it would look like if it were as the lock says. Pure.

`plan_offline` plans on that picture, and marks the plan and each of its reasons. It is what a pull
request from a stranger's fork gets: no credentials, nothing sent, and nothing to approve.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.model import COMPOSITION, LORA, MARK, TRAINED, Model, Observed
from composer.planner.plan import Verb

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from composer.model import Candidate, Entry, Recipe, TargetLock
    from composer.planner.plan import Action, Plan

NOT_ASKED = "the target was not asked"
_MARKER = "?"  # no id can begin with it
_STATUS = {"created": "new", "training": "training", "mismatch": "new"}


def is_stand_in(id: str) -> bool:
    """Whether this is no id, but stands for a LoRA whose name has no pin."""
    return id.startswith(_MARKER)


def as_the_lock_says(recipes: Sequence[Recipe], lock: TargetLock, key: str) -> Observed:
    """The target as the lock remembers it; each LoRA that it doesn't know has a stand-in."""
    models = {model.id: model for entry in lock.recipes.values() for model in _models(entry)}
    for entry in lock.recipes.values():
        for name, id in entry.pins:
            models.setdefault(id, Model(id, LORA, name, TRAINED))
    concepts = [ref for recipe in recipes for ref in recipe.concepts]
    for id in sorted({ref.model_id for ref in concepts if ref.model_id}):
        models.setdefault(id, Model(id, LORA, id, TRAINED))
    names = {ref.name for ref in concepts if ref.name}
    stand_ins = {_MARKER + name: Model(_MARKER + name, LORA, name, TRAINED) for name in names}
    return Observed(key, models | stand_ins, own=frozenset(stand_ins))


def _models(entry: Entry) -> Iterator[Model]:
    for old in entry.replaced:
        ours = frozenset({MARK})
        yield Model(old.id, COMPOSITION, old.name, TRAINED, parameters=old.training, tags=ours)
    for held in (*entry.candidates, *entry.current):
        yield _model(held, entry)


def _model(held: Candidate, entry: Entry) -> Model:
    coming = entry.next if entry.next and entry.next.composition == held.id else None
    return Model(
        held.id,
        COMPOSITION,
        held.name,
        _STATUS[coming.state] if coming else TRAINED,
        concepts=held.content.concepts if held.content else None,
        parameters=held.content.training if held.content else None,
        tags=frozenset({*entry.tags, MARK}),
        job=held.job,
    )


def as_offline_plan(planned: Plan) -> Plan:
    """The plan, with every reason saying that the target was not asked."""
    actions = tuple(_unasked(action) for action in planned.actions)
    return replace(planned, actions=actions, asked=False)


def _unasked(action: Action) -> Action:
    kept = action.verb is Verb.KEEP and not action.update
    reason = "as the lock says" if kept else action.explanation.reason
    names = [name for name, id in action.transition.pins if is_stand_in(id)]
    notes = tuple(f"the lock has no pin for {name}: which LoRA it means is open" for name in names)
    explanation = replace(
        action.explanation.with_notes(*notes), reason=f"{reason}; {NOT_ASKED}", drift=""
    )
    return replace(action, explanation=explanation)
