"""Names to offer to somebody who types or edits: of recipes, and of LoRAs.

They are found quickly, and nothing is validated: no recipe is read whole, and no target is asked.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from composer.files.repository import InsideReader
from composer.recipes import relative

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.project.project import Project

_LONGEST = 4096  # bytes of a recipe in which its name is looked for
_NAME = re.compile(r"^name[ \t]*:[ \t]+(\S.*)$", re.MULTILINE)


def recipe_names(project: Project, *, seconds: float) -> list[str]:
    """The names in the lock, then those of recipe files that it doesn't name.

    Files are read for so many seconds at most. Raises `InvalidInput` for a lock that can't be read.
    """
    end = time.monotonic() + seconds
    targets = project.current_lock().targets.values()
    entries = {path: entry.name for one in targets for path, entry in one.recipes.items()}
    return sorted({*entries.values(), *_new_names(project, entries.keys(), end)})


def _new_names(project: Project, known: object, end: float) -> Iterator[str]:
    reader = InsideReader(project.root)
    for file in project.files:
        if time.monotonic() > end:
            return
        if relative(file, project.root) not in known:  # type: ignore[operator]
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
    """The names of LoRAs that the lock pins. Raises `InvalidInput` as reading it does."""
    targets = project.current_lock().targets.values()
    entries = (entry for one in targets for entry in one.recipes.values())
    return sorted({name for entry in entries for name, _ in entry.pins})
