"""Reads a project's recipe files: each for itself, and then what they must keep between them.

Every problem of every file is found at once; a caller that gets one stops. A recipe may come from a
stranger's branch, so only a regular, small file inside the project is opened: no link that leads
out of it, no pipe and no device.
"""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.errors import InvalidInput, Problem
from composer.files.repository import NotRegularError, read_inside
from composer.recipes.discovery import below, real, relative
from composer.recipes.nodes import quoted
from composer.recipes.parsing import MAX_BYTES, Parsed, parse, too_large
from composer.text import UNSAFE, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from composer.model import ModelTypes, Recipe


@dataclass(frozen=True, slots=True)
class Loaded:
    """Recipes by path, and problems by place."""

    recipes: tuple[Recipe, ...]
    problems: tuple[Problem, ...]


def load(files: Iterable[Path], *, root: Path, types: Sequence[ModelTypes]) -> Loaded:
    """The recipes of these files, and everything that is wrong with them.

    A file's path in the result is relative to `root`, with `/`. A file that is given twice is
    read once. `types` are what a recipe's `type` may be, the default first.
    """
    parsed: dict[str, Parsed] = {}
    for path in files:
        name = relative(path, root) or path.as_posix()
        if name not in parsed:
            parsed[name] = _parsed(path, visible(name), root, types)
    problems = [problem for one in parsed.values() for problem in one.problems]
    problems += (*_same_path(parsed), *_same_name(parsed))
    recipes = (parsed[name].recipe for name in sorted(parsed))
    return Loaded(tuple(recipe for recipe in recipes if recipe), tuple(sorted(set(problems))))


def _parsed(path: Path, name: str, root: Path, types: Sequence[ModelTypes]) -> Parsed:
    try:
        return parse(_read(path, root), file=name, types=types)
    except _Refusal as refusal:
        return Parsed((_problem(name, refusal),))


def _problem(file: str, refusal: _Refusal) -> Problem:
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


# --- opening a file ----------------------------------------------------------------------


class _Refusal(InvalidInput):
    """Why a file is not read: a problem without its place."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.problem = (code, message, hint)


def _read(file: Path, root: Path) -> bytes:
    """The bytes of a recipe file; _Refusal if it may not be read or can't be."""
    path = relative(file, root)
    if path is None or below(real(file), real(root)) is None:
        how = "is not inside" if path is None else "is a link that leads out of"
        hint = "a recipe must be inside its project; copy the file there"
        raise _Refusal("E303", f"the file {how} {visible(str(root))}", hint)
    if UNSAFE.search(path) or "\\" in path or path[1:2] == ":":  # c:x is a drive on Windows
        message = "the file's path contains a control character, a backslash or a drive letter"
        raise _Refusal("E304", message, "rename it")
    try:
        data = read_inside(file, root, limit=MAX_BYTES)
    except NotRegularError as error:
        hint = "a recipe must be a plain text file"
        raise _Refusal("E301", "this is not a regular file", hint) from error
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise _Refusal("E301", f"the file can't be read: {why}", "") from error
    if len(data) > MAX_BYTES:
        raise _Refusal("E302", *too_large(max(len(data), os.stat(file).st_size)))
    return data
