"""Entries, contents and intents as plain dictionaries, and back.

The lock (YAML), the journal (JSON lines) and the plan's JSON share these shapes. Reading checks
ids and paths, because both become parts of file names and URLs.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, TypeAlias

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

Plain: TypeAlias = dict[str, Any]


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


# --- to plain values ---------------------------------------------------------------------


def plain_value(value: object) -> object:
    return [plain_value(item) for item in value] if isinstance(value, tuple) else value


def plain_parameters(values: Parameters) -> Plain:
    return {key: plain_value(value) for key, value in values}


def plain_concept(concept: Concept) -> Plain:
    epoch = {"modelEpoch": concept.epoch} if concept.epoch is not None else {}
    return {"modelId": concept.model_id, **epoch, "scale": concept.scale}


def plain_content(content: Content) -> Plain:
    plain: Plain = {"concepts": [plain_concept(concept) for concept in content.concepts]}
    if content.training:
        plain["training"] = plain_parameters(content.training)
    return plain


def plain_entry(entry: Entry) -> Plain:
    """An entry as the lock shows it: keys in order, absent values left out."""
    plain: Plain = {
        "name": entry.name,
        # Beside a line that no other entry has: a merge of lines can't put it below another one.
        "next": _plain_next(entry.next) if entry.next else None,
        "pins": dict(entry.pins),
        "composition": entry.composition,
        "job": entry.job,
        "content": plain_content(entry.content) if entry.content else None,
        "tags": list(entry.tags),
        "protect": entry.protect,
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


def read_content(plain: Plain) -> Content:
    concepts = [
        Concept(checked_id(c["modelId"]), float(c["scale"]), _optional_id(c.get("modelEpoch")))
        for c in plain["concepts"]
    ]
    return Content(in_order(concepts), parameters(plain.get("training")))


def read_entry(plain: Plain) -> Entry:
    return Entry(
        name=plain["name"],
        pins=tuple(sorted((name, checked_id(id)) for name, id in plain.get("pins", {}).items())),
        composition=_optional_id(plain.get("composition")),
        job=_optional_id(plain.get("job")),
        content=read_content(plain["content"]) if "content" in plain else None,
        tags=tuple(sorted(plain.get("tags", ()))),
        protect=plain.get("protect", False),
        next=_read_next(plain["next"]) if "next" in plain else None,
        replaced=tuple(_read_replaced(old) for old in plain.get("replaced", ())),
    )


def _read_next(plain: Plain) -> Next:
    return Next(
        composition=checked_id(plain["composition"]),
        content=read_content(plain["content"]),
        state=plain["state"],
        job=_optional_id(plain.get("job")),
    )


def _read_replaced(plain: Plain) -> Replaced:
    training = parameters(plain.get("training"))
    return Replaced(checked_id(plain["id"]), plain["name"], training, plain.get("protect", False))


def read_intent(plain: Plain) -> Intent:
    return Intent(
        token=str(plain["token"]),
        path=checked_path(plain["recipe"]),
        name=str(plain["name"]),
        content=read_content(plain["content"]),
        at=float(plain["at"]),
    )


def _optional_id(raw: object) -> str | None:
    return None if raw is None else checked_id(raw)
