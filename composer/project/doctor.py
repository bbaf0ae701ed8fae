"""What may be wrong with a project, this machine and a target: every finding as a value."""

from __future__ import annotations

import json
import os
import platform
import shlex
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from composer.errors import (
    NOTE,
    OK,
    SKIPPED,
    WRONG,
    Check,
    ComposeError,
    InvalidInput,
    UsageError,
)
from composer.files.delivery import MARGIN
from composer.files.git import find_git
from composer.files.repository import read_inside
from composer.files.state import (
    NOWHERE,
    SET_HINT,
    VARIABLE,
    folder_size,
    free_state_space,
    list_states,
    state_problem,
    unwritable_parts,
    why_unwritable,
)
from composer.lock import LOCK_NAME, Journal, dump, lock_text, parse, remember
from composer.lora import families
from composer.model import Lock
from composer.planner import Verb, known_ids, orphans, plan, with_recovered
from composer.previews.cells import NO_PREVIEW_SETTINGS
from composer.project.options import PLAN_DEFAULTS
from composer.project.sources import find, open_target
from composer.targets.base import Search, observe
from composer.targets.kind import REMEMBERED, CheckRequest, TargetOptions
from composer.targets.registry import VARIABLE as TARGET_VARIABLE
from composer.targets.registry import find_kind, kind_names
from composer.text import SETTINGS_NAME, counted
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from composer.model import KnownState, Model, Observed
    from composer.planner import Action, Plan
    from composer.project.project import Project
    from composer.targets.kind import TargetKind

# The extras' packages, by the names that they are imported under.
EXTRAS = {
    "local": ("numpy", "ml_dtypes", "threadpoolctl"),
    "serve": ("flask", "werkzeug", "jinja2", "waitress"),
    "preview": ("PIL", "jinja2"),
}
ENVIRONMENT, PROJECT = "environment", "project"
TARGET, ORPHANS = "lock against target", "orphans"
_MAX_ATTRIBUTES = 1024 * 1024  # bytes read of .gitattributes
_MIN_SPACE = 1_000_000  # bytes free on the disk of the state, for the journal of an apply
_MAX_LOST = 5  # state folders named in a hint


def examine(
    project: Project, options: TargetOptions, env: Mapping[str, str], *, offline: bool
) -> tuple[Check, ...]:
    """See `Project.doctor`."""
    kinds, unusable = _kinds()
    checks = [*_environment(kinds, env), *unusable]
    readable, of_project = _project(project)
    checks += of_project
    checks += _of_kinds(kinds, readable, options, env)
    if readable is not None and offline:
        checks.append(Check(TARGET, SKIPPED, "not asked: --offline"))
    elif readable is not None:
        checks += _of_target(readable, options, env)
    told: dict[str | Check, Check] = {}
    for check in checks:  # one mistake may stop several of them: it is told once
        told.setdefault(check.words if check.state == WRONG else check, check)
    return tuple(told.values())


def _kinds() -> tuple[list[TargetKind], list[Check]]:
    """The kinds of targets, and those of other distributions that can't be used."""
    kinds, unusable = [], []
    for name in kind_names():
        try:
            kinds.append(find_kind(name))
        except UsageError as error:
            unusable.append(Check(ENVIRONMENT, NOTE, error.message, error.hint or ""))
    return kinds, unusable


def _environment(kinds: list[TargetKind], env: Mapping[str, str]) -> Iterator[Check]:
    """Python, the extras, git, and which variables are set; never what they hold."""
    version = f"compose {__version__}, Python {platform.python_version()} on {platform.system()}"
    yield Check(ENVIRONMENT, OK, version)
    for extra, packages in EXTRAS.items():
        missing = [name for name in packages if find_spec(name) is None]
        if missing:
            words = f"the extra {extra} is not installed: no {', '.join(missing)}"
            yield Check(ENVIRONMENT, NOTE, words, f"pip install 'lora-compose[{extra}]'")
        else:
            yield Check(ENVIRONMENT, OK, f"the extra {extra} is installed")
    if not hasattr(yaml, "CSafeLoader"):
        yield Check(ENVIRONMENT, NOTE, "PyYAML has no libyaml: reading recipes is slow")
    if find_git(Path.cwd()) is None:
        yield Check(
            ENVIRONMENT, NOTE, "git is not installed", f"{LOCK_NAME} is meant to be committed"
        )
    else:
        yield Check(ENVIRONMENT, OK, "git is installed")
    settings = [TARGET_VARIABLE, VARIABLE, *(name for kind in kinds for name in kind.settings)]
    given = [name for name in settings if env.get(name)]
    if given:
        yield Check(ENVIRONMENT, OK, f"set: {', '.join(given)}")


def _of_kinds(
    kinds: list[TargetKind],
    project: Project | None,
    options: TargetOptions,
    env: Mapping[str, str],
) -> Iterator[Check]:
    """What each kind of target checks by itself, whichever is chosen."""
    request = _check_request(project, options, env)
    for kind in kinds:
        try:
            yield from kind.checks(request)
        except ComposeError as error:
            yield Check(f"target {kind.name}", WRONG, error.message, error.hint or "")
        except OSError as error:
            yield _of_system(f"target {kind.name}", error)


def _check_request(
    project: Project | None, options: TargetOptions, env: Mapping[str, str]
) -> CheckRequest:
    return CheckRequest(
        asked_for=options.target or env.get(TARGET_VARIABLE) or "",
        options=options,
        env=env,
        context=project.target_context if project else None,
        used_ids=lambda key: known_ids(_remembered(project, key)) if project else frozenset(),
    )


def _of_system(section: str, error: OSError) -> Check:
    words = f"{error.filename or 'a file'}: {error.strerror or error}"
    return Check(section, WRONG, words, "check its permissions and its disk")


def _remembered(project: Project, key: str) -> KnownState:
    return remember(project.root, key, project.state)


# --- the project -------------------------------------------------------------------------


def _project(project: Project) -> tuple[Project | None, list[Check]]:
    """The project as far as it can be read, None without a lock that can be read; its checks."""
    root = project.root
    try:
        find(project.selection, root)
    except UsageError as error:
        return None, [Check(PROJECT, WRONG, error.message, error.hint or "")]
    checks = [Check(PROJECT, OK, f"root: {root}")]
    if why := why_unwritable(root):
        words = f"the project can't be written: {why}"
        checks.append(Check(PROJECT, WRONG, words, f"compose apply writes {LOCK_NAME} there"))
    lock, of_lock = _lock(project)
    checks += [*of_lock, *_state(project, lock), *_journal(project), *_git(root)]
    checks += _settings(project)
    if lock is None:
        return None, checks
    problems = project.validate()
    for problem in problems:
        place = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
        words = f"{place} {problem.code} {problem.message}"
        checks.append(Check(PROJECT, WRONG, words, problem.hint))
    if not problems:
        checks.append(Check(PROJECT, OK, f"recipes: {len(project.recipes)}, all valid"))
    wrong_settings = any(problem.file == SETTINGS_NAME for problem in problems)
    return None if wrong_settings else project.without_broken_recipes(), checks


def _settings(project: Project) -> Iterator[Check]:
    """What compose.toml says, in one line; its problems are told with those of the recipes."""
    with suppress(InvalidInput):
        settings = project.settings
        given = {name: value for name, value in settings._asdict().items() if value}
        previews = given.pop("previews")
        told = [f"{name} = {json.dumps(value)}" for name, value in given.items()]
        if previews != NO_PREVIEW_SETTINGS:
            told.append(f"[previews] with {counted(len(settings.previews.prompts), 'prompt')}")
        said = ", ".join(told)
        if (project.root / SETTINGS_NAME).exists():
            yield Check(PROJECT, OK, f"{SETTINGS_NAME}: {said or 'empty'}")
        library = project.target_defaults
        if library.library_source == REMEMBERED:
            yield Check(PROJECT, OK, f"library: {library.library}, {REMEMBERED}")


def _lock(project: Project) -> tuple[Lock | None, list[Check]]:
    """The lock, None if it can't be read."""
    try:
        text = lock_text(project.root)
        if text is None:
            return Lock(), [Check(PROJECT, NOTE, f"there is no {LOCK_NAME} yet", "compose apply")]
        lock = project.lockfile
    except InvalidInput as error:
        return None, [Check(PROJECT, WRONG, error.message, error.hint or "")]
    count = counted(sum(len(target.recipes) for target in lock.targets.values()), "entry")
    checks = [
        Check(PROJECT, OK, f"{LOCK_NAME}: {count} for {counted(len(lock.targets), 'target')}")
    ]
    if text.replace("\r\n", "\n") != dump(parse(text)):
        words = f"{LOCK_NAME} is not in the form that compose writes: it was edited or merged"
        checks.append(Check(PROJECT, NOTE, words, "compose lock --repair"))
    return lock, checks


def _state(project: Project, lock: Lock | None) -> Iterator[Check]:
    """The state folder and its size, an unused `.compose/`, and the states of lost projects."""
    try:
        state = project.state
        lost = [other for other in list_states(project.state_settings) if other.is_orphan]
    except ComposeError as error:
        yield Check(PROJECT, WRONG, error.message, error.hint or "")
        return
    yield from _state_folder(state, lock)
    if os.path.lexists(project.root / ".compose"):
        words = ".compose/ in the project is ignored: the state is kept elsewhere"
        yield Check(PROJECT, NOTE, words, "delete it, and remove it from git")
    if lost:
        size = sum(state.size for state in lost)
        words = f"{counted(len(lost), 'state folder')} of lost projects: {size / 1e6:,.1f} MB"
        paths = ", ".join(str(state.path) for state in lost[:_MAX_LOST])
        more = f", and {len(lost) - _MAX_LOST} more" if len(lost) > _MAX_LOST else ""
        yield Check(PROJECT, NOTE, words, f"delete what you don't need: {paths}{more}")


def _state_folder(state: Path, lock: Lock | None) -> Iterator[Check]:
    """Whether an apply can keep its state: it needs that for every target."""
    if state == NOWHERE:
        words = "there is no home directory to keep the state in"
        yield Check(PROJECT, WRONG, words, SET_HINT)
        return
    if problem := state_problem(state):
        yield Check(PROJECT, WRONG, f"the state folder {state} {problem}", SET_HINT)
        return
    size = f"{folder_size(state) / 1e6:,.1f} MB" if state.exists() else "not created yet"
    yield Check(PROJECT, OK, f"state: {state}, {size}")
    for part in unwritable_parts(state):
        yield Check(PROJECT, WRONG, f"the state can't be written: {part}", "check its permissions")
    is_local = lock is None or not lock.targets or "local" in lock.targets
    free, needed = free_state_space(state), MARGIN if is_local else _MIN_SPACE
    if free < needed:
        words = f"the disk of the state folder {state} has {free / 1e6:,.1f} MB free"
        words += f"; apply needs {needed / 1e6:,.0f} MB" + " beside each result" * is_local
        yield Check(PROJECT, WRONG, words, f"free some space, or {SET_HINT}")


def _journal(project: Project) -> Iterator[Check]:
    try:
        events = len(Journal(project.state).read())
    except ComposeError as error:
        yield Check(PROJECT, WRONG, error.message, error.hint or "")
        return
    if events:
        words = f"a run was interrupted: its journal has {counted(events, 'event')}"
        yield Check(PROJECT, NOTE, words, "compose apply continues from there")


def _git(root: Path) -> Iterator[Check]:
    if not (root / ".git").exists():
        yield Check(PROJECT, NOTE, "no git repository", f"{LOCK_NAME} is meant to be committed")
        return
    if _line_ends(root):
        yield Check(PROJECT, OK, f".gitattributes sets the line ends of {LOCK_NAME}")
    else:
        words = f".gitattributes doesn't set the line ends of {LOCK_NAME}"
        yield Check(PROJECT, NOTE, words, f"add the line: {LOCK_NAME} text eol=lf")


def _line_ends(root: Path) -> bool:
    try:
        data = read_inside(root / ".gitattributes", root, limit=_MAX_ATTRIBUTES)
        lines = data.decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    words = [line.split() for line in lines]
    return any(parts[:1] == [LOCK_NAME] and "eol=lf" in parts for parts in words)


# --- the target --------------------------------------------------------------------------


def _of_target(project: Project, options: TargetOptions, env: Mapping[str, str]) -> list[Check]:
    """What the chosen target says of the lock. An error is a finding, not an end."""
    try:
        with open_target(options, project, env=env, run_jobs=False) as target:
            memory = _remembered(project, target.key)
            observed = observe(target, project.recipes, memory, Search(target.grace))
    except ComposeError as error:
        return [Check(TARGET, WRONG, error.message, error.hint or "", error.exit_status)]
    except OSError as error:
        return [_of_system(TARGET, error)]
    memory = with_recovered(memory, observed)
    planned = plan(project.recipes, memory, observed, project.options(PLAN_DEFAULTS))
    unnamed = _orphans(planned, memory, observed, project, options.flags)
    return [*_agreement(planned, observed), *unnamed]


def _agreement(planned: Plan, observed: Observed) -> Iterator[Check]:
    loras = sum(model.type in families.lora_types() for model in observed.models.values())
    others = counted(len(observed.models) - loras, "composition")
    yield Check(TARGET, OK, f"{planned.target} answers: {counted(loras, 'LoRA')}, {others}")
    for guard in planned.guards:
        words = f"apply would refuse: {guard.message}"
        if guard.flag is None:
            yield Check(TARGET, WRONG, words, wrong_status=guard.error.exit_status)
        else:
            yield Check(TARGET, NOTE, words, f"allow it with {guard.flag}")
    for action in planned.actions:
        yield from _disagreement(action)
    if planned.changes:
        words = f"waiting to be applied: {counted(len(planned.changes), 'change')}"
        yield Check(TARGET, NOTE, words, "compose plan shows it")


def _disagreement(action: Action) -> Iterator[Check]:
    where = f"{action.name} ({action.path})"
    explanation = action.explanation
    if explanation.drift:
        drifted = f"{where} drifted: {explanation.drift}"
        yield Check(TARGET, WRONG, drifted, "run compose plan, then compose apply")
    if action.verb is Verb.BLOCKED:
        yield Check(TARGET, WRONG, f"{where} is blocked: {explanation.reason}")
    for note in explanation.notes:
        yield Check(TARGET, NOTE, f"{where}: {note}")


def _orphans(
    planned: Plan, memory: KnownState, observed: Observed, project: Project, flags: str
) -> Iterator[Check]:
    """Compositions with our tag that no lock entry names, each with what adopts and deletes it."""
    unnamed = orphans(memory, observed)
    asked_for = {a.model.id: a.path for a in planned.actions if a.model and a.verb is Verb.ADOPT}
    names = {recipe.name for recipe in project.recipes}
    for model in unnamed:
        words = f"{model.id} ({model.name}, {model.status})"
        delete = f"delete it: compose destroy {model.id}{flags}"
        adopt = _adopting(model, asked_for.get(model.id), names, flags)
        yield Check(ORPHANS, NOTE, words, f"{adopt}; {delete}" if adopt else delete)
    if unnamed and observed.remote:
        yield Check(ORPHANS, NOTE, "another repository may use them: check before you delete")
    elif not unnamed:
        yield Check(ORPHANS, OK, "the lock names every composition with our tag")


def _adopting(model: Model, recipe: str | None, names: Collection[str], flags: str) -> str:
    """What adopts it: the recipe that asks for it, or one that is written for it.

    Only a trained one can become a recipe, and no recipe has the name of another.
    """
    if recipe is not None:
        return f"adopt it: compose apply {shlex.quote(recipe)}{flags}"
    if model.trained and model.name not in names:
        return f"adopt it: compose import {model.id}{flags}"
    return ""
