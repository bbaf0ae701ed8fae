"""Recipes of ComfyUI workflows: what their loaders load, as LoRAs of the target at a scale.

A recipe has one scale for each LoRA, and LoRAs that the target has. What it can't say is a problem
of that mix, named with its node, and no recipe is written for it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import InvalidInput, UsageError
from composer.files.delivery import check_input_link
from composer.files.repository import NotRegularError, read_inside
from composer.lora import families
from composer.lora.ids import lora_id
from composer.model import (
    MAX_CONCEPTS,
    ConceptRef,
    Imported,
    ImportedLora,
    Recipe,
    scale_limits,
)
from composer.project.recipe_files import LoraRefs, RecipeFiles, recipe_name, types_of
from composer.recipes.comfyui import NotAWorkflow, read
from composer.recipes.comfyui.matching import match
from composer.targets.base import LooksIntoLoras
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from composer.model import Model, ModelTypes
    from composer.project.project import Project
    from composer.recipes.comfyui import LoraUse, Mix, Workflow
    from composer.targets.base import Target

MAX_BYTES = 128 * 1024 * 1024  # of an image; a workflow in JSON has a smaller limit
_DECIMALS = 4  # of a scale
_LONGEST_NAME = 64


def import_workflows(
    project: Project, target: Target, files: Sequence[Path], *, name: str | None, dry_run: bool
) -> list[Imported]:
    """See `Project.import_workflows`."""
    if name is not None and len(files) > 1:
        raise UsageError("a name is for one workflow", hint="import them one by one")
    workflows = [(file, _read(file)) for file in files]  # a broken one stops all
    recipes, library = RecipeFiles(project, dry_run=dry_run), _Library(target)
    return [
        imported
        for file, workflow in workflows
        for imported in _import(
            str(file), workflow, name or _name(workflow, file), recipes, library
        )
    ]


def _import(
    file: str, workflow: Workflow, name: str, recipes: RecipeFiles, library: _Library
) -> Iterator[Imported]:
    """A result for each mix; the notes on the whole workflow are those of the first."""
    if not workflow.mixes:
        reason = "no node in it loads a LoRA"
        yield Imported(name=name, file=file, problems=(reason,), notes=workflow.notes)
    for n, mix in enumerate(workflow.mixes, start=1):
        matched = _Matched(mix, library)
        numbered = name if n == 1 else f"{name[: _LONGEST_NAME - 4].strip()} {n}"
        path, problems = "", (*mix.problems, *matched.problems)
        if not problems:
            path, problems = _write(matched, numbered, recipes)
        notes = (*(workflow.notes if n == 1 else ()), *matched.notes)
        yield Imported(
            name=numbered,
            path=path,
            file=file,
            loras=tuple(matched.loras),
            problems=problems,
            notes=notes,
        )


def _write(matched: _Matched, name: str, recipes: RecipeFiles) -> tuple[str, tuple[str, ...]]:
    """The path of the recipe, or why there is none."""
    if other := recipes.other(name):
        return "", (f"another recipe is named {visible(name)}: {other}; choose a name with --name",)
    path = recipes.free_path(name)
    try:
        recipes.add(Recipe(path=path, name=name, concepts=matched.concepts, types=matched.types))
    except ValueError as why:
        return "", (str(why),)
    return path, ()


# --- the file ----------------------------------------------------------------------------


def _read(file: Path) -> Workflow:
    """Raises `InvalidInput` for what is no workflow, `UsageError` for one that is not there."""
    shown = visible(str(file))
    check_input_link(file)
    try:
        real = Path(os.path.realpath(file))
        data = read_inside(real, real.parent, limit=MAX_BYTES)
        if len(data) > MAX_BYTES:
            raise NotAWorkflow(f"it has more than {MAX_BYTES:,} bytes")
        return read(data)
    except NotAWorkflow as why:
        raise InvalidInput(
            f"{shown} can't be imported: {why}",
            hint="save the workflow in ComfyUI (Workflow > Save, or Export (API)), or name an image"
            " that ComfyUI saved",
        ) from None
    except (FileNotFoundError, NotRegularError) as error:
        state = "is not a file" if isinstance(error, NotRegularError) else "does not exist"
        raise UsageError(f"{shown} {state}", hint="name a workflow or an image") from None
    except OSError as error:
        raise InvalidInput(f"{shown} can't be read: {error.strerror or error}") from None


def _name(workflow: Workflow, file: Path) -> str:
    """A recipe's name: the title, else the file's."""
    return recipe_name(workflow.title, file.stem.removesuffix(".recipe"), "workflow")


# --- the LoRAs ---------------------------------------------------------------------------


class _Library:
    """The LoRAs of a target, and what a recipe calls them."""

    def __init__(self, target: Target) -> None:
        self.loras = target.list_models(*families.lora_types())
        self.rejected, self.unsupported = target.rejected, target.unsupported
        self._target = target
        self.ref = LoraRefs(self.loras).ref

    def match(self, use: LoraUse) -> Model:
        """Raises `LookupError` with words."""
        return match(use, self.loras, self.rejected, id=_id_of(use.sha256))

    def changes_text_encoder(self, lora: Model) -> bool | None:
        """None where the target doesn't say."""
        if isinstance(self._target, LooksIntoLoras):
            return self._target.changes_text_encoder(lora.id)
        return None


def _id_of(sha256: str) -> str | None:
    """The id of a file of the local library with this sha256."""
    try:
        digest = bytes.fromhex(sha256)
    except ValueError:
        return None
    return lora_id(digest) if len(digest) == 32 else None


class _Matched:
    """A mix with the target's LoRAs: concepts, or problems."""

    def __init__(self, mix: Mix, library: _Library) -> None:
        self._library = library
        self.loras: list[ImportedLora] = []
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._models: list[Model] = []
        for use in mix.uses:
            try:
                self._take(use)
            except (LookupError, ValueError) as why:
                self.problems.append(f"{use.place}: {why.args[0]}")
        self._check_all(mix)

    @property
    def concepts(self) -> tuple[ConceptRef, ...]:
        pairs = zip(self._models, self.loras, strict=True)
        return tuple(self._library.ref(model, lora.scale) for model, lora in pairs)

    @property
    def types(self) -> ModelTypes:
        return types_of(self._models[0])

    def _take(self, use: LoraUse) -> None:
        """Raises `LookupError` or `ValueError` with words."""
        scale = round(use.strength, _DECIMALS) + 0.0
        model = self._library.match(use)
        self._check_hash(use, model)
        self._check_clip(use, model, scale)
        low, high = scale_limits(self._library.unsupported)
        if not low <= scale <= high:
            raise ValueError(
                f"its strength {use.strength:g} is not within {low}..{high}, as scales are"
            )
        if scale == 0:
            self.notes.append(f"{use.place} has the strength 0: left out")
            return
        if abs(scale - use.strength) > 1e-9:
            self.notes.append(f"{use.place}: its strength {use.strength:g} is rounded to {scale:g}")
        earlier = [lora for lora in self.loras if lora.id == model.id]
        if earlier:
            total = round(earlier[0].scale + scale, _DECIMALS)
            raise ValueError(
                f"it is the same LoRA as in {earlier[0].source}; a recipe names each one once"
                f" (both together are {total:g})"
            )
        self.loras.append(ImportedLora(model.id, model.name, scale, use.place))
        self._models.append(model)

    def _check_hash(self, use: LoraUse, model: Model) -> None:
        wanted = _id_of(use.sha256)
        if wanted and model.files and wanted != model.id:
            self.notes.append(
                f"{use.place}: {model.files[0]} has other bytes than the workflow's LoRA"
            )

    def _check_clip(self, use: LoraUse, model: Model, scale: float) -> None:
        """Raises `ValueError` unless model and text encoder are changed equally, or one alone."""
        if use.clip == use.strength:
            return
        changes = self._library.changes_text_encoder(model)
        if use.clip == 0 and changes:
            raise ValueError(
                "it is loaded for the model alone, and changes a text encoder too; a recipe has one"
                " scale for both"
            )
        if use.clip != 0 and changes is not False:
            raise ValueError(
                f"it has a CLIP strength of its own ({use.clip:g}; the model's is"
                f" {use.strength:g}); a recipe has one scale for both"
            )
        if use.clip != 0:
            self.notes.append(
                f"{use.place}: its CLIP strength {use.clip:g} has no effect, as it changes no text"
                " encoder"
            )

    def _check_all(self, mix: Mix) -> None:
        if len(mix.uses) > MAX_CONCEPTS:
            names = ", ".join(visible(use.file) for use in mix.uses)
            self.problems.append(
                f"it loads {len(mix.uses)} LoRAs, and a recipe has at most {MAX_CONCEPTS}: {names}"
            )
        if len(kinds := sorted({model.type for model in self._models})) > 1:
            self.problems.append(f"its LoRAs are for several base models: {', '.join(kinds)}")
        if not (self.loras or self.problems or mix.problems):
            self.problems.append("no LoRA of it has a strength other than 0")
