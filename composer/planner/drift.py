"""What differs, in words: between two contents, and between the lock and the target (drift).

Three are compared. Recipe against lock is a change, and the action's reason says it. Target
against lock is drift. Where the target already is what the recipe asks for, nothing is taken back,
and nothing needs to be said.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.model import Content
from composer.planner.identity import same_concepts
from composer.planner.plan import Verb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from composer.model import Concept, Entry, Model, Observed, Parameters
    from composer.planner.plan import Action


MISSING = "not on the target"


def change_of(
    before: Content | None, after: Content, labels: Mapping[str, str], observed: Observed
) -> str:
    """`scale of Ink Lines 0.6 -> 0.7, Pixel Dust added at 0.5`; LoRAs by name where known."""
    if before is None:
        return "the lock has no record of its content"

    def label(id: str) -> str:
        model = observed.models.get(id)
        return labels.get(id) or (model.name if model else id)

    changes = [*_concepts(before, after, label), *_training(before.training, after.training)]
    return ", ".join(changes) or "changed"


def _concepts(before: Content, after: Content, label: Callable[[str], str]) -> Iterator[str]:
    old = {c.model_id: c for c in before.concepts}
    new = {c.model_id: c for c in after.concepts}
    added = {label(id): id for id in new if id not in old}
    removed = {label(id): id for id in old if id not in new}
    upgraded = [name for name in added if name in removed]  # one name, another file
    if before.type != after.type:
        yield f"type {before.type} -> {after.type}"
    for id in new:
        if id in old:
            yield from _concept(label(id), old[id], new[id])
    for name in upgraded:
        yield from _upgraded(name, old[removed[name]], new[added[name]])
    for name, id in added.items():
        if name not in upgraded:
            yield f"{name} added at {new[id].scale:g}"
    yield from (f"{name} removed" for name in removed if name not in upgraded)


def _upgraded(label: str, old: Concept, new: Concept) -> Iterator[str]:
    yield f"{label} is another file now: {old.model_id} -> {new.model_id}"
    yield from _concept(label, old, new)


def _concept(label: str, old: Concept, new: Concept) -> Iterator[str]:
    if old.scale != new.scale:
        yield f"scale of {label} {old.scale:g} -> {new.scale:g}"
    if old.epoch != new.epoch:
        yield f"epoch of {label} {old.epoch or 'latest'} -> {new.epoch or 'latest'}"


def _training(before: Parameters, after: Parameters) -> Iterator[str]:
    old, new = dict(before), dict(after)
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            yield f"training {key} {_value(old.get(key))} -> {_value(new.get(key))}"


def _value(value: object) -> str:
    if value is None:
        return "default"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def drift_of(action: Action, observed: Observed) -> str:
    """`changed on the target: scale of Ink Lines 0.6 -> 0.7`; empty if there is no drift."""
    entry = action.entry
    if entry is None or not entry.current:
        return ""
    recorded = entry.current[0]
    model = observed.get(recorded.id)
    if model is None:
        return MISSING if _missed(action, observed) else ""
    if not observed.is_composition(model):
        return ""  # it never was ours: the recipe is blocked, and the reason says so
    changes = [
        *_renamed(action, entry, model),
        *_remade(action, recorded.content, model, observed),
        *_untagged(action, entry, model),
    ]
    return "; ".join(changes)


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
    expected = [record, *([action.content] if action.content else [])]
    if not any(same_concepts(content.concepts, model.concepts) for content in expected):
        words = change_of(record, _answered(record, model), action.explanation.labels, observed)
        yield f"changed on the target: {words}"


def _answered(record: Content, model: Model) -> Content:
    """What the target says it is made of; an epoch that it leaves out is no difference."""
    epochs = {concept.model_id: concept.epoch for concept in record.concepts}
    concepts = [
        replace(concept, epoch=concept.epoch or epochs.get(concept.model_id))
        for concept in model.concepts or ()
    ]
    return Content.of(model.type, concepts, record.training)


def _untagged(action: Action, entry: Entry, model: Model) -> Iterator[str]:
    if action.recipe is None or model.tags is None:
        return
    for tag in sorted({*entry.tags} & {*action.recipe.tags} - model.tags):
        yield f"tag {tag} taken off on the target"
