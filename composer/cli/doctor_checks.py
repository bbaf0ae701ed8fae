"""What `compose doctor` can see on this machine: tools, variables, project, library and store."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING

import yaml

from composer.cli.project import state_of
from composer.cli.targets import LOCAL, open_engine
from composer.errors import ComposeError, CredentialsError, InvalidInput, UsageError
from composer.files.state import NOWHERE, VARIABLE, folder_size, list_states
from composer.lock import (
    NAME,
    dump,
    lock_text,
    parse,
    read_lock,
    remember,
)
from composer.lock.journal import Journal
from composer.model import LORA, Lock
from composer.output.doctor import NOTE, OK, SKIPPED, WRONG, Check
from composer.planner import known_ids
from composer.project import Project
from composer.targets.http.address import address
from composer.targets.scenario.credentials import KEY, SECRET, TOKEN, Credentials
from composer.text import counted
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from composer.cli.options import TargetOptions

# The extras' packages, by the names that they are imported under.
EXTRAS = {
    "local": ("numpy", "ml_dtypes", "threadpoolctl"),
    "serve": ("flask", "waitress"),
}
PLACES = (
    "SCENARIO_BASE_URL",
    "SCENARIO_PROJECT_ID",
    "COMPOSE_TARGET",
    "COMPOSE_LIBRARY",
    VARIABLE,
)
ENVIRONMENT, CREDENTIALS, PROJECT = "environment", "credentials", "project"
LIBRARY, STORE = "library", "store"
_GIT_SECONDS = 10


def environment() -> Iterator[Check]:
    """Python, the extras, and git."""
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
        yield Check(ENVIRONMENT, NOTE, "PyYAML is without libyaml: recipes are read slowly")
    if shutil.which("git") is None:
        yield Check(ENVIRONMENT, NOTE, "git is not installed", "a lock belongs into git")
    else:
        yield Check(ENVIRONMENT, OK, "git is installed")


def credentials(wish: TargetOptions) -> Iterator[Check]:
    """Which variables are set; never what they hold."""
    given = [name for name in (KEY, SECRET, TOKEN) if os.environ.get(name)]
    try:
        Credentials.from_env(os.environ)
        yield Check(CREDENTIALS, OK, f"set: {', '.join(given)}")
    except CredentialsError as error:
        if given:
            yield Check(CREDENTIALS, WRONG, error.message, error.hint or "")
        else:
            yield _no_credentials(wish)
    places = [name for name in PLACES if os.environ.get(name)]
    if places:
        yield Check(CREDENTIALS, OK, f"also set: {', '.join(places)}")
    base = os.environ.get("SCENARIO_BASE_URL")
    try:
        address(base, os.environ.get("SCENARIO_PROJECT_ID") or None) if base else None
    except UsageError as error:
        yield Check(CREDENTIALS, WRONG, f"SCENARIO_BASE_URL: {error.message}", error.hint or "")


def _no_credentials(wish: TargetOptions) -> Check:
    hint = f"for Scenario, set {KEY} and {SECRET}, or {TOKEN}"
    target = wish.target or os.environ.get("COMPOSE_TARGET")
    if target and target != LOCAL:
        return Check(CREDENTIALS, NOTE, f"none are set, and the target {target} needs some", hint)
    return Check(CREDENTIALS, OK, "none are set: the local target needs none", hint)


# --- the project -------------------------------------------------------------------------


def project_of(statuses: set[int]) -> tuple[Project | None, list[Check]]:
    """The project as far as it can be read, and what is wrong with it."""
    try:
        project = Project()
    except ComposeError as error:
        statuses.add(error.exit_status)
        return None, [Check(PROJECT, WRONG, error.message, error.hint or "")]
    root = project.root
    found = [Check(PROJECT, OK, f"root: {root}")]
    lock, said = _lock(root)
    found += said
    found += [*_state(root), *_journal(root), *_git(root)]
    if lock is None:
        return None, found
    problems = project.validate()
    for problem in problems:
        place = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
        words = f"{place} {problem.code} {problem.message}"
        found.append(Check(PROJECT, WRONG, words, problem.hint))
    if not problems:
        found.append(Check(PROJECT, OK, f"recipes: {len(project.recipes)}, all valid"))
    return project.without_broken_recipes(), found


def _lock(root: Path) -> tuple[Lock | None, list[Check]]:
    """The lock, None if it can't be read."""
    try:
        text = lock_text(root)
        if text is None:
            return Lock(), [Check(PROJECT, NOTE, f"there is no {NAME} yet", "compose apply")]
        lock = read_lock(root)
    except InvalidInput as error:
        return None, [Check(PROJECT, WRONG, error.message, error.hint or "")]
    count = counted(sum(len(target.recipes) for target in lock.targets.values()), "entry")
    found = [Check(PROJECT, OK, f"{NAME}: {count} for {counted(len(lock.targets), 'target')}")]
    if text.replace("\r\n", "\n") != dump(parse(text)):
        words = f"{NAME} is not as compose writes it: somebody or a merge changed it"
        found.append(Check(PROJECT, NOTE, words, "compose lock --repair"))
    return lock, found


_MAX_LOST = 5  # state folders named in a hint


def _state(root: Path) -> Iterator[Check]:
    """The state folder and its size, an unused `.compose/`, and the states of lost projects."""
    try:
        state = state_of(root)
        lost = [other for other in list_states(os.environ) if other.is_orphan]
    except InvalidInput as error:
        yield Check(PROJECT, WRONG, error.message, error.hint or "")
        return
    if state == NOWHERE:
        yield Check(PROJECT, NOTE, "there is no home directory for the state", f"set {VARIABLE}")
    elif state.exists():
        yield Check(PROJECT, OK, f"state: {state}, {folder_size(state) / 1e6:,.1f} MB")
    else:
        yield Check(PROJECT, OK, f"state: {state}, not created yet")
    if os.path.lexists(root / ".compose"):
        words = ".compose/ in the project is ignored: the state lies elsewhere"
        yield Check(PROJECT, NOTE, words, "delete it, and take it out of git")
    if lost:
        size = sum(state.size for state in lost)
        words = f"{counted(len(lost), 'state folder')} of lost projects: {size / 1e6:,.1f} MB"
        paths = ", ".join(str(state.path) for state in lost[:_MAX_LOST])
        more = f", and {len(lost) - _MAX_LOST} more" if len(lost) > _MAX_LOST else ""
        yield Check(PROJECT, NOTE, words, f"delete what you don't need: {paths}{more}")


def _journal(root: Path) -> Iterator[Check]:
    try:
        events = len(Journal(state_of(root)).read())
    except InvalidInput as error:
        yield Check(PROJECT, WRONG, error.message, error.hint or "")
        return
    if events:
        words = f"a run was cut off: the journal has {counted(events, 'event')}"
        yield Check(PROJECT, NOTE, words, "compose apply goes on from there")


def _git(root: Path) -> Iterator[Check]:
    if not (root / ".git").exists():
        yield Check(PROJECT, NOTE, "no git repository", "the lock is meant to be committed")
        return
    if _line_ends(root):
        yield Check(PROJECT, OK, f".gitattributes keeps the line ends of {NAME}")
    else:
        words = f".gitattributes doesn't say how {NAME} ends its lines"
        yield Check(PROJECT, NOTE, words, f"add the line: {NAME} text eol=lf")


def _line_ends(root: Path) -> bool:
    try:
        lines = (root / ".gitattributes").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    words = [line.split() for line in lines]
    return any(parts[:1] == [NAME] and "eol=lf" in parts for parts in words)


# --- the local target --------------------------------------------------------------------


def library(project: Project, wish: TargetOptions) -> list[Check]:
    """The LoRA files, and those that can't be used, each with the reason."""
    try:
        with open_engine(project, wish, run_jobs=False) as engine:
            loras, rejected = engine.list_models(LORA), dict(engine.rejected)
    except UsageError as error:
        return [Check(LIBRARY, SKIPPED, error.message, error.hint or "")]
    except ComposeError as error:
        return [Check(LIBRARY, WRONG, error.message, error.hint or "")]
    found = [Check(LIBRARY, OK, f"LoRAs that can be used: {len(loras)}")]
    refused = [Check(LIBRARY, NOTE, f"not usable: {why}") for _, why in sorted(rejected.items())]
    return found + refused


def store(project: Project, wish: TargetOptions) -> list[Check]:
    """Whether the store is sound, how large the results are, and what no lock names."""
    try:
        with open_engine(project, wish, run_jobs=False) as engine:
            flaws, size = engine.store.flaws(), engine.size()
            free = engine.prune(
                known_ids(remember(project.root, engine.key, project.state)), dry_run=True
            )
    except UsageError:
        return []
    except ComposeError as error:
        return [Check(STORE, WRONG, error.message, error.hint or "")]
    found = [Check(STORE, WRONG, f"the store is damaged: {flaw}", _ANEW) for flaw in flaws]
    found += [] if flaws else [Check(STORE, OK, "the store is sound")]
    found.append(Check(STORE, OK, f"results: {size / 1e6:,.1f} MB"))
    if free:
        words = f"the lock doesn't name {counted(len(free), 'local composition')}"
        found.append(Check(STORE, NOTE, words, "compose prune --local frees what no lock names"))
    return found


_ANEW = "move engine.sqlite3* in the state folder away: compose apply makes the models again"
