"""Recipes that compose itself writes: a free name, a free path, LoRAs by name or by id, and a text
that reads back."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from composer.files.atomic import write_atomically
from composer.files.repository import refuse_link_out
from composer.lora import families
from composer.model import ConceptRef, ModelTypes, Recipe
from composer.recipes import parse, slug, write
from composer.text import RECIPES_FOLDER, UNSAFE, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable

    from composer.model import Model
    from composer.project.project import Project

_LONGEST_NAME = 64


def recipe_name(*texts: str) -> str:
    """The first of these that makes a recipe's name, without what a name can't have."""
    for text in (*texts, "recipe"):
        name = " ".join(UNSAFE.sub(" ", text).replace("/", " ").replace("\\", " ").split())
        if name:
            return name[:_LONGEST_NAME].strip()
    raise AssertionError("a constant is no empty name")


def types_of(lora: Model) -> ModelTypes:
    """The types of the LoRA's model family."""
    return next(types for types in families.model_types() if types.lora == lora.type)


class LoraRefs:
    """What a recipe calls the LoRAs of a target."""

    def __init__(self, loras: Iterable[Model]) -> None:
        self._labels = Counter(
            (lora.type, label)
            for lora in loras
            for label in {canonical(name) for name in (lora.name, *lora.aliases)}
        )

    def ref(self, lora: Model, scale: float) -> ConceptRef:
        """By name, where that means this LoRA alone and can stand in a recipe; else by id."""
        named, types = ConceptRef(scale, name=lora.name), types_of(lora)
        text = write(Recipe("x", "x", (named,), types), default=types).encode()
        _, problems = parse(text, file="x", types=(types,))
        is_unique = self._labels[lora.type, canonical(lora.name)] == 1
        return named if is_unique and not problems else ConceptRef(scale, model_id=lora.id)


class RecipeFiles:
    """The recipes of a project, to which others are added one by one.

    With `dry_run` nothing is written. Raises `UsageError` if `recipes/` leads out of the project.
    """

    def __init__(self, project: Project, *, dry_run: bool) -> None:
        folder = project.root / RECIPES_FOLDER
        refuse_link_out(folder, project.root, hint="replace the link with a folder")
        self._root, self._dry_run = project.root, dry_run
        self._names = {canonical(recipe.name): recipe.path for recipe in project.recipes}
        self._paths = {recipe.path.casefold() for recipe in project.recipes}

    def other(self, name: str) -> str | None:
        """The path of the recipe that has this name already."""
        return self._names.get(canonical(name))

    def free_path(self, name: str) -> str:
        """A path that no file has, made of a recipe's name."""
        stem, n = slug(name), 1
        path = f"{RECIPES_FOLDER}/{stem}.yaml"
        while path.casefold() in self._paths or os.path.lexists(self._root / path):
            n += 1
            path = f"{RECIPES_FOLDER}/{stem}-{n}.yaml"
        return path

    def add(self, recipe: Recipe, *, head: str = "", tail: str = "") -> None:
        """Write the recipe, between these lines of comment.

        Raises `ValueError` with words if a recipe can't say that.
        """
        text = f"{head}{write(recipe, default=families.default().types)}{tail}".encode()
        read, problems = parse(text, file=recipe.path, types=families.model_types())
        if problems or read is None:
            raise ValueError(f"a recipe can't describe it: {problems[0].message}")
        self._names[canonical(recipe.name)] = recipe.path
        self._paths.add(recipe.path.casefold())
        if not self._dry_run:
            file = self._root / recipe.path
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, text)
