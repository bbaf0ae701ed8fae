"""The project and the target that a command is about, from its options."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from composer.errors import UsageError
from composer.files.state import VARIABLE
from composer.lock import read_lock
from composer.project import Project, sources
from composer.project.options import ALL_RECIPES
from composer.targets import registry
from composer.targets.registry import choose
from composer.text import RECIPES_FOLDER, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from composer.model import Lock
    from composer.project import Selection
    from composer.targets.base import Target
    from composer.targets.kind import TargetOptions
    from composer.targets.registry import Choice


def open_project(
    selection: Selection = ALL_RECIPES,
    *,
    read: Callable[[Path], Lock] = read_lock,
    may_be_empty: bool = False,
    check: bool = True,
) -> Project:
    """The project of these paths. Raises `InvalidInput` with every problem of every file.

    With `check` false no file is read yet, and no problem raised.
    """
    project = Project(
        ".",
        selection,
        may_be_empty=may_be_empty,
        read_lock=read,
        state_dir=os.environ.get(VARIABLE),
    )
    if os.path.lexists(project.root / ".compose"):
        click.echo("note: .compose/ is ignored: compose keeps its state elsewhere", err=True)
    if check and selection.names_files:
        refuse_nothing(project, project.files)
    assert not check or project.recipes is not None  # so that a problem in a file comes first
    return project


def refuse_nothing(project: Project, files: Collection[Path]) -> None:
    """Raise `UsageError` if there are no files: a pattern or folder may be wrong."""
    if files:
        return
    selection = project.selection
    paths = selection.paths or (project.root / RECIPES_FOLDER,)
    where = ", ".join(visible(str(path)) for path in paths)
    given = [f"--include {visible(glob)!r}" for glob in selection.include]
    given += [f"--exclude {visible(glob)!r}" for glob in selection.exclude]
    raise UsageError(
        f"no recipes found in {where}" + (f" with {' '.join(given)}" if given else ""),
        hint=f"patterns match paths such as {RECIPES_FOLDER}/tutorial/ink.yaml"
        if given
        else "a recipe is a file that ends in .yaml or .yml; name its folder",
    )


LOCAL = registry.DEFAULT.name


def open_target(
    project: Project,
    options: TargetOptions,
    *,
    run_jobs: bool,
    dry_run: bool = False,
    parallelism: int = 8,
    sleep: Callable[[float], None] = time.sleep,
) -> Target:
    """Choose the target, say so on stderr, and open it. Raises `UsageError`, `CredentialsError`."""
    return sources.open_target(
        options,
        project,
        env=os.environ,
        run_jobs=run_jobs,
        dry_run=dry_run,
        parallelism=parallelism,
        sleep=sleep,
        on_choice=_say,
    )


def _say(choice: Choice) -> None:
    click.echo(f"Target: {visible(choice.key)} ({choice.reason})\n", err=True)


def chosen_key(project: Project, options: TargetOptions) -> str:
    """The key in the lock of the target that a command is about, where none is opened."""
    return choose(options, project.lockfile.targets, os.environ).key


def open_local(
    project: Project, options: TargetOptions, *, run_jobs: bool, dry_run: bool = False
) -> Target:
    """The local target, whatever else is chosen. Raises `UsageError`."""
    local = replace(options, target=LOCAL, project=None)
    return sources.open_target(local, project, env=os.environ, run_jobs=run_jobs, dry_run=dry_run)
