"""What became of the pinned LoRAs: `compose lock --upgrade --dry-run` lists it. Pure.

The lock keeps a LoRA's id and nothing else of it, so a training since is told by the target's own
times: the LoRA was changed after the composition that was made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.planner.concepts import named_loras
from composer.planner.matching import match_entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from composer.model import Entry, Model, Observed, Recipe, TargetLock
    from composer.planner.plan import Options


@dataclass(frozen=True, slots=True)
class OutdatedPin:
    """Something that happened to one pinned LoRA."""

    path: str
    name: str
    id: str
    kind: str  # deleted, renamed, another id, retrained, another epoch
    words: str


def outdated_pins(
    recipes: Sequence[Recipe], lock: TargetLock, observed: Observed, options: Options
) -> tuple[OutdatedPin, ...]:
    """Of every pin of the recipes that are meant, what is not as it was, by recipe and name."""
    matched = match_entries(recipes, lock.recipes)
    found: list[OutdatedPin] = []
    for recipe in sorted(recipes, key=lambda recipe: recipe.path):
        entry = lock.recipes.get(matched.get(recipe.path, ""))
        if entry is None or not options.wants(recipe.path):
            continue
        names = {ref.name for ref in recipe.concepts}
        for name, id in entry.pins:
            if name in names and (options.upgrade_all or name in options.upgrade):
                told = _told(entry, name, id, observed)
                found += [OutdatedPin(recipe.path, name, id, kind, words) for kind, words in told]
    return tuple(found)


def _told(entry: Entry, name: str, id: str, observed: Observed) -> Iterator[tuple[str, str]]:
    model = observed.get(id)
    others = sorted(m.id for m in named_loras(name, observed) if m.id != id)
    if model is None:
        yield "deleted", f"{id} is gone from the target"
    elif name not in (model.name, *model.aliases):
        yield "renamed", f"{id} is named {model.name} now"
    if others:
        yield "another id", f"{name} now means {' or '.join(others)}"
    if model is not None:
        yield from _retrained(entry, model, observed)
        yield from _epoch(entry, model)


def _retrained(entry: Entry, lora: Model, observed: Observed) -> Iterator[tuple[str, str]]:
    if not lora.trained:
        yield "retrained", f"{lora.id} is not trained just now (status {lora.status})"
    made = observed.get(entry.composition)
    if made and lora.updated_at and made.created_at and lora.updated_at > made.created_at:
        yield (
            "retrained",
            f"{lora.id} was changed {lora.updated_at}, after {made.id} was made of it:"
            " it may have been trained anew",
        )


def _epoch(entry: Entry, lora: Model) -> Iterator[tuple[str, str]]:
    concepts = entry.content.concepts if entry.content else ()
    for before in [concept.epoch for concept in concepts if concept.model_id == lora.id]:
        if before and lora.epoch not in (None, before):
            yield "another epoch", f"{lora.id} is at epoch {lora.epoch}, and was at {before}"
