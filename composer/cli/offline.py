"""`--offline`: which target's part of the lock is meant, without asking any target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.cli.targets import choose
from composer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from composer.cli.options import TargetOptions
    from composer.model import Lock

_WHICH = "say which: --target scenario or --target URL, and --project ID"


def offline_key(wish: TargetOptions, lock: Lock, env: Mapping[str, str]) -> tuple[str, str]:
    """The target's key in the lock, and the reason for it; credentials play no part.

    `--target` says it, else the lock if it knows one target only, or only one of this project.
    Raises `UsageError` where several are left.
    """
    known = sorted(lock.targets)
    if not wish.target:
        if len(known) == 1 and not wish.project:
            return known[0], "the lock knows no other"
        project = wish.project or env.get("SCENARIO_PROJECT_ID")
        meant = [key for key in known if project and key.endswith(f"#{project}")]
        if len(meant) == 1:
            return meant[0], "the lock knows no other of this project"
        if wish.project or (known and not env.get("COMPOSE_TARGET")):
            raise UsageError(f"the lock knows {', '.join(known) or 'no target'}", hint=_WHICH)
    without = {name: env[name] for name in env if not name.startswith("SCENARIO_SDK_")}
    choice = choose(wish, lock, without)
    return choice.key, choice.reason
