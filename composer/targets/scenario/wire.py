"""JSON of the Scenario API, into our values and back. Sends nothing.

It is read leniently: unknown fields are ignored, missing ones become None. A required field that is
missing raises `Unreadable`, which the client treats like a lost answer.
"""

from __future__ import annotations

import logging
import math
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from composer.lora.families import composition_types
from composer.model import (
    DELETED,
    DESCRIBED,
    Concept,
    Job,
    Model,
    is_id,
    parameters,
    rounded,
)
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from composer.model import Described, Parameters, Value

log = logging.getLogger("composer.targets.scenario")

_SECRET_PARAMETERS = frozenset({"wandbKey"})
_LONGEST = 300  # characters of a text; a recipe's own are shorter, so a cut one equals none
_LONGEST_TOKEN = 4096  # characters of a page's token, which goes into a URL
_TRAINING = frozenset({"training", "copying"})


class Unreadable(ValueError):
    """An answer without the required shape; the text says what it lacks."""


# --- what we send ------------------------------------------------------------------------


def creation(
    name: str, type: str, concepts: Iterable[Concept], described: Described
) -> dict[str, object]:
    """The body of `POST /models`."""
    body: dict[str, object] = {
        "name": name,
        "type": type,
        "concepts": [_plain_concept(concept) for concept in concepts],
    }
    return {**body, **described_texts(described)}


def described_texts(described: Described) -> dict[str, str]:
    """The described fields, under the names that the API has for them."""
    names = {field.name: field.wire for field in DESCRIBED}
    return {names[name]: text for name, text in described.texts.items()}


def _plain_concept(concept: Concept) -> dict[str, object]:
    epoch = {"modelEpoch": concept.epoch} if concept.epoch is not None else {}
    return {"modelId": concept.model_id, "scale": concept.scale, **epoch}


def training(wanted: Parameters) -> dict[str, object]:
    """The body of `PUT /models/{id}/train`."""
    return {"parameters": dict(wanted)} if wanted else {}


# --- what we read ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Models:
    """What one answer says of models: `described` are the described fields that any of them has."""

    by_id: dict[str, Model]
    described: set[str]
    next_page: str | None


def models(body: object, wanted: Callable[[dict[str, Any]], bool]) -> Models:
    """The models of an answer that are `wanted`, and the token of the next page.

    Those with invalid ids are left out; deleted ones have that status.
    """
    whole = mapping(body, "JSON object")
    listed = whole.get("models")
    if not isinstance(listed, list):
        raise Unreadable("no list of models")
    raws = [raw for raw in listed if isinstance(raw, dict) and wanted(raw)]
    described = {field.name for field in DESCRIBED if any(field.wire in raw for raw in raws)}
    return Models(_readable(raws), described, page_token(whole.get("nextPaginationToken")))


def page_token(raw: object) -> str | None:
    token = str(raw) if raw else None
    if token and (len(token) > _LONGEST_TOKEN or not token.isprintable()):
        raise Unreadable("no usable page token")
    return token


def _readable(raws: Iterable[Mapping[str, Any]]) -> dict[str, Model]:
    by_id = {}
    for raw in raws:
        try:
            model = read_model(raw)
        except Unreadable as bad:
            log.debug("ignored %s: %s", shorten(visible(repr(raw.get("id"))), 80), bad)
        else:
            by_id[model.id] = model
    return by_id


def with_described(model: Model, described: Collection[str]) -> Model:
    """The model, with those of its fields `described` empty that the answer left out."""
    empty: dict[str, Any] = {name: "" for name in described if getattr(model, name) is None}
    return replace(model, **empty) if empty else model


def size(model: Model) -> int:
    """About how many bytes a model takes in memory."""
    return 200 + sum(_size(getattr(model, name)) for name in Model.__slots__)


def _size(value: object) -> int:
    if isinstance(value, Concept):
        return 250
    parts = value if isinstance(value, tuple | frozenset) else ()
    return sys.getsizeof(value) + sum(map(_size, parts))


def is_deleted(raw: Mapping[str, Any]) -> bool:
    return bool(raw.get("deletedAt")) or raw.get("status") == DELETED


def one_model(body: object) -> Model:
    """The model of a `{model}` answer, with the id of the job beside it, if there is one."""
    whole = mapping(body, "JSON object")
    raw = dict(mapping(whole.get("model"), "model"))
    beside = whole.get("job")
    if isinstance(beside, dict) and is_id(beside.get("jobId")):
        raw["jobId"] = beside["jobId"]
    return read_model(raw)


def read_model(raw: Mapping[str, Any]) -> Model:
    """One model. Absent fields are None: unknown. Long texts are cut."""
    if not is_id(raw.get("id")):
        raise Unreadable("no usable id")
    kind, status = text(raw, "type"), DELETED if is_deleted(raw) else text(raw, "status")
    progress, remaining = _progress(raw.get("trainingProgress"))
    going = status in _TRAINING
    texts: dict[str, Any] = {
        field.name: text(raw, field.wire) for field in DESCRIBED if field.wire in raw
    }
    tags = raw.get("tags")
    return Model(
        id=raw["id"],
        type=kind,
        name=text(raw, "name"),
        status=status,
        created_at=moment(raw.get("createdAt")),
        concepts=_concepts(raw.get("concepts")) if kind in composition_types() else None,
        parameters=_parameters(raw.get("parameters")),
        tags=frozenset(t for t in tags if isinstance(t, str)) if isinstance(tags, list) else None,
        job=raw["jobId"] if is_id(raw.get("jobId")) else None,
        owner=raw["ownerId"] if is_id(raw.get("ownerId")) else None,
        progress=progress if going else None,
        remaining=remaining if going else None,
        updated_at=moment(raw.get("updatedAt")),
        epoch=str(raw["epoch"]) if is_id(raw.get("epoch")) else None,
        **texts,
    )


def _concepts(raw: object) -> tuple[Concept, ...] | None:
    """Concepts, None if the answer lacks them; scales are rounded and may lie outside 0..1.

    An invalid id makes the model unreadable: without that concept, its content would be another.
    """
    if not isinstance(raw, list):
        return None
    concepts = []
    for item in raw:
        scale = number(item.get("scale")) if isinstance(item, dict) else None
        if scale is None:
            return None
        if not is_id(item.get("modelId")):
            raise Unreadable("no usable ids of its concepts")
        epoch = str(item["modelEpoch"]) if item.get("modelEpoch") else None
        if epoch is not None and not is_id(epoch):
            raise Unreadable("no usable epochs of its concepts")
        concepts.append(Concept(item["modelId"], rounded(scale), epoch))
    return tuple(concepts)


def _parameters(raw: object) -> Parameters | None:
    """Training parameters, without those that no recipe can have (objects, secrets)."""
    if not isinstance(raw, dict):
        return None
    readable: dict[str, Value] = {}
    for name, value in raw.items():
        if name not in _SECRET_PARAMETERS:
            try:
                readable.update(parameters({name: value}))
            except TypeError:
                log.debug("ignored the parameter %s", shorten(visible(name), 80))
    return tuple(sorted(readable.items()))


def _progress(raw: object) -> tuple[float | None, float | None]:
    """The progress of a training, 0..1, and the seconds that it still takes."""
    if not isinstance(raw, dict):
        return None, None
    done, left = number(raw.get("progress")), number(raw.get("remainingTimeMs"))
    return (
        None if done is None else min(max(done, 0.0), 1.0),
        None if left is None else max(left, 0.0) / 1000,
    )


def job(body: object) -> Job:
    """A `{job}` answer. Its error is the server's text, unchanged."""
    return read_job(mapping(mapping(body, "JSON object").get("job"), "job"))


def read_job(raw: Mapping[str, Any]) -> Job:
    """One job, of whatever kind."""
    if not is_id(raw.get("jobId")):
        raise Unreadable("no usable job id")
    done, _ = _progress(raw)
    details = raw.get("metadata")
    texts = [details.get(name) for name in ("error", "hint")] if isinstance(details, dict) else []
    error = "; ".join(text for text in texts if isinstance(text, str) and text)
    return Job(raw["jobId"], text(raw, "status"), done or 0.0, error or None)


def price(body: object) -> float | None:
    """What a training would cost, in creative units, less any discount."""
    return number(mapping(body, "JSON object").get("creativeUnitsCost"))


def mapping(raw: object, what: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise Unreadable(f"no {what}")
    return raw


def text(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    return shorten(value, _LONGEST) if isinstance(value, str) else ""


def number(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    try:
        value = float(raw)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def moment(raw: object) -> str:
    """A time as ISO 8601 in UTC with milliseconds and `Z`, so that it sorts as text."""
    try:
        time = datetime.fromisoformat(raw if isinstance(raw, str) else "")
        time = time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return ""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
