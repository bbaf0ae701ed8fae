"""Names to offer to somebody who types or edits: of recipes, and of LoRAs.

They are found quickly, and nothing is validated: no recipe is read whole, and no target is asked.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composer.files.repository import InsideReader, read_inside
from composer.lock.document import MAX_BYTES
from composer.lora import families
from composer.recipes import parse, relative
from composer.recipes.parsing import MAX_BYTES as MAX_RECIPE
from composer.text import LOCK_NAME

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from composer.project.project import Project

_LONGEST = 4096  # bytes of a recipe in which its name is looked for
_NAME = re.compile(r"^name[ \t]*:[ \t]+(\S.*)$", re.MULTILINE)


def recipe_names(project: Project, *, seconds: float) -> list[str]:
    """The names in the lock, then those of recipe files that it doesn't name.

    Files are read for so many seconds at most.
    """
    end = time.monotonic() + seconds
    entries = dict(_entries(project.root))
    names = {name for entry in entries.values() if isinstance(name := entry.get("name"), str)}
    return sorted({*names, *_new_names(project, entries, end)})


def _entries(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of the lock, by path. To check all of a large lock would take too long here."""
    try:
        lock = json.loads(read_inside(root / LOCK_NAME, root, limit=MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return
    for target in _members(_members(lock).get("targets")).values():
        for path, entry in _members(_members(target).get("recipes")).items():
            yield path, _members(entry)


def _members(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _new_names(project: Project, known: Collection[str], end: float) -> Iterator[str]:
    reader = InsideReader(project.root)
    for file in project.files:
        if time.monotonic() > end:
            return
        if relative(file, project.root) not in known:
            with suppress(OSError):
                text = reader.read(file, limit=_LONGEST).decode("utf-8", "ignore")
                if name := name_in(text):
                    yield name


def name_in(text: str) -> str | None:
    """The name in the text of a recipe, of which the end may be missing."""
    match = _NAME.search(text)
    if match is None:
        return None
    import yaml

    try:
        name = yaml.load(match[1], getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError):
        return None
    return name if isinstance(name, str) else None


def pinned_names(project: Project) -> list[str]:
    """The names of LoRAs that the lock pins."""
    entries = (entry for _, entry in _entries(project.root))
    return sorted({name for entry in entries for name in _members(entry.get("pins"))})


def concept_labels(project: Project, recipe: str, *, seconds: float) -> list[str]:
    """What a recipe, by path or name, calls its LoRAs; empty if it has problems.

    A file of this name is looked for so many seconds at most.
    """
    end, reader = time.monotonic() + seconds, InsideReader(project.root)
    files = [Path(recipe)] if os.path.isfile(recipe) else _files_named(project, recipe, end)
    for file in files:
        text = reader.read(file, limit=MAX_RECIPE)
        found, _ = parse(text, file=recipe, types=families.model_types())
        return [ref.label for ref in found.concepts] if found else []
    return []


def _files_named(project: Project, name: str, end: float) -> Iterator[Path]:
    """The recipe file of the model of this name, by the lock or else by the files themselves."""
    for path, entry in _entries(project.root):
        if entry.get("name") == name and os.path.isfile(project.root / path):
            yield project.root / path
    reader = InsideReader(project.root)
    for file in project.files:
        if time.monotonic() > end:
            return
        with suppress(OSError):
            if name_in(reader.read(file, limit=_LONGEST).decode("utf-8", "ignore")) == name:
                yield file
