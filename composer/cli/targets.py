"""Choosing a target, and saying why: the only place that does. The lock never chooses a host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.errors import CredentialsError, UsageError
from composer.lockfile import state_dir
from composer.words import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from composer.cli.options import Wish
    from composer.cli.project import Project
    from composer.engine.service import Engine
    from composer.entities import Lock

LOCAL, SCENARIO = "local", "scenario"
DEFAULT_URL = "https://api.cloud.scenario.com/v1"
_LORAS = "loras"
_KEY, _SECRET, _JWT = "SCENARIO_SDK_API_KEY", "SCENARIO_SDK_API_SECRET", "SCENARIO_SDK_JWT"


@dataclass(frozen=True, slots=True)
class Choice:
    """A target by name (`local`, `scenario` or a URL), and the reason for it."""

    name: str
    reason: str


def choose(wish: Wish, lock: Lock, env: Mapping[str, str]) -> Choice:
    """The target, by flag, environment, what the lock knows, and credentials, in that order.

    Raises `UsageError` where the lock knows several remote targets, `CredentialsError` where it
    knows only remote ones and there are no credentials.
    """
    if wish.target:
        return Choice(wish.target, "--target")
    if env.get("COMPOSE_TARGET"):
        return Choice(env["COMPOSE_TARGET"], "COMPOSE_TARGET")
    known = sorted(lock.targets)
    credentials = bool(env.get(_JWT) or (env.get(_KEY) and env.get(_SECRET)))
    if known == [LOCAL]:
        return Choice(LOCAL, "the lock knows no other")
    if len([key for key in known if key != LOCAL]) > 1:
        raise UsageError("the lock knows several targets", hint=f"--target {' | '.join(known)}")
    if credentials:
        return Choice(SCENARIO, "credentials are set")
    if known and LOCAL not in known:
        raise CredentialsError(
            f"the lock knows only {known[0]}, and there are no credentials",
            hint=f"set {_KEY} and {_SECRET}, or give --target local",
        )
    return Choice(LOCAL, "no credentials are set")


def lock_key(choice: Choice, wish: Wish, env: Mapping[str, str]) -> str:
    """The key of this target in the lock: `local`, or its base URL with `#PROJECT`."""
    if choice.name == LOCAL:
        return LOCAL
    url = choice.name if choice.name != SCENARIO else env.get("SCENARIO_BASE_URL") or DEFAULT_URL
    project = wish.project or env.get("SCENARIO_PROJECT_ID")
    return url.rstrip("/") + (f"#{project}" if project else "")


def announce(choice: Choice) -> None:
    click.echo(f"target: {visible(choice.name)} ({choice.reason})\n", err=True)


def open_target(project: Project, wish: Wish, *, run_jobs: bool, quiet: bool = False) -> Engine:
    """Choose the target, say so on stderr, and open it. Raises `UsageError`."""
    choice = choose(wish, project.lock, os.environ)
    if not quiet:
        announce(choice)
    if choice.name != LOCAL:
        raise UsageError(
            f"the target {choice.name} can't be reached by this version: it has only local",
            hint="give --target local",
        )
    return _engine(project, wish, run_jobs=run_jobs)


def _engine(project: Project, wish: Wish, *, run_jobs: bool) -> Engine:
    try:
        from composer.engine.service import Engine
    except ModuleNotFoundError as missing:
        raise UsageError(
            f"the embedded engine needs {missing.name}", hint="pip install 'lora-compose[local]'"
        ) from missing
    library = library_of(project, wish, os.environ)
    return Engine(state_dir(project.root, create=run_jobs), library, run_jobs=run_jobs)


def library_of(project: Project, wish: Wish, env: Mapping[str, str]) -> Path:
    """The folder of LoRA files: as said, else the nearest `loras/` upward from each recipe.

    Raises `UsageError` if the recipes have two different ones.
    """
    said = wish.library or (Path(env["COMPOSE_LIBRARY"]) if env.get("COMPOSE_LIBRARY") else None)
    if said is not None:
        if not said.is_dir():
            raise UsageError(f"the library {said} is no folder", hint="check --library")
        return said
    near = {_nearest(project.root, project.root / recipe.path) for recipe in project.recipes}
    found = sorted(folder for folder in near if folder is not None)
    if len(found) > 1:
        raise UsageError(
            f"the recipes have two libraries: {found[0]} and {found[1]}", hint="give --library DIR"
        )
    return found[0] if found else project.root / "recipes" / _LORAS


def _nearest(root: Path, recipe: Path) -> Path | None:
    """A repository may come from a stranger: its `loras` counts only if it lies within."""
    for folder in recipe.parents:
        library = folder / _LORAS
        if library.is_dir() and library.resolve().is_relative_to(root.resolve()):
            return library
        if folder == root:
            break
    return None
