"""Where the folder of LoRA files is: named, or in the project."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.files.repository import is_inside
from composer.text import RECIPES_FOLDER, visible

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

LIBRARY = "COMPOSE_LIBRARY"
_LORAS = "loras"


def as_library(named: str | Path | None) -> Path | str | None:
    """What names a library: the path of a folder, or a text that is the `s3://` URL of one."""
    if isinstance(named, str) and named:
        return named if named.startswith("s3://") else Path(named)
    return named or None


def given_library(given: Path | str | None, env: Mapping[str, str]) -> Path | str | None:
    """The library that the caller names, else that of the environment, if there is one."""
    return as_library(given) or as_library(env.get(LIBRARY))


def place_of(library: Path | str, root: Path) -> str:
    """A library for messages: within the project by its path in that, so that a review doesn't
    show where somebody's project lies."""
    if isinstance(library, Path) and library.is_absolute() and library.is_relative_to(root):
        return library.relative_to(root).as_posix()
    return str(library)


def library_of(
    root: Path,
    recipe_paths: Collection[str],
    given: Path | str | None,
    env: Mapping[str, str],
    default: tuple[Path, str] | None = None,
) -> Path | str:
    """The given library, else that of the environment, else `default`, else the nearest `loras/`
    upward from each recipe (without recipes, from `recipes/`), else `recipes/loras/`.

    `default` has a hint for where that does not exist. Only the first two may be the `s3://` URL of
    a folder. A `loras/` of a repository counts only if it lies within `root`, links resolved.
    Raises `UsageError` if the recipes have two different ones, or the named one doesn't exist.
    """
    named, hint = given_library(given, env), f"check --library or {LIBRARY}"
    if named is None and default is not None:
        named, hint = default
    if named is None:
        return _library_in(root, recipe_paths)
    if isinstance(named, str):
        return named
    if not named.is_dir():
        raise UsageError(f"the library {visible(str(named))} does not exist", hint=hint)
    return named


def _library_in(root: Path, recipe_paths: Collection[str]) -> Path:
    parents = {path.rpartition("/")[0] for path in recipe_paths}
    starts = {root / parent for parent in parents} or {root / RECIPES_FOLDER}
    folders = sorted({folder for start in starts if (folder := _nearest(root, start))})
    if len(folders) > 1:
        raise UsageError(
            f"the recipes have two libraries: {folders[0]} and {folders[1]}",
            hint="choose one: --library DIR",
        )
    if folders:
        return folders[0]
    default = root / RECIPES_FOLDER / _LORAS
    if not is_inside(default, root):
        raise UsageError(
            f"the library {default} leads out of the project",
            hint="to use it all the same: --library DIR",
        )
    return default


def _nearest(root: Path, start: Path) -> Path | None:
    """The nearest `loras/` within the root, from this folder upward."""
    for folder in (start, *start.parents):
        library = folder / _LORAS
        if os.path.isdir(library) and is_inside(library, root):
            return library
        if folder == root:
            break
    return None
