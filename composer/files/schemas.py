"""The JSON Schemas that compose ships: in the wheel they lie inside the package, in a source tree
beside it. `compose schema` prints one, and recipes are validated with one.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import UsageError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


def schema(name: str) -> str:
    """The text of a shipped schema, such as `recipe`. Raises `UsageError` if there is none."""
    installed: Traversable = files("composer").joinpath("schemas")
    source: Traversable = Path(__file__).resolve().parents[2] / "schemas"
    for folder in (installed, source):
        files_there = {file.name: file for file in folder.iterdir()} if folder.is_dir() else {}
        if file := files_there.get(f"{name}.schema.json"):
            return file.read_text(encoding="utf-8")
    raise UsageError(f"there is no schema {name!r}", hint="compose schema recipe")
