"""JSON as the Scenario API writes it, into our values and back. Knows no network.

Read leniently: unknown fields are passed over, missing ones become None. What must be there and
isn't raises `Unreadable`, which the client treats as no answer at all.
"""

from __future__ import annotations

import logging
import math
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
    from collections.abc import Collection, Iterable, Mapping

    from composer.model import Described, Parameters, Value

log = logging.getLogger("composer.targets.scenario")

_SECRET_PARAMETERS = frozenset({"wandbKey"})
_TRAINING = frozenset({"training", "copying"})


class Unreadable(ValueError):
    """An answer that doesn't have the shape it should; the text says what it lacks."""


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
    """What describes a model, under the names that the API has for it."""
    names = {field.name: field.wire for field in DESCRIBED}
    return {names[name]: text for name, text in described.texts.items()}


def _plain_concept(concept: Concept) -> dict[str, object]:
    epoch = {"modelEpoch": concept.epoch} if concept.epoch is not None else {}
    return {"modelId": concept.model_id, "scale": concept.scale, **epoch}


def training(wanted: Parameters) -> dict[str, object]:
    """The body of `PUT /models/{id}/train`."""
    return {"parameters": dict(wanted)} if wanted else {}


# --- what we read ------------------------------------------------------------------------


def page(body: object) -> tuple[list[dict[str, Any]], str | None]:
    """The models of one page of a listing, as they are, and the token of the next page."""
    token = _mapping(body, "JSON object").get("nextPaginationToken")
    return models(body), str(token) if token else None


def models(body: object) -> list[dict[str, Any]]:
    """The models of an answer, as they are."""
    found = _mapping(body, "JSON object").get("models")
    if not isinstance(found, list):
        raise Unreadable("no list of models")
    return [raw for raw in found if isinstance(raw, dict)]


def readable(raws: Iterable[Mapping[str, Any]], *, described: Collection[str]) -> dict[str, Model]:
    """The models by id, without those whose ids we refuse; deleted ones say so in their status."""
    found = {}
    for raw in raws:
        try:
            model = read_model(raw, described=described)
        except Unreadable as bad:
            log.debug("passed over %s: %s", shorten(visible(repr(raw.get("id"))), 80), bad)
        else:
            found[model.id] = model
    return found


def is_deleted(raw: Mapping[str, Any]) -> bool:
    return bool(raw.get("deletedAt")) or raw.get("status") == DELETED


def describes(raws: Iterable[Mapping[str, Any]]) -> set[str]:
    """The described fields that any of these answers has: only such an absent one is empty."""
    return {field.name for field in DESCRIBED if any(field.wire in raw for raw in raws)}


def one_model(body: object) -> Model:
    """The model of a `{model}` answer, with the job's id if a job stands beside it."""
    whole = _mapping(body, "JSON object")
    raw = dict(_mapping(whole.get("model"), "model"))
    beside = whole.get("job")
    if isinstance(beside, dict) and is_id(beside.get("jobId")):
        raw["jobId"] = beside["jobId"]
    return read_model(raw, described=())


def read_model(raw: Mapping[str, Any], *, described: Collection[str]) -> Model:
    """One model. Of the fields `described` an absent one is empty, not unknown."""
    if not is_id(raw.get("id")):
        raise Unreadable("no usable id")
    kind, status = _text(raw, "type"), DELETED if is_deleted(raw) else _text(raw, "status")
    progress, remaining = _progress(raw.get("trainingProgress"))
    going = status in _TRAINING
    texts: dict[str, Any] = {
        field.name: _text(raw, field.wire)
        for field in DESCRIBED
        if field.wire in raw or field.name in described
    }
    tags = raw.get("tags")
    return Model(
        id=raw["id"],
        type=kind,
        name=_text(raw, "name"),
        status=status,
        created_at=_moment(raw.get("createdAt")),
        concepts=_concepts(raw.get("concepts")) if kind in composition_types() else None,
        parameters=_parameters(raw.get("parameters")),
        tags=frozenset(t for t in tags if isinstance(t, str)) if isinstance(tags, list) else None,
        job=raw["jobId"] if is_id(raw.get("jobId")) else None,
        owner=_text(raw, "ownerId") or None,
        progress=progress if going else None,
        remaining=remaining if going else None,
        updated_at=_moment(raw.get("updatedAt")),
        epoch=str(raw["epoch"]) if is_id(raw.get("epoch")) else None,
        **texts,
    )


def _concepts(raw: object) -> tuple[Concept, ...] | None:
    """Concepts, None if the answer doesn't say; scales may lie outside 0..1, or carry noise.

    An id that we refuse makes the model unreadable: without it, it would seem another content.
    """
    if not isinstance(raw, list):
        return None
    found = []
    for item in raw:
        scale = _number(item.get("scale")) if isinstance(item, dict) else None
        if scale is None:
            return None
        if not is_id(item.get("modelId")):
            raise Unreadable("no usable ids of its concepts")
        epoch = item.get("modelEpoch")
        found.append(Concept(item["modelId"], rounded(scale), str(epoch) if epoch else None))
    return tuple(found)


def _parameters(raw: object) -> Parameters | None:
    """Training parameters; what no recipe could say (an object, a secret) is passed over."""
    if not isinstance(raw, dict):
        return None
    known: dict[str, Value] = {}
    for name, value in raw.items():
        if name not in _SECRET_PARAMETERS:
            try:
                known.update(parameters({name: value}))
            except TypeError:
                log.debug("passed over the parameter %s", shorten(visible(name), 80))
    return tuple(sorted(known.items()))


def _progress(raw: object) -> tuple[float | None, float | None]:
    """How far a training is, 0..1, and the seconds that it still takes."""
    if not isinstance(raw, dict):
        return None, None
    done, left = _number(raw.get("progress")), _number(raw.get("remainingTimeMs"))
    return (
        None if done is None else min(max(done, 0.0), 1.0),
        None if left is None else max(left, 0.0) / 1000,
    )


def job(body: object) -> Job:
    """A `{job}` answer. Its error is the server's text as it came."""
    raw = _mapping(_mapping(body, "JSON object").get("job"), "job")
    if not is_id(raw.get("jobId")):
        raise Unreadable("no usable job id")
    done, _ = _progress(raw)
    details = raw.get("metadata")
    said = [details.get(name) for name in ("error", "hint")] if isinstance(details, dict) else []
    why = "; ".join(text for text in said if isinstance(text, str) and text)
    return Job(raw["jobId"], _text(raw, "status"), done or 0.0, why or None)


def price(body: object) -> float | None:
    """What a training would cost, in creative units, any discount already taken off."""
    return _number(_mapping(body, "JSON object").get("creativeUnitsCost"))


def _mapping(raw: object, what: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise Unreadable(f"no {what}")
    return raw


def _text(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    return value if isinstance(value, str) else ""


def _number(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    try:
        value = float(raw)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def _moment(raw: object) -> str:
    """A moment as ISO 8601 in UTC with milliseconds and `Z`, so that it sorts as text."""
    try:
        moment = datetime.fromisoformat(raw if isinstance(raw, str) else "")
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return ""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
