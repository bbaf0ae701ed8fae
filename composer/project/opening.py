"""Opening the target of a project: the one place in the Python API that reads the environment."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from composer.targets import selection

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from composer.project.project import Project
    from composer.targets.base import Target


def open_target(
    target: str | Target | None,
    project: Project,
    *,
    project_id: str | None = None,
    library: Path | None = None,
    env: Mapping[str, str] = os.environ,
    run_jobs: bool = True,
    parallelism: int = 8,
    sleep: Callable[[float], None] = time.sleep,
) -> Target:
    """Open a target for this project: `local`, `scenario`, another kind's name, or a base URL.

    None chooses one as the command line does; a `Target` of your own is returned as it is.
    `project_id` is the Scenario project, `library` the local target's folder of LoRA files.
    Credentials and defaults come from `env` alone. With `run_jobs` false the target is only read;
    `parallelism` is the number of connections, and `sleep` takes seconds and may raise to end a
    wait. Use it as a context manager, or call `close()`.

    Raises `UsageError`, or `CredentialsError` if the target needs credentials that aren't set.
    """
    return selection.open_target(
        target,
        project.target_context,
        project=project_id,
        library=library,
        env=env,
        run_jobs=run_jobs,
        parallelism=parallelism,
        sleep=sleep,
    )
