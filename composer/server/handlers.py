"""The calls of the Scenario API that concern models, training, jobs and results.

Each is a function from a `Call` to an `Answer`; it knows the engine and not HTTP. `CALLS` is the
table of them, which `app` serves under `/v1`.
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING, Any

from composer.errors import NotFound
from composer.lora import families
from composer.model import DESCRIBED, Described, is_id
from composer.server import pages, wire
from composer.server import request_fields as fields
from composer.server.auth import LINK_LIFE, link_token
from composer.server.calls import CONFLICT, DRY_RUN, Answer, Call
from composer.server.generation_inputs import described_inputs
from composer.server.request_fields import Refusal
from composer.targets.local.paging import all_of
from composer.targets.local.records import now_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from composer.server.calls import Calls
    from composer.server.pages import Page
    from composer.server.wire import Json
    from composer.targets.local.records import Download, Record

# What the API lets a model's owner change and an engine that only composes can't.
FIXED = ("concepts", "parameters", "thumbnail", "epoch", "classSlug", "promptEmbedding")


# --- models ------------------------------------------------------------------------------


def list_models(call: Call) -> Answer:
    page = pages.models_page_of(call.query)
    records: Iterable[Record] = ()
    if page.wants(families.composition_types()):
        records = call.engine.records_of(page.listing)
    newest_first = page.listing.newest_first
    listed = call.visibility.listed(records, call.project, newest_first=newest_first)
    loras: Iterable[Json] = ()
    if page.wants(families.lora_types()):
        found = call.engine.list_models(*families.lora_types())
        loras = page.in_order(wire.lora(model, call.project) for model in found)
    return Answer(page.answer(map(wire.composition, listed), loras))


def create_model(call: Call) -> Answer:
    """Create a model; the API isn't idempotent, so equal requests make several models."""
    type, types = fields.text(call.body, "type"), sorted(families.composition_types())
    if type not in types:
        raise Refusal(f"type must be {' or '.join(types)}: this server creates nothing else")
    name = fields.text(call.body, "name")
    if name is None:
        raise Refusal("name is missing")
    if fields.texts(call.body, "collectionIds"):
        raise Refusal("collectionIds: this server has no collections")
    model = call.engine.create(
        name,
        fields.concepts(call.body),
        type=type,
        described=_described(call.body),
    )
    return Answer({"model": _written(call, model.id)})


def get_model(call: Call, id: str) -> Answer:
    return Answer({"model": _read_one(call, id)})


def get_bulk(call: Call) -> Answer:
    ids = dict.fromkeys(fields.texts(call.body, "modelIds"))
    models = read_models(call, [id for id in ids if is_id(id)])
    if fields.flag(call.body, "minimal"):
        models = [wire.minimal(model) for model in models]
    return Answer({"models": models})


def update_model(call: Call, id: str) -> Answer:
    name = fields.text(call.body, "name")
    for field in FIXED:
        if call.body.get(field) is not None:
            raise Refusal(f"{field} can't be changed here: make a new model instead")
    type, record = fields.text(call.body, "type"), call.engine.record(id)
    if record and type not in (None, record.type):
        raise Refusal(f"type can't be changed: {id} is a {record.type}")
    call.engine.update(id, name=name, described=_described(call.body))
    return Answer({"model": _written(call, id)})


def _described(body: Mapping[str, Any]) -> Described:
    return Described(**{field.name: fields.text(body, field.wire) for field in DESCRIBED})


def delete_model(call: Call, id: str) -> Answer:
    call.engine.delete(id)
    return Answer({})


def tag_model(call: Call, id: str) -> Answer:
    """Add and remove tags; with `strict`, one that is there already or is missing refuses all."""
    add, remove = fields.tags(call.body, "add"), fields.tags(call.body, "delete")
    record = call.engine.record(id)
    if record and fields.flag(call.body, "strict"):
        _check_strictly(set(add), set(remove), record.tags)
    before, after = call.engine.retag(id, add=add, remove=remove)
    return Answer({"added": sorted(after - before), "deleted": sorted(before - after)})


def _check_strictly(add: set[str], remove: set[str], there: frozenset[str]) -> None:
    if twice := sorted(add & there):
        raise Refusal(f"the model already has the tags {', '.join(twice)}", status=CONFLICT)
    if missing := sorted(remove - there):
        raise Refusal(f"the model does not have the tags {', '.join(missing)}", status=CONFLICT)


# --- training ----------------------------------------------------------------------------


def train_model(call: Call, id: str) -> Answer:
    """Queue its job. A dry run makes the same checks and answers 269 with the price."""
    dry_run = call.is_dry_run
    if not call.engine.start(id, fields.training(call.body), dry_run=dry_run):
        raise Refusal("Model is already training")
    model = _written(call, id)
    cost = wire.cost(len(model["concepts"]))
    price = {"creativeUnitsCost": cost, "creativeUnitsDiscount": 0}
    if dry_run:
        return Answer(price, DRY_RUN)
    return Answer({"job": _job(call, model["jobId"]), "model": model, **price})


def act_on_training(call: Call, id: str) -> Answer:
    if fields.text(call.body, "action") != "cancel":
        raise Refusal("action must be cancel")
    call.engine.cancel(id)
    return Answer({"model": _written(call, id)})


# --- jobs, results, limits ---------------------------------------------------------------


def list_jobs(call: Call) -> Answer:
    page = pages.jobs_page_of(call.query)
    trainings = (wire.training_job(job, call.project) for job in call.engine.jobs_of(page.listing))
    downloads: Iterable[Json] = ()
    if wanted := pages.downloads_of(page):
        downloads = (_download_job(call, job) for job in call.engine.downloads_of(wanted))
    return Answer(page.answer(trainings, downloads, _generation_jobs(call, page)))


def _generation_jobs(call: Call, page: Page) -> Iterable[Json]:
    wanted = pages.generations_of(page)
    if wanted is None:
        return ()
    read = partial(call.generations.page, call.project)
    jobs = (job for job in all_of(read, wanted) if not call.visibility.hides(job.id))
    return map(wire.generation_job, jobs)


def get_job(call: Call, id: str) -> Answer:
    return Answer({"job": _job(call, id)})


def act_on_job(call: Call, id: str) -> Answer:
    """Cancel a job that makes images; as in the API, others can't be canceled by this call."""
    if fields.text(call.body, "action") != "cancel":
        raise Refusal("action must be cancel")
    job = _job(call, id)
    if job["jobType"] != wire.GENERATION_JOB:
        raise Refusal("only jobs that make images can be canceled by this call")
    if not call.generations.cancel(id):
        raise Refusal(f"the job has ended already: {job['status']}")
    if call.images:
        call.images.end(id)
    return Answer({"job": _job(call, id)})


def download_model(call: Call, id: str) -> Answer:
    """A job with a link to a composition's result; a LoRA of the library is not offered."""
    if fields.text(call.body, "modelEpoch") is not None:
        raise Refusal("compositions have no epochs")
    call.engine.result(id)
    if call.is_dry_run:
        return Answer({"creativeUnitsCost": 0, "creativeUnitsDiscount": 0}, DRY_RUN)
    job = "job_" + secrets.token_urlsafe(16)
    call.engine.add_download(job, id)
    return Answer({"jobId": job})


def get_limits(call: Call, id: str) -> Answer:
    if id != wire.owner_of(call.project):
        raise NotFound(f"this server has no team {id}")
    return Answer(wire.limits())


# --- helpers ------------------------------------------------------------------------------


def _read_one(call: Call, id: str) -> Json:
    """The model of this id if a read may see it; raises `NotFound`."""
    for model in read_models(call, [id]):
        return model
    raise NotFound(f"no model has the id {id}")


def read_models(call: Call, ids: Iterable[str]) -> list[Json]:
    """The models of these ids that a read may see, in this order."""
    wanted = [id for id in ids if not call.visibility.hides(id)]
    records = {id: record for id in wanted if (record := call.engine.record(id))}
    rest = call.engine.get_models([id for id in wanted if id not in records])
    models = []
    for id in wanted:
        if id in records:
            models.append(wire.composition(records[id]))
        elif id in rest and rest[id].type in families.lora_types():
            models.append(wire.lora(rest[id], call.project))
        elif call.images and (family := families.of_base_model(id)):
            inputs = described_inputs(family.types)
            models.append({**wire.base_model(id, call.project), "inputs": inputs})
    return models


def _written(call: Call, id: str) -> Json:
    """A composition that this call wrote, which never lags; raises `NotFound`."""
    record = call.engine.record(id)
    if record is None:
        raise NotFound(f"{id} has been deleted meanwhile")
    return wire.composition(record)


def _job(call: Call, id: str) -> Json:
    if training := call.engine.training_job(id):
        return wire.training_job(training, call.project)
    if download := call.engine.download(id):
        return _download_job(call, download)
    generation = call.generations.get(id, call.project)
    if generation and not call.visibility.hides(id):
        return wire.generation_job(generation)
    raise NotFound(f"no job has the id {id}")


def _download_job(call: Call, job: Download) -> Json:
    alive = now_ms() - job.created_at <= LINK_LIFE * 1000
    url = f"{call.base}/downloads/{job.id}/{link_token(job.id, call.credentials)}"
    url += f"?projectId={call.project}" if call.project else ""
    return wire.download_job(job, url if alive else None, call.project)


CALLS: Calls = (
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
    ("POST", "/jobs/<id>/action", act_on_job),
    ("GET", "/teams/<id>/limits", get_limits),
)
