"""Opening the chosen target for a command, and saying on stderr which one it is, and why."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from composer.lock import state_dir
from composer.targets import registry, selection
from composer.targets.kind import OpenRequest, TargetContext
from composer.targets.local.kind import open_engine as open_local
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from composer.cli.project import Project
    from composer.targets.base import Target
    from composer.targets.kind import TargetOptions
    from composer.targets.local.service import Engine

LOCAL = registry.DEFAULT.name


def context_of(project: Project) -> TargetContext:
    """What a target may know of this project."""
    return TargetContext(
        project.root,
        tuple(recipe.path for recipe in project.recipes),
        tuple(project.lock.targets),
        lambda create: state_dir(project.root, create=create),
    )


def open_target(
    project: Project,
    options: TargetOptions,
    *,
    run_jobs: bool,
    parallelism: int = 8,
    sleep: Callable[[float], None] = time.sleep,
) -> Target:
    """Choose the target, say so on stderr, and open it. Raises `UsageError`, `CredentialsError`."""
    context = context_of(project)
    choice = selection.choose(options, context.lock_keys, os.environ)
    click.echo(f"Target: {visible(choice.key)} ({choice.reason})\n", err=True)
    request = OpenRequest(
        choice.name,
        context,
        options,
        os.environ,
        run_jobs=run_jobs,
        parallelism=parallelism,
        sleep=sleep,
    )
    return choice.kind.open(request)


def open_engine(project: Project, options: TargetOptions, *, run_jobs: bool) -> Engine:
    """The local target, whatever else is chosen. Raises `UsageError`."""
    request = OpenRequest(LOCAL, context_of(project), options, os.environ, run_jobs=run_jobs)
    return open_local(request)
