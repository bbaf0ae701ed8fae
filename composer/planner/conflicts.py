"""Entries that several sides tell of, brought in order by what the target answers. Pure.

A merge takes lines, not entries: the record beside an id may be of two sides at once, and where a
recipe went and another came, an id may stand below the wrong one. Every plan corrects the records;
only a repair moves ids.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.model import COMPOSITION, Content, Entry
from composer.planner.concepts import under_pins
from composer.planner.identity import is_expected_model
from composer.planner.matching import match_entries
from composer.planner.transitions import entry_without

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from composer.model import Candidate, KnownState, Observed, Recipe


def corrected(
    memory: KnownState, observed: Observed, *, every: bool = False, repairing: bool = False
) -> KnownState:
    """The memory with what the target says of all that several sides tell of, or of everything.

    But of a stranger's: planning is to see that it isn't what the lock says. A repair keeps every
    id that a torn line may have named rightly.
    """
    strange = set() if repairing else _strangers(memory, observed)
    told = {
        path: _as_told(entry, observed, strange) if every or _is_merged(entry) else entry
        for path, entry in memory.entries.items()
    }
    return replace(memory, entries=told)


def _strangers(memory: KnownState, observed: Observed) -> set[str]:
    """The ids of models that have neither a name nor a content that anything here tells of."""
    entries = memory.entries.values()
    held = [one for entry in entries for one in (*entry.current, *entry.candidates)]
    names = {old.name for entry in entries for old in entry.replaced}
    names |= {entry.name for entry in entries} | {one.name for one in held}
    contents = [one.content for one in held]
    there = [model for one in held if (model := observed.get(one.id))]
    return {model.id for model in there if not is_expected_model(model, names, contents)}


def _is_merged(entry: Entry) -> bool:
    return any(not candidate.ours for candidate in entry.candidates)


def _as_told(entry: Entry, observed: Observed, strange: Collection[str]) -> Entry:
    """The record of a stranger stays as it is, for planning to see that it isn't this one's."""

    def told(held: Candidate) -> Content | None:
        return held.content if held.id in strange else _content(held, observed)

    candidates = (replace(c, content=told(c)) for c in entry.candidates)
    entry = replace(entry, candidates=tuple(candidates))
    for held in entry.current:
        content = told(held)
        if held.used:
            entry = replace(entry, content=content)
        elif entry.next and content:
            entry = replace(entry, next=replace(entry.next, content=content))
    return entry


def _content(held: Candidate, observed: Observed) -> Content | None:
    """What the target answers; where it leaves something out, the record."""
    model, record = observed.get(held.id), held.content
    if model is None or model.concepts is None:
        return record
    epochs = {c.model_id: c.epoch for c in record.concepts} if record else {}
    concepts = [replace(c, epoch=c.epoch or epochs.get(c.model_id)) for c in model.concepts]
    known = model.parameters if model.parameters is not None and not model.untrained else None
    training = known if known is not None else record.training if record else ()
    return Content.of(concepts, training)


def in_their_places(
    recipes: Sequence[Recipe], memory: KnownState, observed: Observed, *, torn: bool = False
) -> KnownState:
    """The memory with each id below the recipe whose name its model bears.

    An id that can't be what the lock says, as after an edit by hand, is in it no more. Where the
    lock's lines are `torn`, records and missing pins are what the target tells.
    """
    memory = corrected(memory, observed, every=torn, repairing=True)
    matched = match_entries(recipes, memory.entries)
    at = {path: recipe for recipe in recipes if (path := matched.get(recipe.path)) is not None}
    homes = {recipe.name: matched.get(recipe.path, recipe.path) for recipe in recipes}
    entries: dict[str, Entry] = {}
    entry_once_trained: dict[str, list[Candidate]] = {}
    for path, entry in memory.entries.items():
        guests = _guests(path, entry, at.get(path), homes, observed)
        for home, guest in guests:
            entry_once_trained.setdefault(home, []).append(guest)
        gone = _strange(entry, at.get(path), observed) | {guest.id for _, guest in guests}
        kept = tuple(c for c in entry.candidates if c.id not in gone)
        entries[path] = replace(entry_without(entry, gone), candidates=kept) if gone else entry
        if guests or _half_gone(entry, observed):  # its pins may be another recipe's, too
            entries[path] = _with_own_pins(entries[path], observed)
    for recipe in recipes:
        path = homes[recipe.name]
        come = tuple(entry_once_trained.get(path, ()))
        if path in entries or come:
            entry = entries.get(path, Entry(recipe.name))
            entry = replace(entry, candidates=(*entry.candidates, *come))
            new = torn or path not in entries
            entries[path] = _with_pins(recipe, entry, memory, observed) if new else entry
    return replace(memory, entries=dict(sorted(entries.items())))


def _guests(
    path: str, entry: Entry, recipe: Recipe | None, homes: Mapping[str, str], observed: Observed
) -> list[tuple[str, Candidate]]:
    """The ids here that belong to other recipes, each with the path of that one's entry."""
    names = {entry.name, recipe.name if recipe else entry.name}
    found = []
    for held in (*entry.current, *entry.candidates):
        model = observed.get(held.id)
        if model and model.type == COMPOSITION and model.name not in names:
            home = homes.get(model.name, path)
            found += [(home, replace(held, name=model.name))] if home != path else []
    return found


def _half_gone(entry: Entry, observed: Observed) -> bool:
    """Whether of two sides' models one is there: the other may be one of a recipe that went."""
    there = {observed.get(held.id) is not None for held in (*entry.current, *entry.candidates)}
    return _is_merged(entry) and len(there) > 1


def _with_own_pins(entry: Entry, observed: Observed) -> Entry:
    """Without the pins of LoRAs that none of its models, as they are there, is made of."""
    held = [one for one in (*entry.current, *entry.candidates) if observed.get(one.id)]
    contents = [one.content for one in held if one.content]
    made_of = {concept.model_id for content in contents for concept in content.concepts}
    return replace(entry, pins=tuple(pin for pin in entry.pins if pin[1] in made_of))


def _strange(entry: Entry, recipe: Recipe | None, observed: Observed) -> set[str]:
    names = {recipe.name} if recipe else set()
    wanted = under_pins(recipe, entry) if recipe else None
    return {
        held.id
        for held in (*entry.current, *entry.candidates)
        if (model := observed.get(held.id))
        and not is_expected_model(model, {held.name, *names}, [held.content, wanted])
    }


def _with_pins(recipe: Recipe, entry: Entry, memory: KnownState, observed: Observed) -> Entry:
    """With pins for names that have none: of the LoRAs in its models, the one of that name.

    Where a name tells nothing any more, the scale may: of one name and one LoRA that are left.
    """
    known = {(name, id) for other in memory.entries.values() for name, id in other.pins}
    pins = dict(entry.pins)
    held = sorted((*entry.current, *entry.candidates), key=lambda one: not observed.get(one.id))
    for concepts in [one.content.concepts for one in held if one.content]:
        loras = [model for c in concepts if (model := observed.get(c.model_id))]
        named = known | {(name, lora.id) for lora in loras for name in (lora.name, *lora.aliases)}
        for ref in recipe.concepts:
            left = [c for c in concepts if c.model_id not in pins.values()]
            ids = [c.model_id for c in left if (ref.name, c.model_id) in named]
            ids = ids or [c.model_id for c in left if c.scale == ref.scale]
            if ref.name and len(ids) == 1:
                pins.setdefault(ref.name, ids[0])
    return replace(entry, pins=tuple(sorted(pins.items())))
