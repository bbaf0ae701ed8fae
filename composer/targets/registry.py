"""The kinds of targets by name: the built-in ones, and those of other distributions.

A distribution adds a kind by an entry point of the group `composer.targets` whose value is a
`TargetKind`.
"""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.targets.kind import TargetKind
from composer.targets.local.kind import KIND as LOCAL
from composer.targets.scenario.kind import KIND as SCENARIO
from composer.text import did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


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
