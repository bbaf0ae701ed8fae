"""When to look at the jobs that run, and looking at many of them with few requests."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from composer.errors import NotFound
from composer.targets.http.error_translation import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from composer.targets.scenario.generation import Generation
    from composer.targets.scenario.image_wire import ImageJob

_FIRST, _GROWTH = 0.2, 1.5  # of the poll interval: the first pause, and how each grows
_LOST = 3  # polls in a row that may fail


class Polled(Protocol):
    """What is known of a job that runs: it was not created before this time, if there is one."""

    created_at: str


class JobPoller:
    """Asks for the state of all jobs together, after pauses that grow while none ends."""

    def __init__(self, generation: Generation, poll_interval: float) -> None:
        self._generation = generation
        self._interval = poll_interval
        self._pause = _FIRST * poll_interval
        self._due: float | None = None
        self._lost = 0

    def begin(self) -> None:
        """Another job runs: it is looked at after the first pause, if nothing was waited for."""
        if self._due is None:
            self._due = time.monotonic() + self._pause

    def left(self) -> float:
        """Seconds until the next look."""
        return max(0.0, (self._due or 0.0) - time.monotonic())

    def is_due(self) -> bool:
        return self.left() == 0.0

    def polled(self, *, something_ended: bool) -> None:
        """A look succeeded; the next one comes sooner if something has ended."""
        self._lost = 0
        grown = min(self._pause * _GROWTH, self._interval)
        self._pause = _FIRST * self._interval if something_ended else grown
        self._due = time.monotonic() + self._pause

    def gives_up(self) -> bool:
        """A look failed: whether that happened too often in a row."""
        self._lost += 1
        self._due = time.monotonic() + self._interval
        return self._lost >= _LOST

    def jobs(self, running: Mapping[str, Polled]) -> dict[str, ImageJob | None]:
        """What the target says of these jobs now; None of one that it does not know."""
        found: dict[str, ImageJob | None] = dict(self._listed(running))
        for id in running:
            listed = found.get(id)
            if listed is None or (listed.is_done and not listed.assets):
                found[id] = self._one(id)
        for id, job in found.items():
            if job is not None and job.created_at:
                running[id].created_at = job.created_at
        return found

    def _listed(self, running: Mapping[str, Polled]) -> dict[str, ImageJob]:
        """Those that the list shows, as long as its pages are fewer than requests for each."""
        times = [job.created_at for job in running.values()]
        if len(running) < 2 or not all(times):
            return {}
        found: dict[str, ImageJob] = {}
        pages = 0
        with suppress(Refusal, NotFound):  # where there is no such list, each is asked for
            for page in self._generation.jobs_since(_just_before(min(times))):
                found |= {job.id: job for job in page if job.id in running}
                pages += 1
                if pages >= len(running) - len(found):
                    break
        return found

    def _one(self, id: str) -> ImageJob | None:
        try:
            return self._generation.job(id)
        except NotFound:
            return None


def _just_before(time: str) -> str:
    """A millisecond before this time: the filter of the list excludes the time itself."""
    before = datetime.fromisoformat(time) - timedelta(milliseconds=1)
    return before.isoformat(timespec="milliseconds").replace("+00:00", "Z")
