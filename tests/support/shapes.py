"""What the official client's strict mode requires of an answer, written down on its own.

Names and types are those of `scenario-sdk` 2.4.0; `tests/oracle` asks the client itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import requests

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
MODEL_STATUSES = {"new", "training", "trained", "failed", "training-canceled", "copying"}
JOB_STATUSES = {
    "pending",
    "queued",
    "warming-up",
    "in-progress",
    "finalizing",
    "success",
    "failure",
    "canceled",
}
STAGES = {"pending", "queued-for-train", "starting-train", "running-train"}


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_model(model: dict[str, Any]) -> None:
    """A model with every field that is required, and the optional ones of the right type."""
    assert {type(model[name]) for name in ("id", "type", "name", "ownerId")} == {str}
    assert model["type"] in ("flux.1-lora", "flux.1-composition", "custom")
    assert model["status"] in MODEL_STATUSES
    assert model["privacy"] in ("private", "public", "unlisted")
    assert model["source"] in ("civitai", "huggingface", "other", "scenario")
    assert model["custom"] in (True, False)
    for name in ("capabilities", "collectionIds", "exampleAssetIds", "tags"):
        assert all(isinstance(item, str) for item in model[name]), name
        assert isinstance(model[name], list)
    assert is_number(model["trainingImagesNumber"])
    for name in ("createdAt", "updatedAt"):
        assert MOMENT.fullmatch(model[name])
    for concept in model.get("concepts", []):
        assert isinstance(concept["modelId"], str) and is_number(concept["scale"])
    assert isinstance(model.get("shortDescription", ""), str)
    assert isinstance(model.get("parameters", {}), dict)
    assert None not in model.values()
    if "trainingProgress" in model:
        progress = model["trainingProgress"]
        assert progress["stage"] in STAGES and is_number(progress["updatedAt"])
        assert all(is_number(value) for name, value in progress.items() if name != "stage")


def check_job(job: dict[str, Any]) -> None:
    """A job with every field that is required."""
    assert isinstance(job["jobId"], str)
    assert job["jobType"] in ("flux-model-training", "model-download", "custom")
    assert job["status"] in JOB_STATUSES
    assert is_number(job["progress"]) and 0 <= job["progress"] <= 1
    assert isinstance(job["metadata"], dict)
    for entry in job["statusHistory"]:
        assert entry["status"] in JOB_STATUSES and MOMENT.fullmatch(entry["date"])
    for name in ("createdAt", "updatedAt"):
        assert MOMENT.fullmatch(job[name])

    if job["jobType"] == "custom":
        assert all(is_number(job["billing"][name]) for name in ("cuCost", "cuDiscount"))
        assert isinstance(job["metadata"].get("assetIds", []), list)


def check_asset(asset: dict[str, Any]) -> None:
    """An image with every field that is required."""
    texts = ("id", "authorId", "ownerId", "url", "mimeType")
    assert {type(asset[name]) for name in texts} == {str}
    assert (asset["kind"], asset["privacy"], asset["status"]) == ("image", "private", "success")
    assert (asset["metadata"]["kind"], asset["metadata"]["type"]) == ("image", "txt2img")
    assert asset["source"] == "txt2img"
    assert is_number(asset["properties"]["size"])
    for name in ("collectionIds", "editCapabilities", "tags"):
        assert isinstance(asset[name], list)
    for name in ("createdAt", "updatedAt"):
        assert MOMENT.fullmatch(asset[name])


def check_refusal(body: dict[str, Any]) -> None:
    """The one envelope of refusals."""
    assert isinstance(body["error"], str) and body["error"]
    assert body["reason"] == body["error"]
    assert body.keys() <= {"reason", "error", "details"}
    assert isinstance(body.get("details", {}), dict)


def refused(response: requests.Response, status: int) -> str:
    """The words of a refusal, which has this status."""
    assert response.status_code == status, (response.status_code, response.text)
    check_refusal(response.json())
    return str(response.json()["error"])


def check_answer(body: dict[str, Any]) -> None:
    """Whatever an answer has among its parts."""
    for model in [*body.get("models", []), *filter(None, [body.get("model")])]:
        if model.keys() != {"id", "name", "type"}:  # what `minimal` leaves
            check_model(model)
    for job in [*body.get("jobs", []), *filter(None, [body.get("job")])]:
        check_job(job)
    for asset in [*body.get("assets", []), *filter(None, [body.get("asset")])]:
        check_asset(asset)
    assert isinstance(body.get("nextPaginationToken", ""), str)
