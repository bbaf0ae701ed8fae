"""Models and jobs as the Scenario API writes them.

Every field that the vendor's own client requires is there: the fields are those of `scenario-sdk`
2.4.0 (`types/model_retrieve_response`, `types/job_retrieve_response`,
`types/team_retrieve_limits_response`). `pages` makes pages of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from composer.lora import families
from composer.model import DESCRIBED
from composer.targets.local.generations import image_seed
from composer.targets.local.records import described_texts, iso, now_ms

if TYPE_CHECKING:
    from composer.model import Concept, Model
    from composer.targets.local.generations import Asset, Generation
    from composer.targets.local.records import Download, JobRecord, Record

Json: TypeAlias = "dict[str, Any]"

OWNER = "team_compose"  # owns what belongs to no project
PRICE = 5  # creative units for each concept of a composition; nobody is charged
IMAGE_PRICE = 9  # for each image, whatever it shows; nobody is charged
DOWNLOAD_JOB, GENERATION_JOB = "model-download", "custom"
AUTHOR = "user_compose"
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
    texts = described_texts(record)
    return {
        **_common(record.id, record.name, record.type, record.status, record.project),
        "createdAt": iso(record.created_at),
        "updatedAt": iso(record.updated_at),
        "tags": sorted(record.tags),
        "concepts": [_concept(concept) for concept in record.concepts],
        **{field.wire: texts[field.name] for field in DESCRIBED},
        **_optional(
            jobId=record.job,
            parameters=None if record.parameters is None else dict(record.parameters),
            trainingProgress=_progress(record) if record.status == "training" else None,
            deletedAt=None if record.deleted_at is None else iso(record.deleted_at),
        ),
    }


def base_model(id: str, project: str) -> Json:
    """A base model, with which images can be made; its `inputs` are added to it."""
    made = iso(0)
    return {
        **_common(id, id, "custom", "trained", project),
        "privacy": "public",
        "custom": True,
        "capabilities": ["txt2img"],
        "tags": [],
        "createdAt": made,
        "updatedAt": made,
    }


def minimal(model: Json) -> Json:
    """What `minimal` leaves of a model."""
    return {key: model[key] for key in ("id", "name", "type")}


def training_job(job: JobRecord, project: str) -> Json:
    """A training job; its composition's id is among the inputs."""
    return {
        **_job(job.id, training_job_type(job.type), job.status, job.progress, project),
        "statusHistory": [{"status": status, "date": iso(at)} for status, at in job.history],
        "metadata": {"input": {"modelId": job.model}, **_optional(error=job.error)},
        "createdAt": iso(job.created_at),
        "updatedAt": iso(job.updated_at),
    }


def training_job_type(composition: str) -> str:
    """The type of the jobs that train compositions of this type."""
    return (families.of_type(composition) or families.default()).training_job


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


def generation_job(job: Generation) -> Json:
    """A job that makes images; `metadata.assetIds` are those, once it has made them."""
    return {
        **_job(job.id, GENERATION_JOB, job.status, job.progress, job.project),
        "statusHistory": [{"status": status, "date": iso(at)} for status, at in job.history],
        "metadata": {
            "input": dict(job.input),
            **_optional(assetIds=list(job.assets) or None, error=job.error),
        },
        "billing": {"cuCost": job.cost, "cuDiscount": 0},
        "createdAt": iso(job.created_at),
        "updatedAt": iso(job.updated_at),
    }


def generation_price(images: int) -> Json:
    """What so many images cost, in creative units."""
    cost = IMAGE_PRICE * images
    return {
        "creativeUnitsCost": cost,
        "creativeUnitsDiscount": 0,
        "costDetails": {"custom-generation": cost},
    }


def asset(asset: Asset, url: str) -> Json:
    """An image; `url` is where its bytes are, until it expires."""
    job, at = asset.generation, iso(asset.created_at)
    return {
        "id": asset.id,
        "url": url,
        "kind": "image",
        "mimeType": "image/png",
        "status": "success",
        "source": "txt2img",
        "privacy": "private",
        "authorId": AUTHOR,
        "ownerId": owner_of(job.project),
        "metadata": _asset_metadata(asset),
        "properties": {"width": asset.width, "height": asset.height, "size": asset.size},
        "outputIndex": asset.number,
        "editCapabilities": [],
        "collectionIds": [],
        "tags": [],
        "createdAt": at,
        "updatedAt": at,
    }


def _asset_metadata(asset: Asset) -> Json:
    """What made it; the API gives a seed as text."""
    input = asset.generation.input
    pairs = zip(input["loras"], input["lorasScale"], strict=True)
    return {
        "kind": "image",
        "type": "txt2img",
        "prompt": input["prompt"],
        "seed": str(image_seed(input, asset.number)),
        "modelId": asset.generation.base_model,
        "concepts": [{"modelId": id, "scale": scale} for id, scale in pairs],
        **{name: input[name] for name in ("guidance", "numInferenceSteps", "numOutputs")},
        "width": asset.width,
        "height": asset.height,
        "outputIndex": asset.number,
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
