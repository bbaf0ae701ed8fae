"""Reasons in words: what differs between two contents."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from composer.model import Concept, Content, Observed, Parameters


def change_of(
    before: Content | None, after: Content, labels: Mapping[str, str], observed: Observed
) -> str:
    """`scale of Ink Lines 0.6 -> 0.7, Pixel Dust added at 0.5`; LoRAs by name where known."""
    if before is None:
        return "made anew"

    def label(id: str) -> str:
        model = observed.models.get(id)
        return labels.get(id) or (model.name if model else id)

    old = {c.model_id: c for c in before.concepts}
    new = {c.model_id: c for c in after.concepts}
    added = {label(id): id for id in new if id not in old}
    removed = {label(id): id for id in old if id not in new}
    moved = [name for name in added if name in removed]  # one name, another file: an upgrade
    said = [
        *(text for id in new if id in old for text in _concept(label(id), old[id], new[id])),
        *(text for n in moved for text in _upgraded(n, old[removed[n]], new[added[n]])),
        *(f"{n} added at {new[id].scale:g}" for n, id in added.items() if n not in moved),
        *(f"{n} removed" for n in removed if n not in moved),
        *_training(before.training, after.training),
    ]
    return ", ".join(said) or "changed"


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
