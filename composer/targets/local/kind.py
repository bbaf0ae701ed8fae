"""The kind `local`: how the target on this machine is opened, and where its LoRA files lie."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from composer.errors import NOTE, OK, SKIPPED, WRONG, Check, ComposeError, UsageError
from composer.files.library import LIBRARY, given_library, library_of, place_of
from composer.files.state import NOWHERE, note_library, noted_library
from composer.lora import families
from composer.lora.families.family import SAMPLE_PROMPT
from composer.lora.metadata import trigger_phrase
from composer.model import LibraryPlace
from composer.recipes import slug
from composer.targets.kind import NO_DEFAULTS, REMEMBERED, OpenRequest, TargetKind
from composer.text import SETTINGS_NAME, counted, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from composer.targets.kind import CheckRequest, TargetDefaults, Trained
    from composer.targets.local.executors import Executor
    from composer.targets.local.mirror import Mirror
    from composer.targets.local.service import Engine

RESULTS = "COMPOSE_RESULTS"  # where a cluster's workers bring results, on an object store


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
    opened = open_library(library, state)
    given = given_library(request.options.library, request.env)
    if isinstance(given, Path) and not request.dry_run:
        note_library(state, given)
    place = library_place(context.root, library, None if given else noted_library(state))
    remember = not request.dry_run
    executor = open_executor() if run_jobs else None
    return Engine(
        state,
        opened,
        place=place,
        run_jobs=run_jobs,
        remember=remember,
        one_scan=True,
        executor=executor,
        scanning=request.scanning,
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
    """The folder of LoRA files, as `library_of` finds it; the project's settings, which may come
    from a stranger, name a default. Raises `UsageError`."""
    default = None
    if defaults.library is not None:
        default = defaults.library, _NAME_AGAIN[defaults.library_source]
    return library_of(root, recipe_paths, given, env, default)


_NAME_AGAIN = {
    SETTINGS_NAME: f"{SETTINGS_NAME} names it: create it, or correct library there",
    REMEMBERED: "this machine remembers it: compose init --library DIR changes that",
}


def library_place(root: Path, library: Path | str, earlier: Path | None) -> LibraryPlace:
    """The library for messages, and `earlier` where that is another one."""
    same = earlier is None or os.path.realpath(earlier) == os.path.realpath(library)
    exists = isinstance(library, str) or library.is_dir()
    return LibraryPlace(place_of(library, root), exists, "" if same else str(earlier))


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
    prompt = f"{words}, {SAMPLE_PROMPT}" if words else SAMPLE_PROMPT
    values = {
        "path": json.dumps(visible(composition.file or str(path)), ensure_ascii=False),
        "prompt": json.dumps(prompt, ensure_ascii=False),
        "text": prompt,
        "stem": slug(composition.name),
        "recipe": shlex.quote(visible(composition.name)),
    }
    family = families.of_type(composition.type) or families.default()
    return {name: Template(text).substitute(values) for name, text in family.usages.items()}


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
        for why in sorted({*engine.rejected.values()}):
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
