"""The calls of the Scenario API that concern models, training, jobs and results.

Each is a function from a `Call` to an `Answer`; it knows the engine and no HTTP. `CALLS` is the
table of them, which `app` puts under `/v1`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from composer.errors import NotFound
from composer.model import COMPOSITION, DESCRIBED, LORA, Described, is_id
from composer.server import listing, wire
from composer.server import request_body as bodies
from composer.server.auth import LINK_LIFE, Credentials, link_token
from composer.server.refusals import Refusal
from composer.targets.local.times import now_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from composer.server.listing import Query
    from composer.server.testing.replica_lag import ReplicaLag
    from composer.server.wire import Json
    from composer.targets.local.records import Download
    from composer.targets.local.service import Engine

DRY_RUN = 269
CONFLICT = 409
# What the API lets a model's owner change, and an engine that only composes can't.
FIXED = ("concepts", "parameters", "thumbnail", "epoch", "classSlug", "promptEmbedding")


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the engine as its project sees it, the query, and the body as an object."""

    engine: Engine
    project: str
    query: Query
    body: Mapping[str, Any]
    replica_lag: ReplicaLag
    credentials: Credentials
    base: str  # the URL under which the caller reached us, up to `/v1`


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON object and its HTTP status."""

    body: Json
    status: int = 200


# --- models ------------------------------------------------------------------------------


def list_models(call: Call) -> Answer:
    deleted = listing.wants_deleted(call.query)
    records = call.engine.records(deleted=deleted)
    found = [wire.composition(record) for record in call.replica_lag.listed(records, call.project)]
    found += [wire.lora(lora, call.project) for lora in call.engine.list_models(LORA)]
    return Answer(listing.models_page(call.query, found))


def create_model(call: Call) -> Answer:
    """A new model each time, whatever else there is: the API knows no idempotency."""
    if bodies.text(call.body, "type") != COMPOSITION:
        raise Refusal(f"type must be {COMPOSITION}: this server makes nothing else")
    name = bodies.text(call.body, "name")
    if name is None:
        raise Refusal("name is missing")
    if bodies.texts(call.body, "collectionIds"):
        raise Refusal("collectionIds: this server has no collections")
    model = call.engine.create(
        name,
        bodies.concepts(call.body),
        described=_described(call.body),
    )
    return Answer({"model": _written(call, model.id)})


def get_model(call: Call, id: str) -> Answer:
    return Answer({"model": _readable(call, id)})


def get_bulk(call: Call) -> Answer:
    ids = dict.fromkeys(bodies.texts(call.body, "modelIds"))
    found = _read(call, [id for id in ids if is_id(id)])
    if bodies.flag(call.body, "minimal"):
        found = [wire.minimal(model) for model in found]
    return Answer({"models": found})


def update_model(call: Call, id: str) -> Answer:
    name = bodies.text(call.body, "name")
    for field in FIXED:
        if call.body.get(field) is not None:
            raise Refusal(f"{field} can't be changed here: make a new model instead")
    if bodies.text(call.body, "type") not in (None, COMPOSITION):
        raise Refusal(f"type can't be changed here: every composition is a {COMPOSITION}")
    call.engine.update(id, name=name, described=_described(call.body))
    return Answer({"model": _written(call, id)})


def _described(body: Mapping[str, Any]) -> Described:
    return Described(**{field.name: bodies.text(body, field.wire) for field in DESCRIBED})


def delete_model(call: Call, id: str) -> Answer:
    call.engine.delete(id)
    return Answer({})


def tag_model(call: Call, id: str) -> Answer:
    """`strict` refuses tags that are there already, or aren't: all of them, or none."""
    add, remove = bodies.tags(call.body, "add"), bodies.tags(call.body, "delete")
    record = call.engine.record(id)
    if record and bodies.flag(call.body, "strict"):
        _check_strictly(set(add), set(remove), record.tags)
    before, after = call.engine.retag(id, add=add, remove=remove)
    return Answer({"added": sorted(after - before), "deleted": sorted(before - after)})


def _check_strictly(add: set[str], remove: set[str], there: frozenset[str]) -> None:
    if twice := sorted(add & there):
        raise Refusal(f"tags that are there already: {', '.join(twice)}", status=CONFLICT)
    if missing := sorted(remove - there):
        raise Refusal(f"tags that aren't there: {', '.join(missing)}", status=CONFLICT)


# --- training ----------------------------------------------------------------------------


def train_model(call: Call, id: str) -> Answer:
    """Queue its job; a dry run is refused where this would be, and answers 269 with the price."""
    dry_run = _is_dry_run(call.query)
    if not call.engine.start(id, bodies.training(call.body), dry_run=dry_run):
        raise Refusal("Model is already training")
    model = _written(call, id)
    cost = wire.cost(len(model["concepts"]))
    price = {"creativeUnitsCost": cost, "creativeUnitsDiscount": 0}
    if dry_run:
        return Answer(price, DRY_RUN)
    return Answer({"job": _job(call, model["jobId"]), "model": model, **price})


def act_on_training(call: Call, id: str) -> Answer:
    if bodies.text(call.body, "action") != "cancel":
        raise Refusal("action must be cancel")
    call.engine.cancel(id)
    return Answer({"model": _written(call, id)})


def _is_dry_run(query: Query) -> bool:
    return query.choice("dryRun", ("true", "api", "false"), "false") != "false"


# --- jobs, results, limits ---------------------------------------------------------------


def list_jobs(call: Call) -> Answer:
    found = [wire.training_job(job, call.project) for job in call.engine.jobs()]
    found += [_download_job(call, job) for job in call.engine.downloads()]
    return Answer(listing.jobs_page(call.query, found))


def get_job(call: Call, id: str) -> Answer:
    return Answer({"job": _job(call, id)})


def download_model(call: Call, id: str) -> Answer:
    """Only results: the files of the library are the user's, and stay where they are."""
    if bodies.text(call.body, "modelEpoch") is not None:
        raise Refusal("a composition has no epochs")
    call.engine.result(id)
    if _is_dry_run(call.query):
        return Answer({"creativeUnitsCost": 0, "creativeUnitsDiscount": 0}, DRY_RUN)
    job = "job_" + secrets.token_urlsafe(16)
    call.engine.add_download(job, id)
    return Answer({"jobId": job})


def get_limits(call: Call, id: str) -> Answer:
    if id != wire.owner_of(call.project):
        raise NotFound(f"there is no team {id} here")
    return Answer(wire.limits())


# --- within ------------------------------------------------------------------------------


def _readable(call: Call, id: str) -> Json:
    """A model as a read sees it; raises `NotFound`."""
    for model in _read(call, [id]):
        return model
    raise NotFound(f"there is no model {id}")


def _read(call: Call, ids: Iterable[str]) -> list[Json]:
    """The models of these ids that reads may know, in this order."""
    wanted = [id for id in ids if not call.replica_lag.hides(id)]
    records = {id: record for id in wanted if (record := call.engine.record(id))}
    rest = call.engine.get_models([id for id in wanted if id not in records])
    found = []
    for id in wanted:
        if id in records:
            found.append(wire.composition(records[id]))
        elif id in rest and rest[id].type == LORA:
            found.append(wire.lora(rest[id], call.project))
    return found


def _written(call: Call, id: str) -> Json:
    """A composition that this call wrote: its own writes are never late."""
    record = call.engine.record(id)
    if record is None:
        raise NotFound(f"{id} was deleted meanwhile")
    return wire.composition(record)


def _job(call: Call, id: str) -> Json:
    for training in call.engine.jobs(id):
        return wire.training_job(training, call.project)
    for download in call.engine.downloads(id):
        return _download_job(call, download)
    raise NotFound(f"there is no job {id}")


def _download_job(call: Call, job: Download) -> Json:
    alive = now_ms() - job.created_at <= LINK_LIFE * 1000
    url = f"{call.base}/downloads/{job.id}/{link_token(job.id, call.credentials)}"
    url += f"?projectId={call.project}" if call.project else ""
    return wire.download_job(job, url if alive else None, call.project)


Handler: TypeAlias = "Callable[..., Answer]"
CALLS: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/models", list_models),
    ("POST", "/models", create_model),
    ("POST", "/models/get-bulk", get_bulk),
    ("GET", "/models/<id>", get_model),
    ("PUT", "/models/<id>", update_model),
    ("DELETE", "/models/<id>", delete_model),
    ("PUT", "/models/<id>/tags", tag_model),
    ("PUT", "/models/<id>/train", train_model),
    ("POST", "/models/<id>/train/action", act_on_training),
    ("POST", "/models/<id>/download", download_model),
    ("GET", "/jobs", list_jobs),
    ("GET", "/jobs/<id>", get_job),
    ("GET", "/teams/<id>/limits", get_limits),
)
