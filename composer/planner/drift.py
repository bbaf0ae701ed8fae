"""Drift: what changed on the target behind the lock's back. Pure; `plan` asks for every action.

Three sides are told apart. Recipe against lock is a change, and the action's reason says it. Target
against lock is drift. Where the target already is what the recipe asks for, nothing is taken back,
and nothing needs to be said.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.model import COMPOSITION, Content
from composer.planner.identity import same_concepts
from composer.planner.plan import Verb
from composer.planner.reasons import change_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.model import Entry, Model, Observed
    from composer.planner.plan import Action


def drift_of(action: Action, observed: Observed) -> str:
    """`changed on the target: scale of Ink Lines 0.6 -> 0.7`; empty if there is no drift."""
    entry = action.entry
    if entry is None or not entry.current:
        return ""
    held = entry.current[0]
    model = observed.get(held.id)
    if model is None:
        return "gone from the target" if _missed(action, observed) else ""
    if model.type != COMPOSITION:
        return ""  # it never was ours: the recipe is blocked, and the reason says so
    said = [
        *_renamed(action, entry, model),
        *_remade(action, held.content, model, observed),
        *_untagged(action, entry, model),
    ]
    return "; ".join(said)


def _missed(action: Action, observed: Observed) -> bool:
    """A local target may well be empty, in a fresh clone: nobody deleted anything there."""
    return observed.remote and action.recipe is not None and action.verb is not Verb.KEEP


def _renamed(action: Action, entry: Entry, model: Model) -> Iterator[str]:
    if model.name not in (entry.name, action.name):
        yield f"renamed on the target: {entry.name} -> {model.name}"


def _remade(
    action: Action, record: Content | None, model: Model, observed: Observed
) -> Iterator[str]:
    if record is None or model.concepts is None:
        return
    known = [record, *([action.content] if action.content else [])]
    if not any(same_concepts(content.concepts, model.concepts) for content in known):
        words = change_of(record, _answered(record, model), action.explanation.labels, observed)
        yield f"changed on the target: {words}"


def _answered(record: Content, model: Model) -> Content:
    """What the target says it is made of; an epoch that it leaves out is no difference."""
    epochs = {concept.model_id: concept.epoch for concept in record.concepts}
    concepts = [
        replace(concept, epoch=concept.epoch or epochs.get(concept.model_id))
        for concept in model.concepts or ()
    ]
    return Content.of(concepts, record.training)


def _untagged(action: Action, entry: Entry, model: Model) -> Iterator[str]:
    if action.recipe is None or model.tags is None:
        return
    for tag in sorted({*entry.tags} & {*action.recipe.tags} - model.tags):
        yield f"tag {tag} taken off on the target"
