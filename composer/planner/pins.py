"""The pins of the lock: what `compose lock` adds or moves, and what became of the pinned LoRAs.

Pins are all that it adds, with the name of an entry that is new. A pin that no recipe names any
more stays until an apply, since the composition in use may still be made of it. The lock keeps a
LoRA's id and nothing else of it, so a training since is told by the target's own times: the LoRA
was changed after the composition that was made of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from composer.model import Entry
from composer.planner.concepts import named_loras, resolve
from composer.planner.matching import free_place, match_entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from composer.model import KnownState, Model, Observed, Recipe, TargetLock
    from composer.planner.plan import Options


@dataclass(frozen=True, slots=True)
class Pin:
    """One name of one recipe that is pinned now; `before` is the id that the lock had for it."""

    path: str
    name: str
    id: str
    before: str | None = None


@dataclass(frozen=True, slots=True)
class Pinning:
    """What came of it; `problems` are by recipe, and none of such a recipe's names is pinned."""

    recipes: Mapping[str, Entry]  # the lock's entries with all pins
    pins: tuple[Pin, ...] = ()  # added or moved
    problems: tuple[tuple[str, str], ...] = ()  # recipe, what is wrong


def pinned(
    recipes: Sequence[Recipe],
    lock: TargetLock,
    memory: KnownState,
    observed: Observed,
    options: Options,
) -> Pinning:
    """Every name of the recipes that are meant, looked up where the lock doesn't pin it yet.

    `memory` is the lock with what a journal adds: its pins are kept too.
    """
    matched = match_entries(recipes, memory.entries)
    entries = dict(lock.recipes) if _has_room(recipes, matched, lock) else _moved(matched, lock)
    pins, problems = list[Pin](), list[tuple[str, str]]()
    for recipe in sorted(recipes, key=lambda recipe: recipe.path):
        if not options.wants(recipe.path):
            continue
        remembered = memory.entries.get(matched.get(recipe.path, ""))
        resolution = resolve(recipe, remembered, observed, options)
        if resolution.problems:
            problems.append((recipe.path, "; ".join(resolution.problems)))
        else:
            place = _place(recipe, matched, entries)
            pins += _add_pins(recipe, place, resolution.pins, entries)
    return Pinning(dict(sorted(entries.items())), tuple(pins), tuple(problems))


def _add_pins(
    recipe: Recipe, place: str, resolved: Mapping[str, str], entries: dict[str, Entry]
) -> list[Pin]:
    """Put the pins into the entry at `place`; returns those that are new or have another id."""
    entry = entries.get(place, Entry(recipe.name))
    before = dict(entry.pins)
    pins = [
        Pin(recipe.path, name, id, before.get(name))
        for name, id in sorted(resolved.items())
        if before.get(name) != id
    ]
    if pins:
        together = {**before, **resolved}
        entries[place] = replace(entry, pins=tuple(sorted(together.items())))
    return pins


def unpinned(
    recipes: Sequence[Recipe], lock: TargetLock, options: Options
) -> tuple[tuple[str, str], ...]:
    """Each recipe and LoRA name that the lock has no pin for; nothing is looked up."""
    matched = match_entries(recipes, lock.recipes)
    without_pin = []
    for recipe in sorted(recipes, key=lambda recipe: recipe.path):
        entry = lock.recipes.get(matched.get(recipe.path, ""))
        names = [ref.name for ref in recipe.concepts if ref.name and options.wants(recipe.path)]
        without_pin += [(recipe.path, n) for n in names if entry is None or entry.pin(n) is None]
    return tuple(without_pin)


def _place(recipe: Recipe, matched: Mapping[str, str], entries: Mapping[str, Entry]) -> str:
    """Where the recipe's entry is: an entry moves with its file only where it has to."""
    at = matched.get(recipe.path, recipe.path)
    return at if at in entries else recipe.path


def _has_room(recipes: Sequence[Recipe], matched: Mapping[str, str], lock: TargetLock) -> bool:
    """Whether no recipe without an entry stands where another one's entry still is."""
    return not any(r.path in lock.recipes and r.path not in matched for r in recipes)


def _moved(matched: Mapping[str, str], lock: TargetLock) -> dict[str, Entry]:
    """All entries where their files are now, as an apply would move them."""
    new = {at: path for path, at in matched.items()}
    return {new.get(at, free_place(at, matched)): entry for at, entry in lock.recipes.items()}


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
    outdated: list[OutdatedPin] = []
    for recipe in sorted(recipes, key=lambda recipe: recipe.path):
        entry = lock.recipes.get(matched.get(recipe.path, ""))
        if entry is None or not options.wants(recipe.path):
            continue
        names = {ref.name for ref in recipe.concepts}
        for name, id in entry.pins:
            if name in names and (options.upgrade_all or name in options.upgrade):
                alike = named_loras(name, recipe.types.lora, observed)
                events = _events(entry, name, id, alike, observed)
                outdated += [
                    OutdatedPin(recipe.path, name, id, kind, words) for kind, words in events
                ]
    return tuple(outdated)


def _events(
    entry: Entry, name: str, id: str, alike: Sequence[Model], observed: Observed
) -> Iterator[tuple[str, str]]:
    model = observed.get(id)
    others = sorted(model.id for model in alike if model.id != id)
    if model is None:
        yield "deleted", f"{id} is not on the target any more"
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
            " it may have been trained again",
        )


def _epoch(entry: Entry, lora: Model) -> Iterator[tuple[str, str]]:
    concepts = entry.content.concepts if entry.content else ()
    for before in [concept.epoch for concept in concepts if concept.model_id == lora.id]:
        if before and lora.epoch not in (None, before):
            yield "another epoch", f"{lora.id} is at epoch {lora.epoch}, and was at {before}"
