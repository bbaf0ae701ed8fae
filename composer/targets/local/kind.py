"""The kind `local`: how the target on this machine is opened, and where its LoRA files lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import NOTE, OK, SKIPPED, WRONG, Check, ComposeError, UsageError
from composer.files.repository import is_inside
from composer.files.state import NOWHERE
from composer.lora import families
from composer.lora.metadata import trigger_phrase
from composer.recipes import slug
from composer.targets.kind import NO_DEFAULTS, REMEMBERED, OpenRequest, TargetKind, as_library
from composer.text import RECIPES_FOLDER, SETTINGS_NAME, counted, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from composer.targets.kind import CheckRequest, TargetDefaults, Trained
    from composer.targets.local.executors import Executor
    from composer.targets.local.mirror import Mirror
    from composer.targets.local.service import Engine

LIBRARY = "COMPOSE_LIBRARY"
RESULTS = "COMPOSE_RESULTS"  # where a cluster's workers bring results, on an object store
_LORAS = "loras"


def open_engine(request: OpenRequest) -> Engine:
    """The local target. Raises `UsageError` if its packages aren't installed, and for an executor
    of another name; `Unreachable` if that does not answer.
    """
    try:
        from composer.targets.local.service import Engine
    except ModuleNotFoundError as missing:
        raise UsageError(
            f"the local target needs {missing.name}", hint="pip install 'lora-compose[local]'"
        ) from missing
    context = request.context
    library = find_library(
        context.root,
        context.recipe_paths,
        given=request.options.library,
        env=request.env,
        defaults=context.defaults,
    )
    open_executor = executor_for(request.options.executor, library, request.env)
    run_jobs = request.run_jobs and not request.dry_run
    state = context.state_folder(run_jobs)
    place = open_library(library, state)
    remember = not request.dry_run
    executor = open_executor() if run_jobs else None
    return Engine(
        state, place, run_jobs=run_jobs, remember=remember, one_scan=True, executor=executor
    )


def open_library(library: Path | str, state: Path) -> Path | Mirror:
    """The folder itself, or the mirror of an object store, which all projects of a user share.

    Raises `UsageError` for another URL, and without s3fs.
    """
    if isinstance(library, Path):
        return library
    from composer.targets.local.mirror import Mirror
    from composer.targets.local.objects import Objects

    base = state if state == NOWHERE else state.parent.parent
    return Mirror(Objects(library), base / "libraries")


def executor_for(
    name: str | None, library: Path | str, env: Mapping[str, str]
) -> Callable[[], Executor | None]:
    """What opens the executor of this name, if there is one, for workers that read this library.

    A library in an object store also gets their results, unless the environment names another
    place. Raises `UsageError`.
    """
    if name is None:
        return lambda: None
    from composer.targets.local.executors import find_executor
    from composer.targets.local.objects import Objects
    from composer.targets.local.tickets import RESULTS_FOLDER

    url = "" if isinstance(library, Path) else Objects(library).url
    results = (
        Objects(env[RESULTS], what=RESULTS).url
        if env.get(RESULTS)
        else url and f"{url}/{RESULTS_FOLDER}"
    )
    return find_executor(name, library=url, results=results)


def find_library(
    root: Path,
    recipe_paths: Collection[str],
    *,
    given: Path | str | None,
    env: Mapping[str, str],
    defaults: TargetDefaults = NO_DEFAULTS,
) -> Path | str:
    """The folder of LoRA files: the given one, else that of the environment, else that of the
    project's settings, else the nearest `loras/` upward from each recipe (without recipes, from
    `recipes/`), else `recipes/loras/`.

    Only the first two may be the `s3://` URL of a folder: the settings may come from a stranger.
    A `loras/` of a repository counts only if it lies within `root`, links resolved.
    Raises `UsageError` if the recipes have two different ones, or the named one doesn't exist.
    """
    named = as_library(given) or as_library(env.get(LIBRARY))
    hint = f"check --library or {LIBRARY}"
    if named is None and defaults.library is not None:
        named, hint = defaults.library, _NAME_AGAIN[defaults.library_source]
    if named is None:
        return _library_in(root, recipe_paths)
    if isinstance(named, str):
        return named
    if not named.is_dir():
        raise UsageError(f"the library {visible(str(named))} does not exist", hint=hint)
    return named


_NAME_AGAIN = {
    SETTINGS_NAME: f"{SETTINGS_NAME} names it: create it, or correct library there",
    REMEMBERED: "this machine remembers it: compose init --library DIR changes that",
}


def _library_in(root: Path, recipe_paths: Collection[str]) -> Path:
    starts = {(root / path).parent for path in recipe_paths} or {root / RECIPES_FOLDER}
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


def _usage(composition: Trained) -> dict[str, str]:
    """What the family says, about the file in the state folder, with its LoRAs' trigger words."""
    from composer.lora.container import Source

    path = composition.state / "models" / f"{composition.id}.safetensors"
    if not path.is_file():
        raise ComposeError(
            f"the file of {visible(composition.name)} is not on this machine: {visible(str(path))}",
            hint="compose apply composes it",
        )
    with Source(path) as file:
        words = trigger_phrase(file.header.metadata)
    family = families.of_type(composition.type) or families.default()
    return family.usage(path, composition.name, slug(composition.name), words)


def _checks(request: CheckRequest) -> Iterator[Check]:
    """The LoRA files, the database, and how much space the results take."""
    if request.context is None:
        return
    opening = OpenRequest(NAME, request.context, request.options, request.env, run_jobs=False)
    try:
        with open_engine(opening) as engine:
            yield from _library_checks(engine)
            yield from _database(engine, request.used_ids(NAME))
    except UsageError as error:
        state = SKIPPED if isinstance(error.__cause__, ModuleNotFoundError) else WRONG
        yield Check("library", state, error.message, error.hint or "")
    except ComposeError as error:
        yield Check("local database", WRONG, error.message, error.hint or "")


def _library_checks(engine: Engine) -> Iterator[Check]:
    try:
        count = len(engine.list_models(*families.lora_types()))
        yield Check("library", OK, f"usable LoRAs: {count}")
        for _, why in sorted(engine.rejected.items()):
            yield Check("library", NOTE, f"not usable: {why}")
    except ComposeError as error:
        yield Check("library", WRONG, error.message, error.hint or "", error.exit_status)


def _database(engine: Engine, used: Collection[str]) -> Iterator[Check]:
    problems, unused = engine.store.problems(), engine.prune(used, dry_run=True)
    for problem in problems:
        hint = "move engine.sqlite3* out of the state folder; compose apply makes the models again"
        yield Check("local database", WRONG, f"damaged: {problem}", hint)
    if not problems:
        yield Check("local database", OK, "no damage")
    for words in engine.changed_results().values():
        hint = "if you edited a file of compose pull: delete it from models/ in the state folder"
        yield Check("local database", WRONG, words, f"{hint}, then run compose apply")
    yield Check("local database", OK, f"results: {engine.size() / 1e6:,.1f} MB")
    if unused:
        words = f"the lock doesn't name {counted(len(unused), 'local composition')}"
        hint = "compose prune --local deletes what no lock entry names"
        yield Check("local database", NOTE, words, hint)


NAME = "local"
KIND = TargetKind(NAME, open_engine, settings=(LIBRARY, RESULTS), checks=_checks, usage=_usage)
