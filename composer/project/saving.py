"""Keeping a merge of LoRA files as a recipe: its LoRAs, as the project's library knows them."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from composer.errors import Refused, UsageError
from composer.files.delivery import check_output_link, unwritable
from composer.lora import families
from composer.model import Recipe, parameters, rounded
from composer.project.recipe_files import LoraRefs, RecipeFiles, recipe_name, types_of
from composer.recipes import relative
from composer.recipes.loading import without_matching
from composer.targets.base import HasLibrary
from composer.text import SETTINGS_NAME, counted, listed, visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from composer.lora import Merged
    from composer.lora.fingerprint import Part
    from composer.model import ConceptRef, Model, Parameters
    from composer.project.project import Project
    from composer.targets.base import Target

ENDINGS = (".yaml", ".yml")


def save_recipe(
    project: Project, target: Target, merged: Merged, file: Path, *, force: bool, dry_run: bool
) -> Recipe:
    """See `Project.save_recipe`."""
    path, files = _path(project, file, force=force), RecipeFiles(project, dry_run=dry_run)
    loras = target.list_models(*families.lora_types())
    found = _found(merged.parts, loras, target)
    recipe = Recipe(
        path=path,
        name=recipe_name(file.stem),
        concepts=_concepts(merged.parts, found, loras),
        types=types_of(found[0]),
        training=_training(merged),
    )
    if earlier := next((one for one in project.recipes if one.path == path), None):
        recipe = replace(
            earlier, concepts=recipe.concepts, types=recipe.types, training=recipe.training
        )
    if (other := files.other(recipe.name)) not in (None, path):
        raise UsageError(
            f"another recipe is named {visible(recipe.name)}: {visible(str(other))}",
            hint="save it as a file of another name",
        )
    try:
        files.add(recipe)
    except ValueError as why:
        raise UsageError(
            f"the merge can't be saved as a recipe: {why}", hint="merge without --save-recipe"
        ) from None
    except OSError as error:
        raise unwritable(file, error) from error
    return recipe


def _path(project: Project, file: Path, *, force: bool) -> str:
    """The recipe's path below the root. Raises `UsageError` or `Refused`."""
    name, path = visible(str(file)), relative(file, project.root)
    if file.suffix.lower() not in ENDINGS:
        raise UsageError(f"{name} is not a recipe's file name", hint=f"end it with {ENDINGS[0]}")
    if path is None:
        raise UsageError(
            f"{name} is not in the project {visible(str(project.root))}",
            hint="save it below recipes/",
        )
    for folder in (file.parent, (project.root / path).parent):  # they differ where `..` is in it
        check_output_link(folder)
    if any(part.startswith(".") for part in path.split("/")):
        raise UsageError(f"{name} is hidden, and no command reads it", hint="choose another name")
    if not without_matching([project.root / path], project.root, project.settings.exclude):
        raise UsageError(f"{name} is excluded by {SETTINGS_NAME}", hint="choose another name")
    if file.is_dir():
        raise UsageError(f"{name} is a folder", hint="name a file in it")
    if os.path.lexists(file) and not force:
        raise Refused(f"{name} already exists", hint="--force replaces it")
    for recipe in project.recipes:
        if recipe.path != path and recipe.path.casefold() == path.casefold():
            raise UsageError(f"{name} and {visible(recipe.path)} differ only in case")
    return path


def _found(parts: Sequence[Part], loras: Sequence[Model], target: Target) -> list[Model]:
    """The LoRAs of the library. Raises `UsageError` for files that are none, or not as a whole."""
    by_id = {lora.id: lora for lora in loras}
    missing = [part for part in parts if part.id not in by_id]
    if missing:
        place = target.library_place.folder if isinstance(target, HasLibrary) else target.key
        names = listed([visible(str(part.file.path)) for part in missing], most=5)
        reasons = (target.rejected.get(part.file.path.stem, "") for part in missing)
        why = "".join(f" ({visible(reason)})" for reason in reasons if reason)
        raise UsageError(
            f"not in the library {visible(place)}: {names}{why}",
            hint="a recipe names LoRAs of the library: copy the files there, or set"
            " COMPOSE_LIBRARY to the folder that has them",
        )
    skipped = [part for part in parts if part.file.skipped]
    if skipped:
        raise UsageError(
            f"{visible(str(skipped[0].file.path))} was merged without its text encoder's"
            f" {counted(skipped[0].file.skipped, 'tensor')}, and a recipe composes LoRAs whole",
            hint="write that LoRA alone with --skip-text-encoder into the library, and merge that",
        )
    return [by_id[part.id] for part in parts]


def _concepts(
    parts: Sequence[Part], found: Sequence[Model], loras: Sequence[Model]
) -> tuple[ConceptRef, ...]:
    refs = LoraRefs(loras)
    for part in parts:
        if rounded(part.scale) != part.scale:
            raise UsageError(
                f"{visible(str(part.file.path))}: the scale {part.scale} has more than 4 decimals",
                hint="a recipe's scales have at most 4: round it",
            )
    return tuple(refs.ref(lora, part.scale) for lora, part in zip(found, parts, strict=True))


def _training(merged: Merged) -> Parameters:
    options = merged.options
    return parameters({"rank": options.rank, "precision": options.precision})
