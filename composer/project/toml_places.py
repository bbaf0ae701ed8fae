"""The places of the keys and values in a TOML file, which `tomllib` does not tell.

Only for a text that `tomllib` has read: the keys of the file and of its tables, their values, and
the items of their arrays. A table has the place of its header, or of its first value where it has
none. Nothing is told of what is in arrays of tables.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from composer.recipes.problems import Place
from composer.recipes.yaml_tree import Node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?""""{0,2}'
    r"|'''.*?''''{0,2}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'"
    r"|#[^\n]*"
    r"|[\[\]{}=,\n]"
    r"""|[^\s\[\]{}=,#"']+""",
    re.DOTALL,
)
_DEEPER = {"[": 1, "{": 1, "]": -1, "}": -1}

Token: TypeAlias = "re.Match[str]"
Placing: TypeAlias = "Callable[[Token], Place]"
_DEEPEST = 4  # tables in tables in ...: deeper ones are no settings


@dataclass(slots=True)
class _Table:
    """A table while its keys are found."""

    place: Place
    value: object
    depth: int = 0
    children: dict[str | int, _Table | Node] = field(default_factory=dict)
    keys: dict[str, Place] = field(default_factory=dict)

    def node(self) -> Node:
        children = {
            key: child.node() if isinstance(child, _Table) else child
            for key, child in self.children.items()
        }
        return Node(self.place, self.value, children=children, keys=self.keys)


def tree(text: str, document: dict[str, Any]) -> Node:
    """What `tomllib` read from this text, with places."""
    lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(token: Token) -> Place:
        line = bisect_right(lines, token.start())
        return Place(line, token.start() - lines[line - 1] + 1)

    root = _Table(Place(1, 1), document)
    table: _Table | None = root
    for statement in _statements([token for token in _TOKEN.finditer(text) if token[0][0] != "#"]):
        if statement[0][0] == "[":
            inside = [token for token in statement if token[0] not in "[]"]
            table = _table(root, _path(inside), place(statement[0]), place(statement[0]))
        elif table is not None:
            _add(table, statement, place)
    return root.node()


def _statements(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """Headers, and keys with their values; one ends at the line end outside of all brackets."""
    start = depth = 0
    for position, token in enumerate(tokens):
        depth += _DEEPER.get(token[0], 0)
        if not depth and token[0] == "\n":
            if tokens[start:position]:
                yield tokens[start:position]
            start = position + 1
    if tokens[start:]:
        yield tokens[start:]


def _path(key: Sequence[Token]) -> list[str]:
    """The parts of `a`, of `a.b`, and of `a . "b"`."""
    parts, rest = [], tomllib.loads("".join(token[0] for token in key) + " = 0")
    while isinstance(rest, dict):
        ((name, rest),) = rest.items()
        parts.append(name)
    return parts


def _table(table: _Table, path: Sequence[str], key: Place, place: Place) -> _Table | None:
    """The table at this path, which is added if it is new; None if it is in an array, or too deep.

    `key` is where its name stands, `place` where what it holds begins.
    """
    for name in path:
        if not isinstance(table.value, dict) or table.depth == _DEEPEST:
            return None
        table.keys.setdefault(name, key)
        new = _Table(place, table.value[name], table.depth + 1)
        below = table.children.setdefault(name, new)
        if isinstance(below, Node):
            return None
        table = below
    return table


def _add(table: _Table, statement: Sequence[Token], place: Placing) -> None:
    """A key and its value."""
    equals = next(n for n, token in enumerate(statement) if token[0] == "=")
    *above, name = _path(statement[:equals])
    key, tokens = place(statement[0]), statement[equals + 1 :]
    holder = _table(table, above, key, place(tokens[0]))
    if holder is not None and isinstance(holder.value, dict):
        holder.keys.setdefault(name, key)
        node = _value(tokens, holder.value[name], place, holder.depth + 1)
        holder.children.setdefault(name, node)


def _value(tokens: Sequence[Token], value: object, place: Placing, depth: int) -> Node:
    """A value, the items of an array, or the keys of a table in braces."""
    first = tokens[0]
    if isinstance(value, dict) and depth < _DEEPEST:
        table = _Table(place(first), value, depth)
        for part in _parts(tokens):
            _add(table, part, place)
        return table.node()._replace(text=first[0])
    items: dict[str | int, Node] = {}
    if isinstance(value, list):
        parts = enumerate(zip(_parts(tokens), value, strict=True))
        items = {n: Node(place(part[0]), item, part[0][0]) for n, (part, item) in parts}
    return Node(place(first), value, first[0], False, items)


def _parts(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """What stands between the commas of an array, or of a table in braces."""
    part: list[Token] = []
    depth = 0
    for token in tokens:
        is_end = depth == 1 and token[0] in ",]}"
        if part and is_end:
            yield part
        depth += _DEEPER.get(token[0], 0)
        if is_end:
            part = []
        elif depth and token[0] != "\n" and not (depth == 1 and not part and token[0] in "[{"):
            part.append(token)
