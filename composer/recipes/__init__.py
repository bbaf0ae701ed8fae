"""Recipes: YAML files that say which LoRAs, at which weight, make a model.

`find_root` and `discover` find them, `load` reads a project's, `parse` a single text. What can't
be a recipe is refused with its place, a code and words; nothing here asks a target anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.late import late_names
from composer.recipes.loading import (
    Loaded,
    default_paths,
    discover,
    find_root,
    load,
    parse_once,
    relative,
)
from composer.recipes.problems import CODES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.errors import Problem
    from composer.model import ModelTypes, Recipe
    from composer.recipes.writing import slug, write

__all__ = [
    "CODES",
    "Loaded",
    "default_paths",
    "discover",
    "find_root",
    "load",
    "parse",
    "relative",
    "slug",
    "write",
]

__getattr__ = late_names(__name__, {"writing": ("slug", "write")})


def parse(
    text: bytes, *, file: str, types: Sequence[ModelTypes]
) -> tuple[Recipe | None, list[Problem]]:
    """The recipe that a file's bytes say, or None and every problem of it, by place.

    `file` is its path relative to the project's root, with `/`. `types` are what its `type` may
    be, the default first. Pure: nothing is opened.
    """
    parsed = parse_once(text, file, tuple(types))
    return parsed.recipe, list(parsed.problems)
