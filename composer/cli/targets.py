"""Opening the chosen target for a command, and saying on stderr which one it is, and why."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from composer.project import opening
from composer.targets import registry
from composer.targets.kind import OpenRequest
from composer.targets.local.kind import open_engine as open_local
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from composer.project import Project
    from composer.targets.base import Target
    from composer.targets.kind import TargetOptions
    from composer.targets.local.service import Engine
    from composer.targets.selection import Choice

LOCAL = registry.DEFAULT.name


def open_target(
    project: Project,
    options: TargetOptions,
    *,
    run_jobs: bool,
    parallelism: int = 8,
    sleep: Callable[[float], None] = time.sleep,
) -> Target:
    """Choose the target, say so on stderr, and open it. Raises `UsageError`, `CredentialsError`."""
    return opening.open_target(
        options,
        project,
        env=os.environ,
        run_jobs=run_jobs,
        parallelism=parallelism,
        sleep=sleep,
        on_choice=_say,
    )


def _say(choice: Choice) -> None:
    click.echo(f"Target: {visible(choice.key)} ({choice.reason})\n", err=True)


def open_engine(project: Project, options: TargetOptions, *, run_jobs: bool) -> Engine:
    """The local target, whatever else is chosen. Raises `UsageError`."""
    request = OpenRequest(LOCAL, project.target_context, options, os.environ, run_jobs=run_jobs)
    return open_local(request)
