"""A recipe file as a tree of values with their places, and the list that problems go into.

`yaml_events` builds the tree, `schema` and `parsing` check it, `parsing` makes a Recipe of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from composer.errors import Problem
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterable

KeyPath: TypeAlias = "tuple[str | int, ...]"  # ("concepts", 1, "scale")

_LONGEST_SHOWN = 40  # characters of a value or key that a message repeats


@dataclass(frozen=True, slots=True)
class Place:
    """Where something begins in a file, 1-based; 0 where there is no place."""

    line: int = 0
    column: int = 0


NOWHERE = Place()


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a file. `value` is plain Python (dict, list, str, int, float, bool, None).

    `text` is a scalar's source, which decides a number's decimals. `refused` means: a problem of
    this scalar is reported, so `value` means nothing and no second problem is wanted.
    """

    place: Place
    value: object
    text: str = ""
    refused: bool = False
    children: dict[str | int, Node] = field(default_factory=dict)
    keys: dict[str, Place] = field(default_factory=dict)  # where a mapping's keys begin

    def at(self, path: Iterable[str | int]) -> Node:
        """The node that a path leads to."""
        node = self
        for step in path:
            node = node.children[step]
        return node

    @property
    def shown(self) -> str:
        """The scalar as a message repeats it: texts in quotes, cut short, safe to print."""
        if isinstance(self.value, str):
            return quoted(self.value)
        return visible(shorten(self.text, _LONGEST_SHOWN))


@dataclass(slots=True)
class Report:
    """The problems of one file as they are found; the same one twice is one."""

    file: str
    found: dict[Problem, None] = field(default_factory=dict)

    def add(self, place: Place, code: str, message: str, hint: str = "") -> None:
        problem = Problem(self.file, place.line, place.column, code, message, hint)
        self.found.setdefault(problem)

    @property
    def problems(self) -> list[Problem]:
        """All of them, by place."""
        return sorted(self.found)


def quoted(text: str) -> str:
    """A text of a file in quotes, cut short, safe to print."""
    return f'"{visible(shorten(text, _LONGEST_SHOWN))}"'


def dotted(path: KeyPath) -> str:
    """A path as people write it: `concepts[1].scale`; empty for the file itself."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{_key(step)}" for step in path)
    return "".join(steps).removeprefix(".")


def _key(step: str) -> str:
    return visible(shorten(step, _LONGEST_SHOWN)) or '""'


def said(path: KeyPath, message: str) -> str:
    """A message about the value at a path."""
    return f"{dotted(path)}: {message}" if path else message
