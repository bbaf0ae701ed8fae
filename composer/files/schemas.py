"""The JSON Schemas and CI workflows that compose ships: in the wheel they lie inside the package,
in a source tree beside it. `compose schema` prints a schema, `compose init` writes a workflow.
"""

from __future__ import annotations

from pathlib import Path

from composer.errors import UsageError

_HERE = Path(__file__).resolve()
_FOLDERS = (_HERE.parents[1] / "schemas", _HERE.parents[2] / "schemas")


def schema(name: str) -> str:
    """The text of a shipped schema, such as `recipe`. Raises `UsageError` if there is none."""
    for folder in _FOLDERS:
        files = {file.name: file for file in folder.iterdir()} if folder.is_dir() else {}
        if file := files.get(f"{name}.schema.json"):
            return file.read_text(encoding="utf-8")
    raise UsageError(f"there is no schema {name!r}", hint="compose schema recipe")


def workflow(name: str) -> str:
    """The text of a shipped workflow, such as `plan.yml` or `gitlab-ci.yml`."""
    folders = (_HERE.parents[1] / "workflows", *(_HERE.parents[2] / d for d in _WORKFLOWS))
    file = next(file for folder in folders if (file := folder / name).is_file())
    return file.read_text(encoding="utf-8")


_WORKFLOWS = ("docs/workflows", "docs")  # in a source tree
