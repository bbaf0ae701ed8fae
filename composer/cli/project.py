"""The project and the target that a command is about, from its options."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from composer.cli.selection import refuse_nothing
from composer.cli.terminal import LateMeter, tell
from composer.files.state import VARIABLE
from composer.lock import read_lock
from composer.project import Project, sources
from composer.project.selection import ALL_RECIPES
from composer.targets import registry
from composer.targets.registry import choose, offline_choice
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
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
        tell("note: .compose/ is ignored: compose keeps its state elsewhere", err=True)
    if check and selection.names_files:
        refuse_nothing(project, project.files)
    assert not check or project.recipes is not None  # so that a problem in a file comes first
    return project


LOCAL = registry.DEFAULT.name


def open_target(
    project: Project,
    options: TargetOptions,
    *,
    run_jobs: bool,
    dry_run: bool = False,
    parallelism: int | None = None,
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
        scanning=LateMeter("reading the LoRA files").say,
    )


def files_of(project: Project, target: Target, ids: Iterable[str]) -> dict[str, str]:
    """The results on this machine, by id, as text."""
    return {id: str(file) for id, file in project.result_files(target, ids).items()}


def _say(choice: Choice) -> None:
    tell(f"Target: {visible(choice.key)} ({choice.reason})\n", err=True)


def chosen_key(project: Project, options: TargetOptions) -> str:
    """The key in the lock of the target that a command is about, where none is opened."""
    return choose(options, project.lockfile.targets, os.environ, project.target_defaults).key


def offline_target(project: Project, options: TargetOptions) -> str:
    """The same where no target is asked at all; said on stderr. Raises `UsageError`."""
    keys, defaults = project.lockfile.targets, project.target_defaults
    key, reason = offline_choice(options, keys, os.environ, defaults)
    tell(f"Target: {visible(key)} ({reason}), not asked: --offline", err=True)
    return key


def open_local(
    project: Project, options: TargetOptions, *, run_jobs: bool, dry_run: bool = False
) -> Target:
    """The local target, whatever else is chosen. Raises `UsageError`."""
    local = replace(options, target=LOCAL, project=None)
    return sources.open_target(
        local,
        project,
        env=os.environ,
        run_jobs=run_jobs,
        dry_run=dry_run,
        scanning=LateMeter("reading the LoRA files").say,
    )
