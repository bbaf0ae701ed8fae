"""The lock's entries: which target's, which recipe's, and what they came to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.lock import LOCK_NAME, read_lock
from composer.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from composer.model import Entry


def only_key(root: Path) -> str:
    """The lock's only target; `local` if there is no lock. Raises `UsageError` for several."""
    keys = sorted(read_lock(root).targets)
    if len(keys) > 1:
        raise UsageError(
            f"{LOCK_NAME} has several targets: {', '.join(keys)}", hint="name one of them"
        )
    return keys[0] if keys else "local"


def trained(entries: Mapping[str, Entry]) -> dict[str, str]:
    """Each entry's name and the id of its trained composition."""
    return {entry.name: entry.composition for entry in entries.values() if entry.composition}


def find_path(entries: Mapping[str, Entry], wanted: str) -> str:
    """The path of the entry with this path or name. Raises `UsageError`."""
    path = wanted.replace(os.sep, "/").removeprefix("./")
    for known, entry in entries.items():
        if known == path or entry.name == wanted:
            return known
    near = did_you_mean(wanted, [*entries, *(entry.name for entry in entries.values())])
    raise UsageError(
        f"the lock has no recipe {wanted}",
        hint=f"did you mean {near}?" if near else "compose apply makes what the recipes ask for",
    )
