"""Opening the target of a project: the one place in the Python API that reads the environment."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from composer.targets.kind import OpenRequest, TargetOptions
from composer.targets.registry import choose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from composer.project.project import Project
    from composer.targets.base import Target
    from composer.targets.registry import Choice


def open_target(
    target: str | TargetOptions | Target | None,
    project: Project,
    *,
    env: Mapping[str, str] = os.environ,
    run_jobs: bool = True,
    parallelism: int = 8,
    sleep: Callable[[float], None] = time.sleep,
    on_choice: Callable[[Choice], None] = lambda choice: None,
) -> Target:
    """Open a target for this project: `local`, `scenario`, another kind's name, or a base URL.

    `TargetOptions` also name the Scenario project and the local target's folder of LoRA files.
    None chooses a target as the command line does; a `Target` of your own is returned as it is.
    Credentials and settings come from `env`; the HTTP client also takes proxies and certificates
    from the process's environment. With `run_jobs` false the target is only read. `parallelism` is
    the number of connections, `sleep` takes seconds and may raise to end a wait, and `on_choice` is
    told which target is chosen, and why. Use the target as a context manager, or call `close()`.

    Raises `UsageError`, or `CredentialsError` if the target needs credentials that aren't set.
    """
    if target is not None and not isinstance(target, str | TargetOptions):
        return target
    options = target if isinstance(target, TargetOptions) else TargetOptions(target)
    context = project.target_context
    choice = choose(options, context.lock_keys, env)
    on_choice(choice)
    return choice.kind.open(
        OpenRequest(
            choice.name,
            context,
            options,
            env,
            run_jobs=run_jobs,
            parallelism=parallelism,
            sleep=sleep,
        )
    )
