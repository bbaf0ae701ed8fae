"""Entries, contents and intents as plain values, and back.

The lock (JSON), the journal (JSON lines) and the plan's JSON share these shapes.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

from composer.lock.decoding import Node, checked_path
from composer.model import (
    COMPOSITION,
    Concept,
    Content,
    Entry,
    Intent,
    Next,
    Parameters,
    Replaced,
    in_order,
    parameters,
)

Plain: TypeAlias = dict[str, Any]

STATES = ("created", "training", "mismatch")
_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")


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


def plain_content(content: Content) -> Plain:
    plain: Plain = {"concepts": [plain_concept(concept) for concept in content.concepts]}
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
        "content": plain_content(entry.content) if entry.content else None,
        "tags": list(entry.tags),
        "protect": entry.protect,
        "next": _plain_next(entry.next) if entry.next else None,
        "replaced": [_plain_replaced(old) for old in entry.replaced],
    }
    return {key: value for key, value in plain.items() if value not in (None, [], {})}


def _plain_next(coming: Next) -> Plain:
    job = {"job": coming.job} if coming.job else {}
    content = plain_content(coming.content)
    return {"composition": coming.composition, **job, "content": content, "state": coming.state}


def _plain_replaced(old: Replaced) -> Plain:
    training = {"training": plain_parameters(old.training)} if old.training else {}
    return {"id": old.id, "name": old.name, **training, "protect": old.protect}


def plain_intent(intent: Intent) -> Plain:
    content = plain_content(intent.content)
    what = {"token": intent.token, "recipe": intent.path, "name": intent.name}
    return {**what, "content": content, "at": intent.at}


# --- and back ----------------------------------------------------------------------------


def read_content(node: Node) -> Content:
    """Raises `InvalidInput`."""
    fields = node.fields(["concepts"], ["training"])
    concepts = [_read_concept(concept) for concept in fields["concepts"].items()]
    if not concepts:
        raise fields["concepts"].error("is empty")
    return Content(in_order(concepts), _read_training(fields))


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
    pins = fields["pins"].members() if "pins" in fields else ()
    tags = fields["tags"].items() if "tags" in fields else ()
    replaced = fields["replaced"].items() if "replaced" in fields else ()
    return Entry(
        name=fields["name"].text(),
        type=fields["type"].text() if "type" in fields else COMPOSITION,
        pins=tuple(sorted((name, id.id()) for name, id in pins)),
        composition=_id(fields, "composition"),
        job=_id(fields, "job"),
        content=read_content(fields["content"]) if "content" in fields else None,
        tags=tuple(sorted(tag.text() for tag in tags)),
        protect=_flag(fields, "protect"),
        next=_read_next(fields["next"]) if "next" in fields else None,
        replaced=tuple(_read_replaced(old) for old in replaced),
    )


def _read_next(node: Node) -> Next:
    fields = node.fields(["composition", "content", "state"], ["job"])
    return Next(
        composition=fields["composition"].id(),
        content=read_content(fields["content"]),
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
        at=float(plain["at"]),
    )


def _id(fields: dict[str, Node], key: str) -> str | None:
    return fields[key].id() if key in fields else None


def _flag(fields: dict[str, Node], key: str) -> bool:
    return fields[key].flag() if key in fields else False
