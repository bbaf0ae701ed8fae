"""Checked reading of JSON: each value knows its place, and an error names it.

The lock's document and the journal's events are read through `Node`. A value of the wrong type, a
missing or unknown key, a key that occurs twice, and what is no id or path raise `InvalidInput`.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from composer.errors import InvalidInput
from composer.model import is_id

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_DIGITS = 100  # of a whole number: converting more takes the square of the time


class _RepeatedKey(dict[str, Any]):
    """An object in which this key occurs twice; JSON parsers would silently take the last."""

    key = ""


def parse_json(text: str) -> object:
    """The values of a JSON text. Raises `ValueError` where it is not JSON, NaN among it.

    A key that occurs twice is found only when a `Node` reads its object: so its place is known.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse, parse_int=_integer
        )
    except RecursionError as deep:
        raise ValueError("nested too deeply") from deep


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) == len(pairs):
        return plain
    keys = [key for key, _ in pairs]
    repeated = _RepeatedKey(plain)
    repeated.key = next(key for key in keys if keys.count(key) > 1)
    return repeated


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of more than {_MAX_DIGITS} digits")
    return int(digits)


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a JSON document, and its JSON path there (`targets.local.owner`)."""

    value: Any
    path: str = ""

    def error(self, problem: str) -> InvalidInput:
        return InvalidInput(f"{self.path or 'the top level'}: {problem}")

    # --- what has parts ------------------------------------------------------------------

    def members(self) -> Iterator[tuple[str, Node]]:
        """The keys and values of an object."""
        if not isinstance(self.value, dict):
            raise self._not("an object")
        if isinstance(self.value, _RepeatedKey):
            raise self.error(f"the key {json.dumps(self.value.key)} occurs twice")
        for key, value in self.value.items():
            yield key, Node(value, self._below(key))

    def _below(self, key: str) -> str:
        if not _PLAIN_KEY.fullmatch(key):
            return f"{self.path}[{json.dumps(key)}]"
        return f"{self.path}.{key}" if self.path else key

    def fields(self, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Node]:
        """The members of an object that has these keys and no others."""
        members = dict(self.members())
        for key in required:
            if key not in members:
                raise self.error(f"the key {json.dumps(key)} is missing")
        for key in members:
            if key not in required and key not in optional:
                raise self.error(f"there is no key {json.dumps(key)}")
        return members

    def items(self) -> list[Node]:
        """The items of an array."""
        if not isinstance(self.value, list):
            raise self._not("an array")
        return [Node(value, f"{self.path}[{at}]") for at, value in enumerate(self.value)]

    # --- single values -------------------------------------------------------------------

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self._not("a string")
        return self.value

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self._not("true or false")
        return self.value

    def number(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self._not("a number")
        if not math.isfinite(self.value):
            raise self.error("the number is too large")
        return float(self.value)

    def one_of(self, *words: str) -> str:
        if self.value not in words:
            raise self.error(f"{json.dumps(self.value)[:80]} is not one of {', '.join(words)}")
        return str(self.value)

    def id(self) -> str:
        try:
            return checked_id(self.value)
        except InvalidInput as bad:
            raise self.error(bad.message) from bad

    def scalar(self) -> str | int | float | bool:
        """A string, a finite number, true or false."""
        if isinstance(self.value, bool | str):
            return self.value
        self.number()
        number: int | float = self.value
        return number

    def _not(self, wanted: str) -> InvalidInput:
        kinds: list[tuple[type, str]] = [(dict, "an object"), (list, "an array")]
        kinds += [(str, "a string"), (bool, "true or false"), (int, "a number")]
        kinds += [(float, "a number")]
        names = [name for kind, name in kinds if isinstance(self.value, kind)]
        return self.error(f"is {names[0] if names else 'null'}, not {wanted}")


def checked_id(raw: object) -> str:
    """This id, if it is one. Raises `InvalidInput`."""
    if isinstance(raw, str) and is_id(raw):
        return raw
    raise InvalidInput(f"{raw!r} is not an id: letters, digits, `_` and `-`, at most 64")


def checked_path(raw: object) -> str:
    """A recipe's path, if it stays inside the root on every system. Raises `InvalidInput`."""
    parts = PurePosixPath(raw).parts if isinstance(raw, str) else ()
    outside = not parts or parts[0] == "/" or ".." in parts or parts[0][1:2] == ":"
    if outside or not isinstance(raw, str) or "\\" in raw or "\0" in raw:
        raise InvalidInput(f"{raw!r} is not a recipe's path inside the project")
    return raw
