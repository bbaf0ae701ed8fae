"""Choosing a target, and saying why: the only place that does. The lock never chooses a host."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.errors import CredentialsError, UsageError
from composer.lock import state_dir
from composer.targets.http.address import Address, address
from composer.targets.scenario.credentials import KEY, SECRET, TOKEN, Credentials
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from composer.cli.options import TargetOptions
    from composer.cli.project import Project
    from composer.model import Lock
    from composer.targets.base import Target
    from composer.targets.local.service import Engine

LOCAL, SCENARIO = "local", "scenario"
DEFAULT_URL = "https://api.cloud.scenario.com/v1"
_LORAS = "loras"


@dataclass(frozen=True, slots=True)
class Choice:
    """A target: `local`, or an address; and the reason for it."""

    address: Address | None
    reason: str

    @property
    def key(self) -> str:
        """Its name in the lock."""
        return self.address.key if self.address else LOCAL


def choose(wish: TargetOptions, lock: Lock, env: Mapping[str, str]) -> Choice:
    """The target, by flag, environment, what the lock knows, and credentials, in that order.

    Raises `UsageError` where the lock knows other remote targets than the one that the
    environment means, `CredentialsError` where it knows only remote ones and there are no
    credentials.
    """
    for name, reason in ((wish.target, "--target"), (env.get("COMPOSE_TARGET"), "COMPOSE_TARGET")):
        if name:
            place = _address(name, wish, env)
            _check_project(place, wish, lock)
            return Choice(place, reason)
    known = sorted(lock.targets)
    if known == [LOCAL]:
        return Choice(None, "the lock knows no other")
    if env.get(TOKEN) or (env.get(KEY) and env.get(SECRET)):
        return _by_credentials(wish, known, env)
    if known and LOCAL not in known:
        raise CredentialsError(
            f"the lock knows only {', '.join(known)}, and there are no credentials",
            hint=f"set {KEY} and {SECRET}, or give --target local",
        )
    return Choice(None, "no credentials are set")


def _by_credentials(wish: TargetOptions, known: list[str], env: Mapping[str, str]) -> Choice:
    """The API that the environment means; a repository made for another one needs a flag."""
    place = _address(SCENARIO, wish, env)
    remote = [key for key in known if key != LOCAL]
    by_env = _project(wish, env) and place is not None and place.key in remote
    said = wish.project is not None or by_env
    if len(remote) > 1 and not said:
        hint = "say which: --target scenario or --target URL, and --project ID"
        raise UsageError(f"the lock knows several targets: {', '.join(remote)}", hint=hint)
    if remote and place is not None and place.key not in remote and not said:
        raise UsageError(
            f"the lock knows {remote[0]}, but the environment means {place.key}",
            hint="set SCENARIO_PROJECT_ID or SCENARIO_BASE_URL, or give --target",
        )
    return Choice(place, "credentials are set")


def _check_project(place: Address | None, wish: TargetOptions, lock: Lock) -> None:
    """A lock that knows projects of this address, and none without, needs one of them said."""
    if place is None or place.project or wish.project is not None or place.key in lock.targets:
        return
    known = sorted(key for key in lock.targets if key.startswith(f"{place.key}#"))
    if known:
        raise UsageError(
            f"the lock knows {', '.join(known)}, and no project is said",
            hint="say which: --project ID, or --project '' for none",
        )


def _project(wish: TargetOptions, env: Mapping[str, str]) -> str | None:
    """The project; an empty one that is said is none, whatever the environment has."""
    return (env.get("SCENARIO_PROJECT_ID") if wish.project is None else wish.project) or None


def _address(name: str, wish: TargetOptions, env: Mapping[str, str]) -> Address | None:
    """Where a target of this name is; None for the local one. Raises `UsageError`."""
    if name == LOCAL:
        return None
    default = env.get("SCENARIO_BASE_URL") or DEFAULT_URL
    return address(default if name == SCENARIO else name, _project(wish, env))


def open_target(
    project: Project,
    wish: TargetOptions,
    *,
    run_jobs: bool,
    parallelism: int = 8,
    sleep: Callable[[float], None] = time.sleep,
) -> Target:
    """Choose the target, say so on stderr, and open it. Raises `UsageError`, `CredentialsError`."""
    choice = choose(wish, project.lock, os.environ)
    click.echo(f"target: {visible(choice.key)} ({choice.reason})\n", err=True)
    if choice.address is None:
        return open_engine(project, wish, run_jobs=run_jobs)
    credentials = Credentials.from_env(os.environ)
    from composer.targets.scenario.service import Scenario

    place = choice.address
    return Scenario(
        place.base, auth=credentials, project=place.project, parallelism=parallelism, sleep=sleep
    )


def open_engine(project: Project, wish: TargetOptions, *, run_jobs: bool) -> Engine:
    """The local target. Raises `UsageError` if its packages aren't installed."""
    try:
        from composer.targets.local.service import Engine
    except ModuleNotFoundError as missing:
        raise UsageError(
            f"the embedded engine needs {missing.name}", hint="pip install 'lora-compose[local]'"
        ) from missing
    library = library_of(project, wish, os.environ)
    return Engine(state_dir(project.root, create=run_jobs), library, run_jobs=run_jobs)


def library_of(project: Project, wish: TargetOptions, env: Mapping[str, str]) -> Path:
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
