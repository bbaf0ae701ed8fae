"""Finding the model of a POST whose answer was lost. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.model import MARK, Candidate, CreatedRecord, Entry
from composer.planner.identity import is_exact_match

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from composer.model import Content, Intent, KnownState, Model, Observed


def exact_matches(
    models: Iterable[Model], name: str, content: Content, *, known: Collection[str] = ()
) -> list[Model]:
    """Exact matches of this name and content whose id isn't known yet.

    First comes the one that a lost POST of ours likeliest made: it has no mark and no training
    yet, and is the oldest.
    """
    found = [
        model
        for model in models
        if model.name == name
        and not model.gone
        and model.id not in known
        and is_exact_match(model, content, None)
    ]
    return sorted(
        found, key=lambda m: (MARK in (m.tags or ()), m.status != "new", m.created_at, m.id)
    )


def known_ids(memory: KnownState) -> set[str]:
    """Every composition that lock or journal names: none of these is a POST's lost answer."""
    known = set(memory.made)
    for entry in memory.entries.values():
        known |= {*entry.all_ids}
    return known


def models_of_intents(memory: KnownState, observed: Observed) -> list[tuple[Intent, Model]]:
    """Each open intent whose model is on the target by now, with that model."""
    known = known_ids(memory)
    found = []
    for intent in memory.intents:
        own = [observed.models[id] for id in observed.own if id in observed.models]
        models = exact_matches(own, intent.name, intent.content, known=known)
        if models:
            found.append((intent, models[0]))
            known.add(models[0].id)
    return found


def with_found(memory: KnownState, observed: Observed) -> KnownState:
    """The memory as it will be once those intents are settled: for commands that only look."""
    entries, made = dict(memory.entries), dict(memory.made)
    for intent, model in models_of_intents(memory, observed):
        entry = entries.get(intent.path, Entry(intent.name))
        candidate = Candidate(model.id, intent.name, intent.content, ours=True)
        entries[intent.path] = replace(entry, candidates=(*entry.candidates, candidate))
        made[model.id] = CreatedRecord(intent.name, intent.content, intent.at)
    return replace(memory, entries=dict(sorted(entries.items())), made=made)
