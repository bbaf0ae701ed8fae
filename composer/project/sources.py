"""What a project is made of: root, recipe files, and the lock with its entries; and its target.

`open_target` is the one place in the Python API that reads the environment.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, NamedTuple

from composer.errors import ComposeError, UsageError
from composer.files.repository import home_directory, read_inside
from composer.lock import LOCK_NAME, read_lock
from composer.lora import families
from composer.project.settings import ReadSettings
from composer.recipes import default_paths, discover, find_root, load, relative
from composer.recipes.loading import may_exist, without_matching
from composer.recipes.parsing import MAX_BYTES, NOT_A_RECIPE
from composer.text import RECIPES_FOLDER, SETTINGS_NAME, canonical, did_you_mean, listed, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from composer.errors import Problem
    from composer.model import Entry, Lock, Recipe
    from composer.project.project import Project
    from composer.project.selection import Selection
    from composer.targets.base import Target
    from composer.targets.kind import TargetOptions
    from composer.targets.registry import Choice


def open_target(
    target: str | TargetOptions | Target | None,
    project: Project,
    *,
    env: Mapping[str, str] = os.environ,
    run_jobs: bool = True,
    dry_run: bool = False,
    parallelism: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
    on_choice: Callable[[Choice], None] = lambda choice: None,
    scanning: Callable[[float], None] = lambda share: None,
) -> Target:
    """Open a target for this project: `local`, `scenario`, another kind's name, or a base URL.

    `TargetOptions` also name the Scenario project, and the local target's LoRA files and executor.
    None chooses a target as the command line does; a `Target` of your own is returned as it is.
    Credentials and settings come from `env`, then settings from the project's `compose.toml`; the
    HTTP client also takes proxies and certificates from the process's environment. With `run_jobs`
    false the target is only read; with `dry_run` nothing at all is written, not even what it
    remembers of files. `parallelism` is the number of connections (by default that of
    `compose.toml`, else 8), `sleep` takes seconds and may raise to end a wait. `on_choice` is told
    which target is chosen, and why; `scanning`, with 0..1, how much of a library of LoRA files was
    looked through. Use the target as a context manager, or call `close()`.

    Raises `UsageError`, `InvalidInput` for files with problems, or `CredentialsError` if the target
    needs credentials that aren't set.
    """
    from composer.project.options import DEFAULT_PARALLELISM
    from composer.targets.kind import OpenRequest, TargetOptions
    from composer.targets.registry import DEFAULT, choose, with_project

    if target is not None and not isinstance(target, str | TargetOptions):
        return target
    options = target if isinstance(target, TargetOptions) else TargetOptions(target)
    context = project.target_context
    choice = choose(options, context.lock_keys, env, context.defaults)
    if options.executor and choice.kind != DEFAULT:
        raise _no_executor(choice, DEFAULT.name)
    on_choice(choice)
    return choice.kind.open(
        OpenRequest(
            choice.name,
            context,
            options,
            with_project(env, context.defaults),
            run_jobs=run_jobs,
            dry_run=dry_run,
            parallelism=parallelism or project.settings.parallelism or DEFAULT_PARALLELISM,
            sleep=sleep,
            scanning=scanning,
        )
    )


def _no_executor(choice: Choice, local: str) -> UsageError:
    return UsageError(
        f"an executor is for the target {local}, and this is {choice.key} ({choice.reason})",
        hint=f"leave out --executor, or use --target {local}",
    )


_WHOLE_PROJECT = frozenset({"E305", "E306"})  # problems that two files make together


class Sources(NamedTuple):
    """One reading of the files. `recipes` and `problems` are those of all files under the root;
    `chosen` are the recipe files that the selection means (all, if it says nothing), and `files`
    is the number of all that were read. The problems of the settings are among the others.
    """

    lock: Lock
    recipes: tuple[Recipe, ...]
    problems: tuple[Problem, ...]
    chosen: tuple[Path, ...]
    files: int


class Found(NamedTuple):
    """A project's root, its settings, and the recipe files that are meant.

    `excluded` says whether only the settings keep other files from being among them.
    """

    root: Path
    read: ReadSettings
    chosen: list[Path]
    excluded: bool = False


def find(selection: Selection, folder: Path, *, may_be_empty: bool = False) -> Found:
    """Find a project, and the recipe files that are meant, seen from this absolute folder.

    Below the root, no path means the root's `recipes/`. What the settings exclude is no recipe.
    Raises `UsageError` where the paths are of
    two projects, or where there is no recipe and no lock, unless the project may be empty.
    """
    home = home_directory()
    paths = list(selection.paths)
    if not paths and not (folder / RECIPES_FOLDER).is_dir():
        root = find_root([folder], cwd=folder, home=home)
        if (root / RECIPES_FOLDER).is_dir():
            paths = [root / RECIPES_FOLDER]
        # Every recipe may be gone: the lock still says what there was.
        elif may_be_empty or (root / LOCK_NAME).is_file():
            return Found(root, _settings(root), [])
    root = find_root(paths, cwd=folder, home=home)
    read = _settings(root)
    recipes = discover(
        default_paths(paths, cwd=folder),
        root=root,
        include=selection.include,
        exclude=selection.exclude,
    )
    chosen = without_matching(recipes, root, read.settings.exclude)
    names_settings = any(path.name == SETTINGS_NAME for path in paths)
    return Found(root, read, chosen, names_settings or len(chosen) < len(recipes))


def _settings(root: Path) -> ReadSettings:
    if not os.path.lexists(root / SETTINGS_NAME):
        return ReadSettings()
    from composer.project.settings_file import read_settings

    return read_settings(root)


def read_sources(
    found: Found, selection: Selection, read: Callable[[Path], Lock] = read_lock
) -> Sources:
    """Read the lock by `read`, and every recipe under the root. Raises `InvalidInput` for a lock
    that can't be read; problems of recipes are in the result.
    """
    root, excluded = found.root, found.read.settings.exclude
    lock = read(root)
    files = _whole_project(root, lock, found.chosen, (*selection.exclude, *excluded))
    loaded = load(files, root=root, types=families.model_types())
    meant = found.chosen if selection.names_files else without_matching(files, root, excluded)
    if selection.since is not None:
        meant = _changed(meant, root, selection.since)
    problems = (*found.read.problems, *loaded.problems)
    return Sources(lock, loaded.recipes, problems, tuple(meant), len(files))


def _changed(files: list[Path], root: Path, since: str) -> list[Path]:
    """Those of the files that git does not have in this revision as they are now."""
    from composer.files.revisions import RevisionOption, unchanged_since

    option = RevisionOption(
        "--since", "not a git revision", without_git="name recipe files instead"
    )
    inside = {path: file for file in files if (path := relative(file, root))}
    same = unchanged_since(inside, root, since, option, limit=MAX_BYTES)
    return [file for file in files if relative(file, root) not in same]


def problems_of(sources: Sources, root: Path) -> tuple[Problem, ...]:
    """The problems of the files that are meant, and those that two files make together."""
    meant = {visible(relative(file, root) or file.as_posix()) for file in sources.chosen}
    meant.add(SETTINGS_NAME)
    return tuple(p for p in sources.problems if p.file in meant or p.code in _WHOLE_PROJECT)


# The line breaks of YAML.
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# Lines that may hold what nobody should see in a log.
_SECRET = re.compile("secret|token|passw|credential|jwt|api.?key|private.?key|auth|://.*@", re.I)


def with_sources(problems: Iterable[Problem], root: Path) -> tuple[Problem, ...]:
    """The same problems, each with the line of its file that it is about, if that may be shown."""
    lines: dict[str, list[str]] = {}
    found = []
    for problem in problems:
        if problem.line and problem.code != NOT_A_RECIPE:
            if problem.file not in lines:
                lines[problem.file] = _lines_of(root / problem.file, root)
            line = "".join(lines[problem.file][problem.line - 1 : problem.line])
            problem = problem._replace(source="" if _SECRET.search(line) else line)
        found.append(problem)
    return tuple(found)


def _lines_of(file: Path, root: Path) -> list[str]:
    """The lines of a file in the project; none where it can't be read."""
    try:
        text = read_inside(file, root, limit=MAX_BYTES)
    except (ComposeError, OSError, ValueError):  # ValueError: a name that is no path
        return []
    return _BREAK.split(text.decode("utf-8-sig", "replace"))


def _whole_project(
    root: Path, lock: Lock, chosen: list[Path], exclude: tuple[str, ...]
) -> list[Path]:
    """The files of the whole root: those meant, those the lock names, and `recipes/`."""
    named = (root / path for target in lock.targets.values() for path in target.recipes)
    files = {*chosen, *(file for file in named if may_exist(file) and not os.path.isdir(file))}
    if (root / RECIPES_FOLDER).is_dir():
        files |= set(discover([root / RECIPES_FOLDER], root=root, exclude=exclude))
    return sorted(files)


# --- entries of the lock -----------------------------------------------------------------


def only_key(root: Path) -> str:
    """The lock's only target; `local` if there is no lock. Raises `UsageError` for several."""
    keys = sorted(read_lock(root).targets)
    if len(keys) > 1:
        raise UsageError(
            f"{LOCK_NAME} has several targets: {', '.join(keys)}", hint="name one of them"
        )
    return keys[0] if keys else "local"


def trained(entries: Mapping[str, Entry]) -> dict[str, str]:
    """Each entry's name and the id of its trained composition."""
    return {entry.name: entry.composition for entry in entries.values() if entry.composition}


def trained_entry(entries: Mapping[str, Entry], recipe: str) -> Entry:
    """See `Project.output`."""
    entry = entries[find_path(entries, recipe)]
    if entry.composition is None or entry.content is None:
        raise ComposeError(f"{entry.name} has no trained model yet", hint="run compose apply")
    return entry


def find_path(entries: Mapping[str, Entry], wanted: str) -> str:
    """The path of the entry with this path or name. Raises `UsageError`."""
    if (path := _path_of(wanted, entries)) is not None:
        return path
    near = did_you_mean(wanted, [*entries, *(entry.name for entry in entries.values())])
    raise UsageError(
        f"the lock has no recipe {wanted}",
        hint=f"did you mean {near}?"
        if near
        else "compose status lists the recipes; compose doctor, ids that no lock names",
    )


def find_recipe(recipes: Iterable[Recipe], wanted: str) -> Recipe:
    """The recipe with this path or name. Raises `UsageError`."""
    by_path = {recipe.path: recipe for recipe in recipes}
    if (path := _path_of(wanted, by_path)) is not None:
        return by_path[path]
    names = [*(recipe.name for recipe in by_path.values()), *by_path]
    near = did_you_mean(wanted, names)
    raise UsageError(
        f"the project has no recipe {visible(wanted)}",
        hint=f"did you mean {visible(near)}?" if near else _listed(names[: len(by_path)]),
    )


def _listed(names: list[str]) -> str:
    if not names:
        return "compose init creates a first recipe"
    return f"its recipes: {listed([visible(name) for name in names], most=5)}"


def _path_of(wanted: str, named: Mapping[str, Entry] | Mapping[str, Recipe]) -> str | None:
    """The path of what has this path or name; None if nothing has."""
    path = wanted.replace(os.sep, "/").removeprefix("./")
    for form in (str, canonical):  # an é may be one code point or two
        for recipe, one in named.items():
            if form(recipe) == form(path) or form(one.name) == form(wanted):
                return recipe
    return None
