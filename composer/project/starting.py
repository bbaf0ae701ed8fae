"""A new project: its first recipe, its library, and the files beside them."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import ComposeError, UsageError
from composer.files.repository import home_directory, is_inside
from composer.files.state import remember_library, remembered_library, why_unwritable
from composer.lora import families
from composer.model import (
    CREATED,
    KEPT,
    LEFT,
    Concept,
    Content,
    Recipe,
    Setup,
    SetupStep,
)
from composer.project.planning import Inspecting
from composer.project.recipe_files import LoraRefs, RecipeFiles, types_of
from composer.project.scaffold import SCHEMA, Scaffold, common_files
from composer.recipes import slug
from composer.text import RECIPES_FOLDER, SETTINGS_NAME, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.model import Model
    from composer.project.project import Project
    from composer.targets.base import Target

FIRST_NAME = "First Mix"
_SCALES = (0.8, 0.6)
_MOST_LISTED = 40  # LoRAs that the first recipe names in its comment
_MOST_SEARCHED = 200  # folders, for LoRAs that are not in the library
_MOST_TRIED = 20  # LoRAs that may go with the first one


def check_place(root: Path) -> None:
    """Raise `UsageError` or `ComposeError` for a folder that no project should or can be in."""
    home = home_directory()
    if root.parent == root or (home and os.path.realpath(home) == os.path.realpath(root)):
        raise UsageError(
            f"{visible(str(root))} is not a folder for a project",
            hint="create one and run it there: mkdir mixes && cd mixes && compose init",
        )
    recipes = root / RECIPES_FOLDER
    if recipes.exists() and not recipes.is_dir():
        raise UsageError(
            f"{visible(str(recipes))} is a file, but the recipes' folder has this name",
            hint="rename the file, then run compose init again",
        )
    if why := why_unwritable(root):
        raise ComposeError(
            f"the folder {visible(str(root))} can't be written: {why}",
            hint="run compose init in a folder of your own",
        )


def start(
    project: Project,
    target: Target,
    library: Path | None,
    workflow: str | None,
    *,
    dry_run: bool,
) -> Setup:
    """See `Project.init`."""
    project.check_init(library)
    models = target.list_models(*families.lora_types())
    scaffold = Scaffold(project.root, dry_run=dry_run)
    steps = [_library(project, scaffold, library, dry_run=dry_run)] if library else []
    recipe = _first_recipe(project, target, models, dry_run=dry_run)
    steps += [recipe, *common_files(scaffold, workflow, remote=target.remote)]
    return Setup(
        root=str(project.root),
        steps=tuple(steps),
        loras=len(models),
        has_recipes=recipe.state in (CREATED, KEPT),
        library=str(library or ""),
        rejected=dict(target.rejected),
        nearby="" if models or library or target.remote else _nearby(),
    )


def _nearby() -> str:
    """The working directory, if LoRA files lie in it, else the first folder in it that has some."""
    here = Path.cwd()
    with suppress(OSError):
        folders = sorted(one for one in here.iterdir() if one.is_dir() and one.name[0] != ".")
        for folder in (here, *folders[:_MOST_SEARCHED]):
            if any(folder.glob("*.safetensors")):
                return str(folder.relative_to(here))
    return ""


# --- the library -------------------------------------------------------------------------


def check_library(project: Project, library: Path) -> None:
    """Raise `UsageError` where compose.toml names another folder inside the project."""
    named = project.settings.library
    place = _inside(project, library)
    if place is not None and named is not None and _differ(project.root / named, library):
        raise UsageError(
            f"{SETTINGS_NAME} has the library {visible(named)}, not {visible(place)}",
            hint=f"to change it, write library = {json.dumps(place)} there",
        )


def _differ(one: Path, other: Path) -> bool:
    return os.path.realpath(one) != os.path.realpath(other)


def _inside(project: Project, library: Path) -> str | None:
    """The library's path below the root, with `/`; None if it is outside."""
    if not is_inside(library, project.root):
        return None
    root = os.path.realpath(project.root)
    return os.path.relpath(os.path.realpath(library), root).replace(os.sep, "/")


def _library(project: Project, scaffold: Scaffold, library: Path, *, dry_run: bool) -> SetupStep:
    """Inside the project it goes into compose.toml; a folder outside, this machine remembers."""
    place = _inside(project, library)
    if place is None:
        plain = library.resolve() if ".." in library.parts else library.absolute()
        return _remembered(project, plain, dry_run=dry_run)
    if not dry_run and project.state.is_dir():
        remember_library(project.state, None)  # it would come first
    if project.settings.library is not None:
        return SetupStep(SETTINGS_NAME, KEPT)
    # In front: behind a table it would be a key of that table.
    line = f"library = {json.dumps(place, ensure_ascii=False)}\n"
    return scaffold.merge(SETTINGS_NAME, lambda text: line + (text or "").removeprefix("\ufeff"))


def _remembered(project: Project, library: Path, *, dry_run: bool) -> SetupStep:
    before = remembered_library(project.state)
    note = f"on this machine only; was {visible(str(before))}" if before else "on this machine only"
    if before == library:
        return SetupStep(f"library {library}", KEPT, "on this machine only")
    if not dry_run:
        remember_library(project.prepare_state(), library)
    return SetupStep(f"library {library}", CREATED, note)


# --- the first recipe --------------------------------------------------------------------


def _first_recipe(
    project: Project, target: Target, models: Sequence[Model], *, dry_run: bool
) -> SetupStep:
    """A recipe of the first two LoRAs that can be mixed, where there is no recipe at all."""
    if project.recipes:
        return SetupStep(f"{RECIPES_FOLDER}/", KEPT)
    files = RecipeFiles(project, dry_run=dry_run)
    mixed = _mixed(target, sorted(models, key=lambda one: (one.name.casefold(), one.id)))
    if not mixed:
        why = "it can't be written yet: there is no LoRA to name in it"
        return SetupStep(f"{RECIPES_FOLDER}/{slug(FIRST_NAME)}.yaml", LEFT, why)
    path, refs = files.free_path(FIRST_NAME), LoraRefs(models)
    concepts = tuple(refs.ref(one, scale) for one, scale in zip(mixed, _SCALES, strict=False))
    recipe = Recipe(path=path, name=FIRST_NAME, concepts=concepts, types=types_of(mixed[0]))
    files.add(recipe, head=_HEAD, tail=_others(models, mixed))
    return SetupStep(path, CREATED)


_HEAD = f"""\
# yaml-language-server: $schema=../{SCHEMA}
# A first mix. Change names and scales as you like: compose plan shows what that means.
"""


def _mixed(target: Target, models: Sequence[Model]) -> list[Model]:
    """The first of the LoRAs, and the next one that can be composed with it."""
    if not models:
        return []
    first, *others = models
    alike = [one for one in others if one.type == first.type][:_MOST_TRIED]
    mixes = {
        other.id: Content("", (Concept(first.id, 1.0), Concept(other.id, 1.0))) for other in alike
    }
    unfit = target.unfit(mixes) if isinstance(target, Inspecting) else {}
    return [first, *(one for one in alike if one.id not in unfit)][:2]


def _others(models: Sequence[Model], mixed: Sequence[Model]) -> str:
    """A comment with the names of the other LoRAs, to be copied from."""
    taken = {one.id for one in mixed}
    names = sorted((visible(m.name) for m in models if m.id not in taken), key=str.casefold)
    if not names:
        return ""
    shown = [f"#   {name}" for name in names[:_MOST_LISTED]]
    more = len(names) - len(shown)
    shown += [f"#   and {more} more: compose models lists them"] if more else []
    return "\n".join(["# The other LoRAs:", *shown, ""])
