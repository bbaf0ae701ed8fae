"""Recipes and lock entries for compositions that exist on the target already."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from composer.lock import Ledger
from composer.lora import families
from composer.model import (
    MARK,
    MAX_CONCEPTS,
    ConceptRef,
    Content,
    Entry,
    Imported,
    Recipe,
    in_order,
    scale_limits,
)
from composer.project.recipe_files import RecipeFiles
from composer.targets.base import observe

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from composer.model import Concept, Model, ModelTypes, Observed
    from composer.project.project import Project
    from composer.targets.base import Target


def import_models(
    project: Project, target: Target, ids: Sequence[str] | None, *, dry_run: bool
) -> list[Imported]:
    """See `Project.import_models`."""
    files = RecipeFiles(project, dry_run=dry_run)
    ledger = Ledger(project.root, target.key, project.state, write=not dry_run)
    observed = observe(target, project.recipes, ledger.known_state)
    if ids is None:
        chosen, missing = target.list_models(*families.composition_types()), []
    else:
        models = target.get_models(ids)
        chosen = [models[id] for id in ids if id in models]
        missing = [id for id in ids if id not in models]
    run = _Import(files, observed, ledger, dry_run=dry_run)
    imported = [run.take(model) for model in chosen]
    if ids is None:  # of all models, those that the lock has are no result
        imported = [one for one in imported if one.path or one.skipped]
    if not dry_run:
        ledger.close(handled={one.path for one in imported if one.path}, owner=observed.owner)
    reason = "the target has no such model; compose models lists them"
    return [*imported, *(Imported(id, problems=(reason,)) for id in missing)]


@dataclass(slots=True)
class _Import:
    files: RecipeFiles
    observed: Observed
    ledger: Ledger
    dry_run: bool
    _ids: set[str] = field(init=False)

    def __post_init__(self) -> None:
        entries = self.ledger.known_state.entries.values()
        self._ids = {id for entry in entries for id in entry.ids}

    def take(self, model: Model) -> Imported:
        """Write one model's recipe and entry, or tell why not."""
        if model.id in self._ids:
            return Imported(model.id, model.name, notes=("in the lock already",))
        try:
            recipe = self._recipe(model)
            self.files.add(recipe)
        except ValueError as why:
            return Imported(model.id, model.name, problems=(str(why),))
        if not self.dry_run:
            self.ledger.record(recipe.path, _entry_of(model, recipe))
        return Imported(model.id, model.name, path=recipe.path)

    def _recipe(self, model: Model) -> Recipe:
        if other := self.files.other(model.name):
            raise ValueError(f"another recipe has this name: {other}; rename that recipe")
        family = families.of_type(model.type)
        if family is None:
            raise ValueError(f"it is a {model.type}, not a composition")
        path = self.files.free_path(model.name)
        return _recipe_of(model, family.types, path, self.observed)


# --- a composition as a recipe, and as an entry ------------------------------------------


def _recipe_of(model: Model, types: ModelTypes, path: str, observed: Observed) -> Recipe:
    """The recipe of a composition of these types; concepts by name where that name is unique here.

    Raises `ValueError` with the reason where a recipe can't express it.
    """
    concepts = _expressible(model, observed.unsupported)
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


def _expressible(model: Model, unsupported: Collection[str]) -> Sequence[Concept]:
    if not model.trained:
        raise ValueError(f"it is not trained (status {model.status})")
    if not model.concepts:
        raise ValueError("the target doesn't say what it is made of")
    if len(model.concepts) > MAX_CONCEPTS:
        raise ValueError(f"it has {len(model.concepts)} concepts, a recipe at most {MAX_CONCEPTS}")
    for concept in model.concepts:
        low, high = scale_limits(unsupported)
        if not low <= concept.scale <= high:
            raise ValueError(
                f"the scale of {concept.model_id} is {concept.scale:g}, outside {low}..{high}"
            )
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


def _entry_of(model: Model, recipe: Recipe) -> Entry:
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
