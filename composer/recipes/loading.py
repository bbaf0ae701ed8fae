"""Reads a project's recipe files: each for itself, and then what they must keep between them.

Every problem of every file is found at once; a caller that gets one stops.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.errors import Problem
from composer.recipes.files import Refusal, read, relative
from composer.recipes.nodes import quoted
from composer.recipes.parsing import Parsed, parse
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from composer.model import Recipe


@dataclass(frozen=True, slots=True)
class Loaded:
    """Recipes by path, and problems by place."""

    recipes: tuple[Recipe, ...]
    problems: tuple[Problem, ...]


def load(files: Iterable[Path], *, root: Path) -> Loaded:
    """The recipes of these files, and everything that is wrong with them.

    A file's path in the result is relative to `root`, with `/`. A file that is given twice is
    read once.
    """
    parsed: dict[str, Parsed] = {}
    for path in files:
        name = relative(path, root) or path.as_posix()
        if name not in parsed:
            parsed[name] = _parsed(path, visible(name), root)
    problems = [problem for one in parsed.values() for problem in one.problems]
    problems += (*_same_path(parsed), *_same_name(parsed))
    recipes = (parsed[name].recipe for name in sorted(parsed))
    return Loaded(tuple(recipe for recipe in recipes if recipe), tuple(sorted(set(problems))))


def _parsed(path: Path, name: str, root: Path) -> Parsed:
    try:
        return parse(read(path, root), file=name)
    except Refusal as refusal:
        return Parsed((_problem(name, refusal),))


def _problem(file: str, refusal: Refusal) -> Problem:
    return Problem(file, 0, 0, *refusal.problem)


def _same_path(parsed: Mapping[str, Parsed]) -> Iterator[Problem]:
    """Files that are one file on Windows and macOS."""
    first: dict[str, str] = {}
    for name in sorted(parsed):
        folded = unicodedata.normalize("NFC", name.casefold())
        if folded in first:
            message = f"differs from {visible(first[folded])} only in upper and lower case"
            hint = "rename one of them: on Windows and macOS they are the same file"
            yield Problem(visible(name), 0, 0, "E305", message, hint)
        first.setdefault(folded, name)


def _same_name(parsed: Mapping[str, Parsed]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for path in sorted(parsed):
        name, place = parsed[path].name, parsed[path].name_place
        if name is None:
            continue
        here = f"{path}:{place.line}:{place.column}"
        if name in first:
            message = f"name: {quoted(name)} is already the name of {first[name]}"
            hint = "give one of them another name"
            yield Problem(path, place.line, place.column, "E306", message, hint)
        first.setdefault(name, here)
