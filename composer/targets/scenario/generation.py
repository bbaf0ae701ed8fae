"""The calls of the Scenario API that make images: price, start, jobs, assets, downloads.

`Scenario.generation` gives it, on the same connections. It never sends twice what may have been
paid for: after an ambiguous answer the caller looks through `jobs_since`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.errors import NotFound, TargetError
from composer.model import is_id
from composer.targets.http.error_translation import server_text
from composer.targets.http.session import Request, get
from composer.targets.scenario import image_wire
from composer.targets.scenario.wire import Unreadable, mapping, number

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from composer.targets.http.downloads import Downloads, SignedUrl
    from composer.targets.http.error_translation import Answer
    from composer.targets.http.session import Client
    from composer.targets.scenario.image_wire import Asset, ImageJob

BULK = 200  # assets in one request, the API's limit
_PAGE = 100  # jobs in one answer, the API's limit
_PAGES = 200


class StartedInstead(TargetError):
    """The target was asked for a price and started this job."""

    def __init__(self, job: ImageJob) -> None:
        super().__init__(
            f"the target started the job {job.id} instead of returning its price",
            hint="its image is downloaded by the next run; report this to the target's operator",
        )
        self.job = job


class Generation:
    """Makes images on one target. Thread-safe."""

    def __init__(self, client: Client, downloads: Downloads) -> None:
        self._client = client
        self._downloads = downloads

    def price(self, base_model: str, body: Mapping[str, object]) -> float | None:
        """What this image would cost, in creative units, less any discount; None if not said.

        Raises `StartedInstead` if the target makes the image.
        """
        dry = (("dryRun", "true"),)
        ask = Request("POST", _path(base_model), dry, body, writes=False)
        price, job = self._client.call(ask, _read_price)
        if job:
            raise StartedInstead(self._shown(job))
        return price

    def start(self, base_model: str, body: Mapping[str, object]) -> ImageJob:
        """Start making an image. Raises `Ambiguous` if the answer is lost."""
        ask = Request("POST", _path(base_model), body=body, repeat=False)
        return self._job(ask, image_wire.started)

    def job(self, id: str) -> ImageJob:
        """One job. Raises `NotFound`."""

        def read(body: object) -> ImageJob:
            job = image_wire.one_job(body)
            if job.id != id:
                raise Unreadable(f"about {job.id} instead of {id}")
            return job

        return self._job(get(f"/jobs/{_checked(id, 'job')}"), read)

    def jobs_since(self, time: str) -> Iterator[list[ImageJob]]:
        """Pages of the project's jobs that were created after this time, the newest first.

        `time` is ISO 8601. The filter is applied here, too: not every server applies it. Jobs of
        other kinds are among them.
        """
        query = [("createdAfter", time), ("pageSize", str(_PAGE))]
        more: list[tuple[str, str]] = []
        seen: set[str] = set()
        while True:
            page, token = self._client.call(
                get("/jobs", *query, *more), lambda answer: image_wire.jobs(answer.json())
            )
            newer = [job for job in page if not job.created_at or job.created_at > time]
            yield list(map(self._shown, newer))
            if token is None or (page and not newer):
                return
            if token in seen or len(seen) >= _PAGES:
                raise TargetError("the target's list of jobs does not end: its pages repeat")
            seen.add(token)
            more = [("paginationToken", token)]

    def assets(self, ids: Collection[str]) -> dict[str, Asset]:
        """These assets by id; unknown ones are left out."""
        wanted = sorted(set(ids))
        found: dict[str, Asset] = {}
        for first in range(0, len(wanted), BULK):
            body = {"assetIds": wanted[first : first + BULK]}
            ask = Request("POST", "/assets/get-bulk", body=body, writes=False)
            found |= self._client.call(ask, lambda answer: image_wire.assets(answer.json()))
        return {id: found[id] for id in wanted if id in found}

    def download(self, url: SignedUrl, *, limit: int) -> bytes:
        """The bytes of an asset. Raises `Expired` where it needs a fresh URL."""
        return self._downloads.fetch(url, limit=limit)

    def close(self) -> None:
        self._downloads.close()

    def _job(self, ask: Request, read: Callable[[object], ImageJob]) -> ImageJob:
        return self._shown(self._client.call(ask, lambda answer: read(answer.json())))

    def _shown(self, job: ImageJob) -> ImageJob:
        """The job, with an error that is safe to print."""
        return replace(job, error=server_text(job.error, self._client.hide)) if job.error else job


def _path(base_model: str) -> str:
    return f"/generate/custom/{_checked(base_model, 'base model')}"


def _checked(id: str, what: str) -> str:
    """An id that may stand in a path; raises `NotFound` for any other."""
    if not is_id(id):
        raise NotFound(f"{what} {id!r}: not an id")
    return id


def _read_price(answer: Answer) -> tuple[float | None, ImageJob | None]:
    """The price of a dry run; a job, if one was started instead."""
    body = mapping(answer.json(), "JSON object")
    cost = number(body.get("creativeUnitsCost"))
    if body.get("job"):
        return cost, image_wire.started(body)
    if cost is not None and cost < 0:
        raise Unreadable("no usable price")
    return cost, None
