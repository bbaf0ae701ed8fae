"""A composition that exists, as a recipe; or why a recipe can't say it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from composer.model import MARK, ConceptRef, Content, Entry, Recipe, in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.model import Concept, Model, ModelTypes, Observed

_MOST_CONCEPTS = 5


def recipe_of(model: Model, types: ModelTypes, path: str, observed: Observed) -> Recipe:
    """The recipe of a composition of these types; concepts by name where that name is unique here.

    Raises `ValueError` with the reason where a recipe can't express it.
    """
    concepts = _expressible(model)
    described: dict[str, Any] = {name: text for name, text in model.texts.items() if text}
    return Recipe(
        path=path,
        name=model.name,
        concepts=tuple(_ref(concept, types.lora, observed) for concept in concepts),
        types=types,
        training=model.parameters or (),
        tags=tuple(sorted((model.tags or frozenset()) - {MARK})),
        **described,
    )


def _expressible(model: Model) -> Sequence[Concept]:
    if not model.trained:
        raise ValueError(f"it is not trained (status {model.status})")
    if not model.concepts:
        raise ValueError("the target doesn't say what it is made of")
    if len(model.concepts) > _MOST_CONCEPTS:
        raise ValueError(
            f"it has {len(model.concepts)} concepts, a recipe at most {_MOST_CONCEPTS}"
        )
    for concept in model.concepts:
        if not 0 <= concept.scale <= 1:
            raise ValueError(f"the scale of {concept.model_id} is {concept.scale:g}, outside 0..1")
    ids = [concept.model_id for concept in model.concepts]
    if len(set(ids)) < len(ids):
        raise ValueError("one LoRA is in it twice")
    return in_order(model.concepts)


def _ref(concept: Concept, lora_type: str, observed: Observed) -> ConceptRef:
    lora = observed.get(concept.model_id)
    own = [observed.models[id] for id in observed.own if id in observed.models]
    alike = [m for m in own if lora and m.type == lora_type and lora.name in (m.name, *m.aliases)]
    if lora is not None and [m.id for m in alike] == [concept.model_id]:
        return ConceptRef(concept.scale, name=lora.name, epoch=concept.epoch)
    return ConceptRef(concept.scale, model_id=concept.model_id, epoch=concept.epoch)


def entry_of(model: Model, recipe: Recipe) -> Entry:
    """The lock's entry for an imported recipe: the plan that follows is empty."""
    concepts = in_order(model.concepts or ())
    pins = {
        ref.name: concept.model_id
        for ref, concept in zip(recipe.concepts, concepts, strict=True)
        if ref.name
    }
    return Entry(
        name=model.name,
        pins=tuple(sorted(pins.items())),
        composition=model.id,
        job=model.job,
        content=Content(model.type, concepts, recipe.training),
        tags=recipe.tags,
        protect=recipe.protect,
    )
