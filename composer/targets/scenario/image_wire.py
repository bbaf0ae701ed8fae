"""JSON of the calls that make images: jobs and assets as values, and inputs compared.

It is read as leniently as `wire` reads models. Sends nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from composer.model import is_id
from composer.targets.http.downloads import SignedUrl
from composer.targets.scenario import wire
from composer.targets.scenario.wire import Unreadable, mapping, number
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Mapping

SUCCESS = "success"
_FAILED = frozenset({"failure", "canceled"})
_LONGEST_STATUS = 40  # characters; it is shown
SCALE_STEP = 0.05  # of `lorasScale`
_TOLERANCE = 1e-4  # of numbers that come back: a scale may carry float noise
# The base model's inputs that decide what an image looks like. What else comes back is ignored.
_INPUTS = (
    "prompt",
    "modelId",
    "loras",
    "lorasScale",
    "numOutputs",
    "seed",
    "numInferenceSteps",
    "guidance",
    "width",
    "height",
)


@dataclass(frozen=True, slots=True)
class ImageJob:
    """A job that makes an image. None and empty mean: the answer didn't say.

    `cost` is what it was charged with, `input` what it makes an image of, `error` the server's
    text.
    """

    id: str
    status: str
    assets: tuple[str, ...] = ()
    cost: float | None = None
    error: str | None = None
    input: Mapping[str, object] | None = None
    created_at: str = ""  # ISO 8601, as the server's clock says
    is_of_images: bool = True  # False for a training and other jobs

    @property
    def has_failed(self) -> bool:
        return self.status in _FAILED

    @property
    def is_done(self) -> bool:
        return self.status == SUCCESS


@dataclass(frozen=True, slots=True)
class Asset:
    """An image on the server; without `url` it can't be downloaded (yet)."""

    id: str
    status: str
    url: SignedUrl | None


def started(body: object) -> ImageJob:
    """The `{job, creativeUnitsCost?}` answer of a generation."""
    whole = mapping(body, "JSON object")
    return _read_job(mapping(whole.get("job"), "job"), number(whole.get("creativeUnitsCost")))


def one_job(body: object) -> ImageJob:
    """A `{job}` answer."""
    return _read_job(mapping(mapping(body, "JSON object").get("job"), "job"))


def jobs(body: object) -> tuple[list[ImageJob], str | None]:
    """The jobs of one page that can be read, and the token of the next page."""
    whole = mapping(body, "JSON object")
    listed = whole.get("jobs")
    if not isinstance(listed, list):
        raise Unreadable("no list of jobs")
    readable = [raw for raw in listed if isinstance(raw, dict) and is_id(raw.get("jobId"))]
    return list(map(_read_job, readable)), wire.page_token(whole.get("nextPaginationToken"))


def _read_job(raw: Mapping[str, Any], answered: float | None = None) -> ImageJob:
    job, metadata, billing = wire.read_job(raw), raw.get("metadata"), raw.get("billing")
    metadata = metadata if isinstance(metadata, dict) else {}
    assets, sent = metadata.get("assetIds"), metadata.get("input")
    charged = _charged(billing) if isinstance(billing, dict) else None
    costs = [cost for cost in (answered, charged) if cost is not None]
    return ImageJob(
        job.id,
        shorten(visible(job.status), _LONGEST_STATUS),
        tuple(id for id in assets if is_id(id)) if isinstance(assets, list) else (),
        max(max(costs), 0.0) if costs else None,
        job.error,
        sent if isinstance(sent, dict) and sent else None,
        wire.moment(raw.get("createdAt")),
        raw.get("jobType", "custom") == "custom",
    )


def _charged(billing: Mapping[str, Any]) -> float | None:
    """What a job was charged with, the checks included that a team has switched on."""
    details = billing.get("cuCostDetails")
    parts = (
        [number(value) or 0.0 for value in details.values()] if isinstance(details, dict) else []
    )
    cost = number(billing.get("cuCost"))
    return None if cost is None else cost + sum(parts)


def assets(body: object) -> dict[str, Asset]:
    """The assets of an answer, by id; unreadable ones are left out."""
    listed = mapping(body, "JSON object").get("assets")
    if not isinstance(listed, list):
        raise Unreadable("no list of assets")
    return {
        raw["id"]: _read_asset(raw)
        for raw in listed
        if isinstance(raw, dict) and is_id(raw.get("id"))
    }


def _read_asset(raw: Mapping[str, Any]) -> Asset:
    status, url = visible(wire.text(raw, "status")) or SUCCESS, raw.get("url")
    is_ready = status == SUCCESS and isinstance(url, str) and url
    return Asset(
        raw["id"], shorten(status, _LONGEST_STATUS), SignedUrl(str(url)) if is_ready else None
    )


def different_inputs(
    ours: Mapping[str, object], theirs: Mapping[str, object], base_model: str
) -> list[str]:
    """The names of the inputs of a job that differ from what was sent to this base model.

    Without any, the job makes the same image. Numbers may carry float noise. An absent input equals
    an empty one, and a `modelId` that names the base model itself says nothing.
    """
    different = []
    for name in _INPUTS:
        sent, kept = ours.get(name), theirs.get(name)
        if name == "modelId" and kept == base_model:
            kept = None
        if name in ("loras", "lorasScale", "modelId") and not sent and not kept:
            continue
        if name == "numOutputs" and kept is None:
            continue  # 1 is its default, and all that is ever asked for
        if not _same(sent, kept):
            different.append(name)
    return different


def are_in_steps(kept: object, sent: object) -> bool:
    """Whether these scales of a job may be those that were sent, brought to the API's steps."""
    if not (isinstance(kept, list) and isinstance(sent, list) and len(kept) == len(sent)):
        return False
    pairs = [(number(one), number(other)) for one, other in zip(kept, sent, strict=True)]
    return all(
        one is not None
        and other is not None
        and abs(one - other) < SCALE_STEP - _TOLERANCE
        and _same(round(one / SCALE_STEP) * SCALE_STEP, one)
        for one, other in pairs
    )


def _same(one: object, other: object) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    first, second = number(one), number(other)
    if first is not None and second is not None:
        return math.isclose(first, second, rel_tol=0.0, abs_tol=_TOLERANCE)
    return one == other
