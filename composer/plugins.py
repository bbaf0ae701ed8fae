"""What other distributions add to compose by entry points: found by name, loaded, and checked."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol, TypeVar

from composer.errors import UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Named(Protocol):
    """A kind of something, which an entry point of the same name stands for."""

    @property
    def name(self) -> str: ...


Kind = TypeVar("Kind", bound=Named)


def plugin_names(group: str) -> list[str]:
    """The names of a group's entry points, in order; nothing is loaded."""
    return sorted({point.name for point in entry_points(group=group)})


def find_plugin(group: str, name: str, kind: type[Kind], noun: str) -> Kind | None:
    """What the group's entry point of this name stands for; None if there is none.

    `noun` is what messages call it. Raises `UsageError` if it can't be used.
    """
    for point in entry_points(group=group, name=name):
        return _load(point, kind, noun)
    return None


def _load(point: EntryPoint, wanted: type[Kind], noun: str) -> Kind:
    source = point.dist.name if point.dist else point.value
    try:
        kind = point.load()
    except Exception as error:
        raise UsageError(
            f"the {noun} {point.name} of {source} can't be loaded: {error}",
            hint=f"update or uninstall {source}",
        ) from error
    if not isinstance(kind, wanted) or kind.name != point.name:
        raise UsageError(
            f"{point.value} of {source} is not a {wanted.__name__} named {point.name}",
            hint=f"update or uninstall {source}",
        )
    return kind
