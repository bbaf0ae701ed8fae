"""Entries, contents and intents as plain values, and back.

The lock (JSON), the journal (JSON lines) and the plan's JSON share these shapes. They are read
through `Node`: each value knows its place, and an error names it. A value of the wrong type, a
missing or unknown key, a key that occurs twice, and an invalid id or path raise `InvalidInput`.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from composer.errors import InvalidInput
from composer.model import (
    Concept,
    Content,
    Entry,
    Intent,
    Next,
    Parameters,
    Replaced,
    in_order,
    is_id,
    parameters,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

Plain: TypeAlias = dict[str, Any]

STATES = ("created", "training", "mismatch")
_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_DIGITS = 100  # of a whole number: converting more takes the square of the time


# --- to plain values ---------------------------------------------------------------------


def plain_value(value: object) -> object:
    return [plain_value(item) for item in value] if isinstance(value, tuple) else value


def plain_parameters(values: Parameters) -> Plain:
    return {key: plain_value(value) for key, value in values}


def plain_concept(concept: Concept) -> Plain:
    epoch = {"modelEpoch": concept.epoch} if concept.epoch is not None else {}
    whole = concept.scale == int(concept.scale)  # 1, not 1.0: the shortest decimal
    scale = int(concept.scale) if whole else concept.scale
    return {"modelId": concept.model_id, **epoch, "scale": scale}


def plain_content(content: Content, *, beside: str | None = None) -> Plain:
    """A content; its type is left out where it is the one that stands `beside` it."""
    plain: Plain = {} if content.type == beside else {"type": content.type}
    plain["concepts"] = [plain_concept(concept) for concept in content.concepts]
    if content.training:
        plain["training"] = plain_parameters(content.training)
    return plain


def plain_entry(entry: Entry) -> Plain:
    """An entry as the lock shows it: keys in order, absent values left out."""
    plain: Plain = {
        "name": entry.name,
        "type": entry.type,
        "pins": dict(sorted(entry.pins)),
        "composition": entry.composition,
        "job": entry.job,
        "content": plain_content(entry.content, beside=entry.type) if entry.content else None,
        "tags": list(entry.tags),
        "protect": entry.protect,
        "next": _plain_next(entry.next, entry.type) if entry.next else None,
        "replaced": [_plain_replaced(old) for old in entry.replaced],
    }
    return {key: value for key, value in plain.items() if value not in (None, [], {})}


def _plain_next(coming: Next, type: str | None) -> Plain:
    job = {"job": coming.job} if coming.job else {}
    content = plain_content(coming.content, beside=type)
    return {"composition": coming.composition, **job, "content": content, "state": coming.state}


def _plain_replaced(old: Replaced) -> Plain:
    training = {"training": plain_parameters(old.training)} if old.training else {}
    return {"id": old.id, "name": old.name, **training, "protect": old.protect}


def plain_intent(intent: Intent) -> Plain:
    content = plain_content(intent.content)
    what = {"token": intent.token, "recipe": intent.path, "name": intent.name}
    uptime = {} if intent.uptime is None else {"uptime": intent.uptime}
    return {**what, "content": content, "at": intent.at, **uptime}


# --- and back ----------------------------------------------------------------------------


def read_content(node: Node, *, beside: str | None = None) -> Content:
    """A content, of the type `beside` it unless it has its own. Raises `InvalidInput`."""
    fields = node.fields(["concepts"], ["type", "training"])
    type = _type(fields) or beside
    if type is None:
        raise node.error("has no type")
    concepts = [_read_concept(concept) for concept in fields["concepts"].items()]
    if not concepts:
        raise fields["concepts"].error("is empty")
    return Content(type, in_order(concepts), _read_training(fields))


def _read_concept(node: Node) -> Concept:
    fields = node.fields(["modelId", "scale"], ["modelEpoch"])
    return Concept(fields["modelId"].id(), fields["scale"].number(), _id(fields, "modelEpoch"))


def _read_training(fields: dict[str, Node]) -> Parameters:
    if "training" not in fields:
        return ()
    training: Plain = {}
    for key, value in fields["training"].members():
        if not _PARAMETER.fullmatch(key):
            raise value.error("is not the name of a training parameter")
        several = isinstance(value.value, list)
        training[key] = [v.scalar() for v in value.items()] if several else value.scalar()
    return parameters(training)


_OPTIONAL = ["type", "pins", "composition", "job", "content", "tags", "protect", "next", "replaced"]


def read_entry(node: Node) -> Entry:
    """Raises `InvalidInput`."""
    fields = node.fields(["name"], _OPTIONAL)
    type = _type(fields)
    pins = fields["pins"].members() if "pins" in fields else ()
    tags = fields["tags"].items() if "tags" in fields else ()
    replaced = fields["replaced"].items() if "replaced" in fields else ()
    return Entry(
        name=fields["name"].text(),
        pins=tuple(sorted((name, id.id()) for name, id in pins)),
        composition=_id(fields, "composition"),
        job=_id(fields, "job"),
        content=read_content(fields["content"], beside=type) if "content" in fields else None,
        tags=tuple(sorted(tag.text() for tag in tags)),
        protect=_flag(fields, "protect"),
        next=_read_next(fields["next"], type) if "next" in fields else None,
        replaced=tuple(_read_replaced(old) for old in replaced),
    )


def _read_next(node: Node, type: str | None) -> Next:
    fields = node.fields(["composition", "content", "state"], ["job"])
    return Next(
        composition=fields["composition"].id(),
        content=read_content(fields["content"], beside=type),
        state=fields["state"].one_of(*STATES),
        job=_id(fields, "job"),
    )


def _read_replaced(node: Node) -> Replaced:
    fields = node.fields(["id", "name"], ["training", "protect"])
    training = _read_training(fields)
    return Replaced(fields["id"].id(), fields["name"].text(), training, _flag(fields, "protect"))


def read_intent(plain: Plain) -> Intent:
    """Raises `InvalidInput`; `KeyError` or `ValueError` for a broken event."""
    return Intent(
        token=str(plain["token"]),
        path=checked_path(plain["recipe"]),
        name=str(plain["name"]),
        content=read_content(Node(plain["content"], "content")),
        at=Node(plain["at"], "at").number(),
        uptime=Node(plain["uptime"], "uptime").number() if "uptime" in plain else None,
    )


def _type(fields: dict[str, Node]) -> str | None:
    return fields["type"].text() if "type" in fields else None


def _id(fields: dict[str, Node], key: str) -> str | None:
    return fields[key].id() if key in fields else None


def _flag(fields: dict[str, Node], key: str) -> bool:
    return fields[key].flag() if key in fields else False


# --- checked reading of JSON -----------------------------------------------------------


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


class Node(NamedTuple):
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
                raise self.error(f"unknown key {json.dumps(key)}")
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
            raise self.error("is not a finite number")
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

    def _not(self, expected: str) -> InvalidInput:
        kinds: list[tuple[type, str]] = [(dict, "an object"), (list, "an array")]
        kinds += [(str, "a string"), (bool, "true or false"), (int, "a number")]
        kinds += [(float, "a number")]
        names = [name for kind, name in kinds if isinstance(self.value, kind)]
        return self.error(f"is {names[0] if names else 'null'}, not {expected}")


def checked_id(raw: object) -> str:
    """`raw`, if it is an id. Raises `InvalidInput`."""
    if isinstance(raw, str) and is_id(raw):
        return raw
    raise InvalidInput(f"{raw!r} is not an id: letters, digits, `_` and `-`, at most 64")


def checked_path(raw: object) -> str:
    """`raw`, if it is a recipe's path inside the root on every system. Raises `InvalidInput`."""
    parts = PurePosixPath(raw).parts if isinstance(raw, str) else ()
    outside = not parts or parts[0] == "/" or ".." in parts or parts[0][1:2] == ":"
    if outside or not isinstance(raw, str) or "\\" in raw or "\0" in raw:
        raise InvalidInput(f"{raw!r} is not a recipe's path inside the project")
    return raw
