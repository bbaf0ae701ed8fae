"""Which model of the target is which: a recipe's, a lost POST's, or one that nothing names.

Identity is type, name and concepts. Scales are compared to 4 decimals and concepts as a set. A
field that the target doesn't return is never a difference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.model import MARK, Candidate, CreatedRecord, Entry, in_order

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from composer.model import Concept, Content, Intent, KnownState, Model, Observed, Parameters


def same_concepts(wanted: Iterable[Concept], answered: Iterable[Concept]) -> bool:
    """The same LoRAs at the same scales; epochs differ only where both sides name one."""
    ours, theirs = in_order(wanted), in_order(answered)
    return len(ours) == len(theirs) and all(
        a.model_id == b.model_id
        and a.scale == b.scale
        and (a.epoch is None or b.epoch is None or a.epoch == b.epoch)
        for a, b in zip(ours, theirs, strict=True)
    )


def has_content(model: Model, wanted: Content, record: Content | None) -> bool:
    """Whether an entry's own model has this content; `record` is what the lock says of it.

    Training parameters are compared with the record, as the target may not return them.
    """
    training = record.training if record else model.parameters
    return _is_made_of(model, wanted, record) and _trained_alike(model, wanted, training)


def is_exact_match(model: Model, wanted: Content, recorded: Parameters | None) -> bool:
    """Whether any model of the target is an exact match but for its name.

    `recorded` are the training parameters that a lock remembers for this id, if one does.
    """
    training = model.parameters if model.parameters is not None else recorded
    return _is_made_of(model, wanted, None) and _trained_alike(model, wanted, training)


def _is_made_of(model: Model, wanted: Content, record: Content | None) -> bool:
    recorded = record.concepts if record else None
    answered = model.concepts if model.concepts is not None else recorded
    if model.type != wanted.type or answered is None:
        return False
    return same_concepts(wanted.concepts, answered) and _same_epochs(model, wanted, record)


def _same_epochs(model: Model, wanted: Content, record: Content | None) -> bool:
    """An epoch that recipe or answer leaves out is compared with the lock alone."""
    if record is None:
        return True
    answered = {c.model_id: c.epoch for c in model.concepts or ()}
    recorded = {c.model_id: c.epoch for c in record.concepts}
    return all(
        c.epoch == recorded.get(c.model_id, c.epoch)
        for c in wanted.concepts
        if c.epoch is None or answered.get(c.model_id) is None
    )


def _trained_alike(model: Model, wanted: Content, training: Parameters | None) -> bool:
    """An untrained model can still be trained with any parameters."""
    return model.untrained or wanted.training == (training or ())


def is_expected_model(
    model: Model,
    names: Collection[str],
    contents: Iterable[Content | None],
    observed: Observed,
) -> bool:
    """Whether an id that the lock names may be used: right type, and a name or content we know."""
    if not observed.is_composition(model):
        return False
    if model.name in names:
        return True
    recorded = [content for content in contents if content is not None]
    return model.concepts is not None and any(
        same_concepts(content.concepts, model.concepts) for content in recorded
    )


def exact_matches(
    models: Iterable[Model], name: str, content: Content, *, excluded: Collection[str] = ()
) -> list[Model]:
    """Exact matches of this name and content whose id isn't known yet.

    First comes the one that a lost POST of ours likeliest made: it has no mark and no training
    yet, and is the oldest.
    """
    matches = [
        model
        for model in models
        if model.name == name
        and not model.gone
        and model.id not in excluded
        and is_exact_match(model, content, None)
    ]
    return sorted(
        matches, key=lambda m: (MARK in (m.tags or ()), m.status != "new", m.created_at, m.id)
    )


def known_ids(memory: KnownState) -> set[str]:
    """Every composition that lock or journal names: none of these is a POST's lost answer."""
    ids = set(memory.made)
    for entry in memory.entries.values():
        ids |= {*entry.all_ids}
    return ids


def models_of_intents(memory: KnownState, observed: Observed) -> list[tuple[Intent, Model]]:
    """Each open intent whose model is on the target by now, with that model."""
    excluded = known_ids(memory)
    pairs = []
    for intent in memory.intents:
        own = observed.own_by_name.get(intent.name, ())
        models = exact_matches(own, intent.name, intent.content, excluded=excluded)
        if models:
            pairs.append((intent, models[0]))
            excluded.add(models[0].id)
    return pairs


def with_recovered(memory: KnownState, observed: Observed) -> KnownState:
    """The memory as it will be once those intents are settled: for commands that only look."""
    entries, made = dict(memory.entries), dict(memory.made)
    for intent, model in models_of_intents(memory, observed):
        entry = entries.get(intent.path, Entry(intent.name))
        candidate = Candidate(model.id, intent.name, intent.content, ours=True)
        entries[intent.path] = replace(entry, candidates=(*entry.candidates, candidate))
        made[model.id] = CreatedRecord(intent.name, intent.content, intent.at)
    return replace(memory, entries=dict(sorted(entries.items())), made=made)


def orphans(memory: KnownState, observed: Observed) -> tuple[Model, ...]:
    """All of them, oldest first."""
    named = known_ids(memory)
    own = (model for id in observed.own if (model := observed.get(id)))
    unnamed = [
        model
        for model in own
        if observed.is_composition(model) and MARK in (model.tags or ()) and model.id not in named
    ]
    return tuple(sorted(unnamed, key=lambda model: (model.created_at, model.id)))
