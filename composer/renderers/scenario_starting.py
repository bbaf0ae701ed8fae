"""Starting an image's job exactly once, and finding the job of a request whose answer was lost.

The intent is on disk before the request, the job's id before the next one. After an answer that
can't be read, and after a kill, the target's jobs are searched for one of the same input before the
request is sent again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil
from typing import TYPE_CHECKING

from composer.errors import Ambiguous, NotFound, TargetError, Unreachable
from composer.renderers.scenario_input import image_input
from composer.targets.scenario.image_wire import are_in_steps, different_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from composer.previews.cells import Cell
    from composer.renderers.job_journal import JobJournal, Pending
    from composer.targets.scenario.generation import Generation
    from composer.targets.scenario.image_wire import ImageJob

log = logging.getLogger("composer.renderers")

_POSTS = 3  # each only after the one before it has provably made nothing
CLOCK_SKEW = 900.0  # seconds that the target's clock may be behind ours
_PAUSES = (0.02, 10.0)  # the least and the longest time between two looks, in seconds


@dataclass(frozen=True, slots=True)
class _Found:
    """What the target's jobs say of one request.

    `stepped` has the same input but for scales that may be those sent, brought to the API's steps.
    `unsure` is how many don't tell their input.
    """

    live: ImageJob | None = None
    stepped: ImageJob | None = None
    failed: ImageJob | None = None
    unsure: int = 0

    @property
    def best(self) -> ImageJob | None:
        return self.live or self.stepped or self.failed


@dataclass(slots=True)
class JobStarter:
    """Starts jobs, and finds lost ones. Any thread may use it.

    `grace` is how long a job may be missing from the target's list, in seconds; `pause` waits so
    many seconds, and may raise to end the search. `failed` are ids of jobs that are known to have
    failed, `started` those of jobs that this run started or found.
    """

    generation: Generation
    journal: JobJournal
    grace: float
    pause: Callable[[float], None]
    failed: set[str] = field(default_factory=set)
    started: set[str] = field(default_factory=set)

    def start(self, cell: Cell) -> tuple[Pending, ImageJob]:
        """Start the job of this cell; its id is in the journal when this returns.

        Raises `TargetError` if the target refuses. The request stays open in the journal if
        nobody can say whether it took effect.
        """
        for _ in range(_POSTS):
            pending = self.journal.intend(cell, image_input(cell))
            try:
                job: ImageJob | None = self.generation.start(
                    cell.renderer.base_model, pending.input
                )
            except Ambiguous:
                pending = self.journal.unanswered(pending)
                log.warning(
                    "the answer to a request for an image was lost: looking for its job for up to"
                    " %d s",
                    ceil(self.grace),
                )
                job = self.search(pending, until=pending.at + self.grace)
            except TargetError:
                self.journal.close(pending)
                raise
            if job is not None:
                return self.record(pending, job), job
            self.journal.close(pending)
        raise Unreachable(
            f"{_POSTS} requests for an image were lost, and none took effect",
            hint="run the command again",
        )

    def record(self, pending: Pending, job: ImageJob) -> Pending:
        """Record the job of this request."""
        self.started.add(job.id)
        return self.journal.started(pending, job.id)

    def search(self, pending: Pending, *, until: float) -> ImageJob | None:
        """The job that a request without an answer made; None if there is none at the time `until`.

        One that has failed, or whose scales differ by less than a step, counts only then: it may
        be that of another request. Raises `Unreachable` if the target can't be asked, and
        `TargetError` if it doesn't say what its jobs make.
        """
        wait = _PAUSES[0]
        while True:
            is_last = self.journal.clock() >= until
            try:
                look = self._look(pending)
            except Unreachable:
                if is_last:
                    raise
                look = _Found()
            if look.live:
                return look.live
            if is_last:
                if look.unsure and not look.best:
                    raise _unsure(pending, self.journal)
                return look.best
            self.pause(min(wait, max(until - self.journal.clock(), 0.0)))
            wait = min(wait * 2, self.grace / 10, _PAUSES[1])

    def _look(self, pending: Pending) -> _Found:
        stepped = failed = None
        unsure = 0
        known = {other.job for other in self.journal.open.values()} | self.started
        for job in self._with_input(pending, known):
            if job.input is None:
                unsure += 1
                continue
            different = different_inputs(pending.input, job.input, pending.cell.renderer.base_model)
            if not different and not job.has_failed:
                return _Found(live=job)
            if not different and job.id not in self.failed:
                failed = failed or job
            if different == ["lorasScale"] and job.id not in known and not job.has_failed:
                kept, sent = job.input.get("lorasScale"), pending.input.get("lorasScale")
                stepped = stepped or (job if are_in_steps(kept, sent) else None)
        return _Found(None, stepped, failed, unsure)

    def _with_input(self, pending: Pending, known: Collection[str | None]) -> Iterator[ImageJob]:
        """The jobs since the request; those that are listed without their input are read last."""
        unread = []
        for page in self.generation.jobs_since(iso_time(pending.at - CLOCK_SKEW)):
            for job in page:
                if job.input is not None:
                    yield job
                elif job.is_of_images and job.id not in known:
                    unread.append(job)
        for job in unread:
            try:
                yield self.generation.job(job.id)
            except NotFound:
                continue


def _unsure(pending: Pending, journal: JobJournal) -> TargetError:
    """The error where a job may be the one that was asked for."""
    return TargetError(
        f"the answer to the request for seed {pending.cell.seed} was lost, and the target doesn't"
        " say what its jobs make: the image may be paid for",
        hint=f"to pay for such images again, move {journal.path} away",
    )


def iso_time(seconds: float) -> str:
    """ISO 8601, as the target writes times."""
    time = datetime.fromtimestamp(max(seconds, 0.0), UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
