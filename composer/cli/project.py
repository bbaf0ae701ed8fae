"""A project as a command sees it: its root, all its recipes, and which of them are meant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.errors import InvalidInput
from composer.lock import NAME as LOCK
from composer.lock import read_lock
from composer.recipes import Loaded, default_paths, discover, find_root, load, relative
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from composer.cli.options import Selection
    from composer.model import Lock, Recipe

RECIPES = "recipes"
_WHOLE_PROJECT = frozenset({"E305", "E306"})  # problems that two files make together


@dataclass(frozen=True, slots=True)
class Project:
    """`recipes` is every recipe under the root; `selected` None means all of them are meant."""

    root: Path
    lock: Lock
    recipes: tuple[Recipe, ...]
    selected: frozenset[str] | None
    files: int


def find(selection: Selection, *, may_be_empty: bool = False) -> tuple[Path, list[Path]]:
    """The root, and the recipe files that are meant.

    Raises `UsageError` where there is no recipe and no lock, unless the project may be empty.
    """
    cwd, home = Path.cwd(), Path.home()
    paths = list(selection.paths)
    if not paths and not (cwd / RECIPES).is_dir():
        root = find_root([cwd], cwd=cwd, home=home)
        # Every recipe may be gone: the lock still says what there was.
        if may_be_empty or (root / LOCK).is_file():
            return root, []
    root = find_root(paths, cwd=cwd, home=home)
    chosen = discover(
        default_paths(paths, cwd=cwd),
        root=root,
        include=selection.include,
        exclude=selection.exclude,
    )
    return root, chosen


def warn_of_markers(lock: Lock) -> None:
    """Say on stderr that the lock is of several sides, which a plan can bring together."""
    if lock.conflicted:
        click.echo(f"note: {LOCK} has git's conflict markers: compose lock --repair", err=True)


def open_project(
    selection: Selection, *, read: Callable[[Path], Lock] = read_lock, may_be_empty: bool = False
) -> Project:
    """Read lock and recipes. Raises `InvalidInput` with every problem of every file."""
    root, chosen = find(selection, may_be_empty=may_be_empty)
    lock = read(root)
    files = _whole(root, lock, chosen, selection)
    loaded = load(files, root=root)
    if loaded.problems:
        raise InvalidInput("the recipes have problems", problems=loaded.problems, files=len(files))
    narrowed = selection.paths or selection.include or selection.exclude
    selected = frozenset(relative(file, root) or "" for file in chosen) if narrowed else None
    return Project(root, lock, loaded.recipes, selected, len(chosen))


def check(selection: Selection) -> tuple[Loaded, int]:
    """The problems of the files that are meant, and how many files those are.

    Names must be unique in the whole project, so all of it is read.
    """
    root, chosen = find(selection)
    lock = read_lock(root)
    warn_of_markers(lock)
    loaded = load(_whole(root, lock, chosen, selection), root=root)
    meant = {visible(relative(file, root) or file.as_posix()) for file in chosen}
    problems = tuple(p for p in loaded.problems if p.file in meant or p.code in _WHOLE_PROJECT)
    return Loaded(loaded.recipes, problems), len(chosen)


def _whole(root: Path, lock: Lock, chosen: list[Path], selection: Selection) -> list[Path]:
    """The files of the whole root: those meant, those the lock names, and `recipes/`."""
    named = (root / path for target in lock.targets.values() for path in target.recipes)
    files = {*chosen, *(file for file in named if file.is_file())}
    if (root / RECIPES).is_dir():
        files |= set(discover([root / RECIPES], root=root, exclude=selection.exclude))
    return sorted(files)
