"""The kind `local`: how the target on this machine is opened, and where its LoRA files lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.targets.kind import TargetKind
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from composer.targets.kind import OpenRequest
    from composer.targets.local.service import Engine

LIBRARY = "COMPOSE_LIBRARY"
_RECIPES, _LORAS = "recipes", "loras"


def open_engine(request: OpenRequest) -> Engine:
    """The local target. Raises `UsageError` if its packages aren't installed."""
    try:
        from composer.targets.local.service import Engine
    except ModuleNotFoundError as missing:
        raise UsageError(
            f"the local target needs {missing.name}", hint="pip install 'lora-compose[local]'"
        ) from missing
    context = request.context
    library = find_library(
        context.root, context.recipe_paths, given=request.options.library, env=request.env
    )
    state = context.state_folder(request.run_jobs)
    return Engine(state, library, run_jobs=request.run_jobs)


def find_library(
    root: Path, recipe_paths: Collection[str], *, given: Path | None, env: Mapping[str, str]
) -> Path:
    """The folder of LoRA files: the given one, else that of the environment, else the nearest
    `loras/` upward from each recipe (without recipes, from `recipes/`), else `recipes/loras/`.

    A repository may come from a stranger: its `loras/` counts only if it lies within `root`.
    Raises `UsageError` if the recipes have two different ones, or the given one doesn't exist.
    """
    named = given or (Path(env[LIBRARY]) if env.get(LIBRARY) else None)
    if named is not None:
        if not named.is_dir():
            raise UsageError(
                f"the library {visible(str(named))} does not exist",
                hint=f"check --library or {LIBRARY}",
            )
        return named
    starts = {(root / path).parent for path in recipe_paths} or {root / _RECIPES}
    folders = sorted({folder for start in starts if (folder := _nearest(root, start))})
    if len(folders) > 1:
        raise UsageError(
            f"the recipes have two libraries: {folders[0]} and {folders[1]}",
            hint="choose one: --library DIR",
        )
    if folders:
        return folders[0]
    default = root / _RECIPES / _LORAS
    if default.exists():  # and isn't within the root
        raise UsageError(
            f"the library {default} leads out of the project", hint="choose it: --library DIR"
        )
    return default


def _nearest(root: Path, start: Path) -> Path | None:
    """The nearest `loras/` within the root, from this folder upward."""
    for folder in (start, *start.parents):
        library = folder / _LORAS
        if library.is_dir() and library.resolve().is_relative_to(root.resolve()):
            return library
        if folder == root:
            break
    return None


def _usage(key: str, id: str, state: Path) -> str:
    path = visible(str(state / "models" / f"{id}.safetensors"))
    return f"# with diffusers:\npipe.load_lora_weights({json.dumps(path, ensure_ascii=False)})"


KIND = TargetKind(name="local", open=open_engine, settings=(LIBRARY,), usage=_usage)
