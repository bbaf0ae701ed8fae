"""When a model is what a recipe asks for: identity is type, name and concepts.

Scales are compared to 4 decimals and concepts as a set. A field that the target doesn't return
is never a difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.model import COMPOSITION, in_order

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from composer.model import Concept, Content, Model, Parameters


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
    if model.type != COMPOSITION or answered is None:
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
    model: Model, names: Collection[str], contents: Iterable[Content | None]
) -> bool:
    """Whether an id that the lock names may be used: right type, and a name or content we know."""
    if model.type != COMPOSITION:
        return False
    if model.name in names:
        return True
    known = [content for content in contents if content is not None]
    return model.concepts is not None and any(
        same_concepts(content.concepts, model.concepts) for content in known
    )
