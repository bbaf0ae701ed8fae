"""The places of the keys and values in a TOML file, which `tomllib` does not tell.

Only for a text that `tomllib` has read, and only for what stands before the first table: the keys
there, their values, and the items of their arrays. A table has the place of its header.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from composer.recipes.problems import Place
from composer.recipes.yaml_tree import Node

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


@dataclass(frozen=True, slots=True)
class _Statement:
    """A top-level key, or a table's first one, with the tokens of its value."""

    name: str
    start: int
    value: Sequence[Token] = ()


def tree(text: str, document: dict[str, Any]) -> Node:
    """What `tomllib` read from this text, with places."""
    lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(offset: int) -> Place:
        line = bisect_right(lines, offset)
        return Place(line, offset - lines[line - 1] + 1)

    keys: dict[str, Place] = {}
    children: dict[str | int, Node] = {}
    for statement in _statements(text):
        if statement.name not in keys:
            keys[statement.name] = place(statement.start)
            value = document[statement.name]
            first = statement.value[0] if statement.value else None
            at = place(first.start() if first else statement.start)
            items: dict[str | int, Node] = {
                index: Node(place(token.start()), item, token[0])
                for index, (token, item) in enumerate(_items(statement.value, value))
            }
            children[statement.name] = Node(at, value, first[0] if first else "", False, items)
    return Node(Place(1, 1), document, children=children, keys=keys)


def _items(tokens: Sequence[Token], value: object) -> Iterator[tuple[Token, object]]:
    """The items of an array, each with its first token."""
    if not isinstance(value, list):
        return
    depth, expected, left = 0, False, iter(value)
    for token in tokens:
        if token[0] == "\n":
            continue
        if depth == 1 and expected and token[0] != "]":
            yield token, next(left)
        expected = (depth, token[0]) in ((0, "["), (1, ","))
        depth += _DEEPER.get(token[0], 0)


def _statements(text: str) -> Iterator[_Statement]:
    tokens = [token for token in _TOKEN.finditer(text) if not token[0].startswith("#")]
    position, in_table = 0, False
    while position < len(tokens):
        end = _end(tokens, position)
        statement = tokens[position:end]
        if statement and statement[0][0] == "[":
            in_table = True
            name = next(token for token in statement if token[0] != "[")
            yield _Statement(_first_part(name[0]), statement[0].start())
        elif statement and not in_table:
            equals = next(n for n, token in enumerate(statement) if token[0] == "=")
            name = statement[0]
            yield _Statement(_first_part(name[0]), name.start(), statement[equals + 1 :])
        position = end + 1


def _end(tokens: Sequence[Token], position: int) -> int:
    """Where a statement ends: at the line end outside of all brackets."""
    depth = 0
    while position < len(tokens) and (depth or tokens[position][0] != "\n"):
        depth += _DEEPER.get(tokens[position][0], 0)
        position += 1
    return position


def _first_part(token: str) -> str:
    """The key of `a`, of `a.b` and of `"a"`."""
    key = token if token[0] in "\"'" else token.split(".")[0]
    return next(iter(tomllib.loads(f"{key} = 0")))
