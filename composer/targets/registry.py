"""The kinds of targets by name: the built-in ones, and those of other distributions.

A distribution adds a kind by an entry point of the group `composer.targets` whose value is a
`TargetKind`. `open_target` is the only place in the Python API that reads the environment.
"""

from __future__ import annotations

import os
import re
import time
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.targets.kind import OpenRequest, TargetContext, TargetKind, TargetOptions
from composer.targets.local.kind import KIND as LOCAL
from composer.targets.scenario.kind import KIND as SCENARIO
from composer.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.metadata import EntryPoint
    from pathlib import Path

    from composer.targets.base import Target

GROUP = "composer.targets"
DEFAULT = LOCAL  # what is chosen without credentials
HOSTED = SCENARIO  # what is chosen with credentials
BUILT_IN = (DEFAULT, HOSTED)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


def kind_names() -> list[str]:
    """The names of all kinds, built-in ones first."""
    others = sorted({point.name for point in entry_points(group=GROUP)})
    return list(dict.fromkeys([*(kind.name for kind in BUILT_IN), *others]))


def find_kind(name: str) -> TargetKind:
    """The kind of this name, or the one that takes URLs.

    A built-in kind can't be replaced. Raises `UsageError` for a name that no kind has.
    """
    for kind in BUILT_IN:
        if kind.name == name:
            return kind
    for point in entry_points(group=GROUP, name=name):
        return _load(point)
    if _NAME.fullmatch(name):
        near = did_you_mean(name, kind_names())
        known = f"the targets are {', '.join(kind_names())}, or a URL"
        raise UsageError(f"unknown target {name}", hint=f"did you mean {near}?" if near else known)
    return next(kind for kind in BUILT_IN if kind.takes_urls)


def kind_of_key(key: str) -> TargetKind:
    """The kind of the target that has this key in the lock. Raises `UsageError`."""
    return find_kind(key if "://" in key else re.split("[:#]", key)[0])


def _load(point: EntryPoint) -> TargetKind:
    """The kind of another distribution. Raises `UsageError` if it can't be used."""
    source = point.dist.name if point.dist else point.value
    try:
        kind = point.load()
    except Exception as error:
        raise UsageError(
            f"the target {point.name} of {source} can't be loaded: {error}",
            hint=f"update or uninstall {source}",
        ) from error
    if not isinstance(kind, TargetKind) or kind.name != point.name:
        raise UsageError(
            f"{point.value} of {source} is not a TargetKind named {point.name}",
            hint=f"update or uninstall {source}",
        )
    return kind


def open_target(
    target: str | Target | None,
    context: TargetContext,
    *,
    project: str | None = None,
    library: Path | None = None,
    env: Mapping[str, str] = os.environ,
    run_jobs: bool = True,
    parallelism: int = 8,
    sleep: Callable[[float], None] = time.sleep,
) -> Target:
    """Open a target by its name or URL; None chooses one as the command line does.

    A `Target` is returned as it is. `project` is a Scenario project's id, `library` the local
    target's folder of LoRA files. Credentials and settings come from `env` alone. With `run_jobs`
    false the target is only read; `parallelism` is the number of connections.

    Raises `UsageError`, or `CredentialsError` if the target needs credentials that aren't set.
    """
    if target is not None and not isinstance(target, str):
        return target
    from composer.targets.selection import choose

    options = TargetOptions(target, project, library)
    choice = choose(options, context.lock_keys, env)
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
