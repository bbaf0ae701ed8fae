"""Models, jobs and pages of them as the Scenario API writes them.

Every field that the vendor's own client requires is there: the fields are those of `scenario-sdk`
2.4.0 (`types/model_retrieve_response`, `types/job_retrieve_response`,
`types/team_retrieve_limits_response`). The token of a page names the item that the page begins
after, so that models made or deleted meanwhile shift nothing.
"""

from __future__ import annotations

import base64
import heapq
import json
from dataclasses import dataclass
from datetime import timedelta
from itertools import dropwhile, islice
from typing import TYPE_CHECKING, Any, TypeAlias

from composer.lora import families
from composer.model import DESCRIBED
from composer.server.request_fields import Refusal, moment
from composer.targets.local.records import EPOCH, iso, now_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from composer.model import Concept, Model
    from composer.server.request_fields import Query
    from composer.targets.local.records import Download, JobRecord, Record

Json: TypeAlias = "dict[str, Any]"

OWNER = "team_compose"  # owns what belongs to no project
PRICE = 5  # creative units for each concept of a composition; nobody is charged
DOWNLOAD_JOB = "model-download"
STAGES = {"queued": "queued-for-train", "in-progress": "running-train"}
PLENTY = 100_000  # where the API has a limit and the engine has none
LIMITS = [
    "apiKeys",
    "canvasAssetLayers",
    "canvasAssets",
    "collections",
    "creativeUnits",
    "defaultSeats",
    "downloadAssets",
    "downloadModel",
    "inferenceBatchSize",
    "maxCooldown",
    "maxTrainingDatasets",
    "minCooldown",
    "models",
    "OTPSessions",
    "parallelCustomJobs",
    "parallelInferences",
    "parallelTraining",
    "parallelWorkflowRuns",
    "premiumGenerationSamples",
    "projects",
    "scalingFactor",
    "seats",
    "snapshotsRetention",
    "upload",
]
NONE_HERE = {"maxCooldown", "minCooldown", "collections", "maxTrainingDatasets", "upload"}
VALUES = ["apiKeys", "canvasAssets", "collections", "creativeUnits", "projects", "seats"]


PRIVACIES, DIRECTIONS = ("private", "public", "unlisted"), ("asc", "desc")
SORTS = ("createdAt", "score")  # the API has updatedAt for public models only
STATUSES = ("new", "training", "trained", "failed", "training-canceled", "copying", "deleted")


def owner_of(project: str) -> str:
    """Who owns what a project made: the project, or this engine's one team."""
    return project or OWNER


def lora(model: Model, project: str) -> Json:
    """A LoRA of the library, which every project sees as its own."""
    return {
        **_common(model.id, model.name, model.type, model.status, project),
        "createdAt": model.created_at,
        "updatedAt": model.created_at,
        "tags": [],
    }


def composition(record: Record) -> Json:
    """A composition, with its true status."""
    return {
        **_common(record.id, record.name, record.type, record.status, record.project),
        "createdAt": iso(record.created_at),
        "updatedAt": iso(record.updated_at),
        "tags": sorted(record.tags),
        "concepts": [_concept(concept) for concept in record.concepts],
        **_optional(
            **{field.wire: record.texts.get(field.name) for field in DESCRIBED},
            jobId=record.job,
            parameters=None if record.parameters is None else dict(record.parameters),
            trainingProgress=_progress(record) if record.status == "training" else None,
            deletedAt=None if record.deleted_at is None else iso(record.deleted_at),
        ),
    }


def minimal(model: Json) -> Json:
    """What `minimal` leaves of a model."""
    return {key: model[key] for key in ("id", "name", "type")}


def training_job(job: JobRecord, project: str) -> Json:
    """A training job; its composition's id is among the inputs."""
    family = families.of_type(job.type) or families.default()
    return {
        **_job(job.id, family.training_job, job.status, job.progress, project),
        "statusHistory": [{"status": status, "date": iso(at)} for status, at in job.history],
        "metadata": {"input": {"modelId": job.model}, **_optional(error=job.error)},
        "createdAt": iso(job.created_at),
        "updatedAt": iso(job.updated_at),
    }


def download_job(download: Download, url: str | None, project: str) -> Json:
    """A download, done at once: `metadata.output.url` is where the result is, until it expires."""
    at = iso(download.created_at)
    return {
        **_job(download.id, DOWNLOAD_JOB, "success", 1.0, project),
        "statusHistory": [{"status": "success", "date": at}],
        "metadata": {
            "input": {"modelId": download.model},
            "output": {"url": url} if url else {},
            **_optional(hint=None if url else "this link has expired: ask for a new download"),
        },
        "createdAt": at,
        "updatedAt": at,
    }


def cost(concepts: int) -> float:
    """The price of composing this many concepts, in creative units."""
    return PRICE * concepts


def limits() -> Json:
    """The limits of a plan that has none but this machine's."""
    now = iso(now_ms())
    return {
        "plan": "enterprise",
        "limits": {name: 0 if name in NONE_HERE else PLENTY for name in LIMITS},
        "values": {name: 0 for name in VALUES},
        "oneShotCreativeUnits": [],
        "period": {"start": now, "end": now},
    }


def _common(id: str, name: str, type: str, status: str, project: str) -> Json:
    return {
        "id": id,
        "name": name,
        "type": type,
        "status": status,
        "privacy": "private",
        "source": "other",
        "custom": False,
        "capabilities": [],
        "collectionIds": [],
        "exampleAssetIds": [],
        "trainingImagesNumber": 0,
        "ownerId": owner_of(project),
    }


def _concept(concept: Concept) -> Json:
    return {"modelId": concept.model_id, "scale": concept.scale}


def _progress(record: Record) -> Json:
    """How far its training is; times in milliseconds, as the API has them."""
    stage = STAGES.get(record.job_status or "", "pending")
    started = record.started_at if stage == "running-train" else None
    left = None
    if started and record.progress:
        left = max(now_ms() - started, 0) * (1 - record.progress) / record.progress
    return {
        "stage": stage,
        "updatedAt": record.updated_at,
        "progress": record.progress,
        **_optional(startedAt=started, remainingTimeMs=left),
    }


def _job(id: str, type: str, status: str, progress: float, project: str) -> Json:
    return {
        "jobId": id,
        "jobType": type,
        "status": status,
        "progress": progress,
        "ownerId": owner_of(project),
    }


def _optional(**fields: object) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


# --- lists -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelsPage:
    """The page that `GET /models` asks for."""

    size: int
    last: tuple[str, str] | None  # creation and id of the model that the page begins after
    newest_first: bool
    deleted: bool
    types: frozenset[str]  # empty: all
    keep: Callable[[Json], bool]

    @property
    def after_ms(self) -> int | None:
        """The creation of the last model of the page before, in milliseconds since 1970."""
        if self.last is None:
            return None
        exact = (moment(self.last[0]) - EPOCH) // timedelta(milliseconds=1)
        return exact + 1 if self.newest_first else exact - 1  # another one may be of this moment

    def answer(self, compositions: Iterable[Json], loras: Iterable[Json]) -> Json:
        """The page of both; compositions are in its order, and no more of them are taken than it
        needs."""
        first = sorted(loras, key=_page_key, reverse=self.newest_first)
        merged = heapq.merge(compositions, first, key=_page_key, reverse=self.newest_first)
        return _page("models", filter(self.keep, merged), self.size, self.last, self.newest_first)


def models_page_of(query: Query) -> ModelsPage:
    """What `GET /models` asks for; raises `Refusal`.

    The API ignores a status that it doesn't know, and answers everything, deleted ones too.
    """
    status = query.text("status")
    return ModelsPage(
        newest_first=_direction(query) == "desc",
        deleted=status is not None and (status == "deleted" or status not in STATUSES),
        types=query.one_or_many("type", "types"),
        keep=_model_filter(query),
        size=query.number("pageSize", 100, 500),
        last=_last(query),
    )


def jobs_page(query: Query, jobs: Sequence[Json]) -> Json:
    """The page of jobs that `GET /jobs` asks for, newest first; raises `Refusal`."""
    types = query.words("types") or query.words("type")
    statuses = query.words("status")
    created, updated = query.moment("createdAfter"), query.moment("updatedAfter")
    kept = [
        job
        for job in jobs
        if (not types or job["jobType"] in types)
        and (not statuses or job["status"] in statuses)
        and (created is None or moment(job["createdAt"]) > created)
        and (updated is None or moment(job["updatedAt"]) > updated)
    ]
    size, last = query.number("pageSize", 50, 100), _last(query)
    return _page("jobs", sorted(kept, key=_page_key, reverse=True), size, last, newest_first=True)


def _direction(query: Query) -> str:
    sort = query.choice("sortBy", SORTS, "createdAt")
    if sort == "score" and not (query.text("privacy") and query.text("status")):
        raise Refusal("sortBy=score needs privacy and status")
    if query.text("sortBy") != "createdAt" and (
        query.text("createdAfter") or query.text("createdBefore")
    ):
        raise Refusal("createdAfter and createdBefore need sortBy=createdAt")
    return query.choice("sortDirection", DIRECTIONS, "desc")


def _model_filter(query: Query) -> Callable[[Json], bool]:
    types, status = query.one_or_many("type", "types"), query.text("status")
    after, before = query.moment("createdAfter"), query.moment("createdBefore")
    # There is nothing public here, and there are no collections.
    nothing = query.choice("privacy", PRIVACIES, "private") != "private"
    nothing = nothing or query.text("collectionId") is not None

    def keep(model: Json) -> bool:
        created = moment(model["createdAt"])
        return (
            not nothing
            and (not types or model["type"] in types)
            and (status not in STATUSES or _state(model) == status)
            and (after is None or created > after)
            and (before is None or created < before)
        )

    return keep


def _state(model: Json) -> str:
    return "deleted" if "deletedAt" in model else str(model["status"])


def _page(
    name: str,
    items: Iterable[Json],
    size: int,
    last: tuple[str, str] | None,
    newest_first: bool,
) -> Json:
    """The first `size` of the items after `last`; they are in order, and read only so far."""
    if last is not None:
        items = dropwhile(
            lambda item: last <= _page_key(item) if newest_first else _page_key(item) <= last, items
        )
    page = list(islice(items, size + 1))
    answer: dict[str, Any] = {name: page[:size]}
    if len(page) > size:
        answer["nextPaginationToken"] = _token(page[size - 1])
    return answer


def _last(query: Query) -> tuple[str, str] | None:
    """What the page begins after, from its token; None for the first page."""
    token = query.text("paginationToken")
    return None if token is None else _read_token(token)


def _page_key(item: Json) -> tuple[str, str]:
    """By creation; times in this one format sort as text."""
    return item["createdAt"], item.get("id") or item["jobId"]


def _token(item: Json) -> str:
    return base64.urlsafe_b64encode(json.dumps(_page_key(item)).encode()).decode().rstrip("=")


def _read_token(token: str) -> tuple[str, str]:
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        created, id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if isinstance(created, str) and isinstance(id, str) and moment(created):
            return created, id
    except (ValueError, TypeError, RecursionError, Refusal):
        pass
    raise Refusal("paginationToken was not issued by this server")
