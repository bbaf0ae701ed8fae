"""One run of the Scenario renderer: jobs are started, polled together, and their images fetched.

Requests that start jobs, and downloads, have threads of their own; everything else happens in the
thread of `Run.render`, which alone changes what is running.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from composer.errors import (
    CeilingReached,
    ComposeError,
    CredentialsError,
    NotFound,
    StillRunning,
    Stopped,
    TargetError,
    Unreachable,
)
from composer.lock import latest_effect
from composer.renderers.base import Rendered, Rendering
from composer.renderers.scenario_fetching import AGAIN, ImageFetcher
from composer.renderers.scenario_polling import JobPoller
from composer.renderers.scenario_starting import CLOCK_SKEW, JobStarter, iso_time
from composer.targets.scenario.image_wire import different_inputs
from composer.text import counted, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from composer.previews.cells import Cell
    from composer.renderers.budget import Budget
    from composer.renderers.job_journal import JobJournal, Pending
    from composer.renderers.scenario_fetching import ImageReceiver
    from composer.targets.scenario.generation import Generation
    from composer.targets.scenario.image_wire import Asset, ImageJob

log = logging.getLogger("composer.renderers")

_SLICE = 0.1  # seconds between two looks whether to stop
_PATIENCE = 900.0  # seconds that a job may run, or that the target lets none start
_NEW = "run the command again: it asks for this image alone"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run waits; times in seconds. `sleep` may raise `Stopped`."""

    grace: float
    poll_interval: float
    parallelism: int
    sleep: Callable[[float], None]


@dataclass(slots=True)
class RunningJob:
    """A job on its way. `price` is what was said of it, None if an earlier run paid for it, and
    `cost` what it was booked with.

    `since` is when this run began to wait for it, `seen` when the target last knew it, and `ended`
    when it was first seen to have ended. It was not created before `created_at`, which is a time of
    the target's clock.
    """

    pending: Pending
    since: float
    price: float | None = None
    cost: float = 0.0
    status: str = ""
    created_at: str = ""
    seen: float | None = None
    ended: float | None = None

    @property
    def id(self) -> str:
        assert self.pending.job is not None
        return self.pending.job

    @property
    def cell(self) -> Cell:
        return self.pending.cell


class Run:
    """Makes the images of some cells, and fetches those that earlier runs paid for."""

    def __init__(
        self,
        generation: Generation,
        journal: JobJournal,
        budget: Budget,
        receiver: ImageReceiver,
        options: RunOptions,
    ) -> None:
        self._generation, self._journal, self._budget = generation, journal, budget
        self._receiver, self._options = receiver, options
        self._starter = JobStarter(generation, journal, options.grace, self._pause)
        self._poller = JobPoller(generation, options.poll_interval)
        self._fetcher = ImageFetcher(generation, journal, receiver)
        self._todo: deque[Cell] = deque()
        self._starting: dict[Future[RunningJob | None], Cell] = {}
        self._running: dict[str, RunningJob] = {}
        self._fetching: dict[Future[None], RunningJob] = {}
        self._errors: dict[Cell, ComposeError] = {}
        self._prices: Mapping[Cell, float] = {}
        self._at_most: int | None = None  # how many jobs the target lets run, once it has refused
        self._may_start = 0.0  # when the next job may be started
        self._has_told_limit = self._has_told_input = False
        self._last_end = time.monotonic()  # when a job of ours last ended
        self._stop = threading.Event()

    def render(self, prices: Mapping[Cell, float], todo: Sequence[Cell]) -> Rendered:
        """Make these images, each at its price; what is open in the journal is fetched first.

        `prices` also has those of wanted cells that are open. Raises what concerns all cells, and
        `Stopped`.
        """
        self._prices = prices
        self._todo.extend(todo)
        threads = max(1, self._options.parallelism)
        with ThreadPoolExecutor(threads) as starters, ThreadPoolExecutor(threads) as fetchers:
            try:
                self._take_up(starters)
                self._work(starters, fetchers)
            except BaseException:
                self._stop.set()
                starters.shutdown(wait=False, cancel_futures=True)
                fetchers.shutdown(wait=False, cancel_futures=True)
                raise
        return Rendered(self._errors, self._budget.spent)

    def _work(self, starters: ThreadPoolExecutor, fetchers: ThreadPoolExecutor) -> None:
        while self._todo or self._starting or self._running or self._fetching:
            self._start_some(starters)
            self._collect_started()
            self._collect_fetched()
            if self._running and self._poller.is_due():
                self._poll(fetchers)
            self._wait()

    def _wait(self) -> None:
        """Wait a moment, less if something ends; raises `Stopped` if asked to stop."""
        futures: list[Future[Any]] = [*self._starting, *self._fetching]
        pause = min(_SLICE, self._poller.left()) if self._running else _SLICE
        if futures:
            wait_for(futures, timeout=pause, return_when=FIRST_COMPLETED)
            pause = 0.0
        elif not self._running and not self._todo:
            pause = 0.0
        self._options.sleep(pause)

    # --- what earlier runs left ----------------------------------------------------------

    def _take_up(self, starters: ThreadPoolExecutor) -> None:
        """Continue with all that is open: jobs are polled, lost answers searched for."""
        from_earlier = self._journal.open
        for cell, pending in from_earlier.items():
            if pending.job is not None:
                since = iso_time(pending.at - CLOCK_SKEW)
                self._run(RunningJob(pending, time.monotonic(), created_at=since))
            else:
                self._starting[starters.submit(self._recover, pending)] = cell
        if lost := len(self._starting):
            log.warning(
                "an interrupted run may have asked for %s: looking for the jobs",
                counted(lost, "image"),
            )

    def _recover(self, pending: Pending) -> RunningJob | None:
        """In a thread of its own: the job of a request that a killed run sent, if it did."""
        now, up = self._journal.clock(), self._journal.uptime()
        sent = latest_effect(pending.at, pending.uptime, now=now, up=up)
        job = self._starter.search(pending, until=sent + self._options.grace)
        if job is None:
            self._journal.close(pending)
            return None
        found = self._starter.record(pending, job)
        return RunningJob(found, time.monotonic(), created_at=job.created_at)

    # --- starting ------------------------------------------------------------------------

    def _start_some(self, starters: ThreadPoolExecutor) -> None:
        while self._todo and len(self._starting) < self._options.parallelism:
            under_way = len(self._starting) + len(self._running)
            if self._at_most is not None and under_way >= self._at_most:
                return
            if time.monotonic() < self._may_start:
                return
            cell = self._todo.popleft()
            try:
                self._budget.reserve(self._prices[cell])
            except ComposeError as refused:
                self._fail(cell, refused)
            else:
                self._starting[starters.submit(self._start, cell)] = cell

    def _start(self, cell: Cell) -> RunningJob:
        """In a thread of its own. What may have been paid for stays reserved."""
        price = self._prices[cell]
        try:
            if self._stop.is_set():
                raise Stopped
            pending, job = self._starter.start(cell)
        except BaseException:
            if cell not in self._journal.open:
                self._budget.release(price)
            raise
        cost = price if job.cost is None else job.cost
        self._budget.book(price, cost)
        self._receiver.tell(Rendering(cell, job.status or "started", cost=cost))
        return RunningJob(
            pending, time.monotonic(), price, cost, job.status, created_at=job.created_at
        )

    def _collect_started(self) -> None:
        for future in [future for future in self._starting if future.done()]:
            cell = self._starting.pop(future)
            try:
                job = future.result()
            except CeilingReached as full:
                self._put_off(cell, full)
            except CredentialsError:
                raise
            except ComposeError as error:
                self._fail(cell, error)
                if isinstance(error, Unreachable) and cell not in self._journal.open:
                    self._fail_rest(error)
            else:
                if job:
                    self._run(job)
                elif cell in self._prices:
                    self._todo.append(cell)

    def _run(self, job: RunningJob) -> None:
        if self._at_most is not None:
            self._at_most = max(self._at_most, len(self._running) + 2)
        self._running[job.id] = job
        self._poller.begin()

    def _put_off(self, cell: Cell, full: CeilingReached) -> None:
        """The target lets no more jobs run at a time: the next one waits until one has ended."""
        self._todo.appendleft(cell)
        self._at_most = max(1, len(self._running))
        if not self._running:
            self._may_start = time.monotonic() + self._options.poll_interval
            if not self._has_told_limit:
                log.warning("%s: waiting for jobs of others to end", full.message)
                self._has_told_limit = True
        if time.monotonic() - self._last_end > _PATIENCE:
            self._fail_rest(full)

    def _fail_rest(self, error: ComposeError) -> None:
        """What is not started won't be: the same would happen to each of them."""
        while self._todo:
            self._fail(self._todo.popleft(), error)

    # --- waiting -------------------------------------------------------------------------

    def _poll(self, fetchers: ThreadPoolExecutor) -> None:
        try:
            jobs = self._poller.jobs(self._running)
            done = [job for job in jobs.values() if job and job.is_done]
            assets = self._generation.assets([job.assets[0] for job in done if job.assets])
        except CredentialsError:
            raise
        except TargetError as error:
            if not isinstance(error, Unreachable) or self._poller.gives_up():
                self._fail_running(error)
            return
        before = len(self._running)
        for id, job in jobs.items():
            self._advance(self._running[id], job, assets, fetchers)
        self._poller.polled(something_ended=len(self._running) < before)

    def _advance(
        self,
        running: RunningJob,
        job: ImageJob | None,
        assets: Mapping[str, Asset],
        fetchers: ThreadPoolExecutor,
    ) -> None:
        """Act on the state of a job as the target reports it; None: the target has no such job."""
        if job is not None:
            running.seen = time.monotonic()
            self._correct_cost(running, job)
        if job is None:
            if self._is_overdue(running.seen or running.since):
                self._end(running, NotFound(f"the job {running.id} is gone", hint=_NEW))
        elif job.has_failed:
            self._starter.failed.add(job.id)
            why = "was canceled" if job.status == "canceled" else "failed"
            reason = f": {job.error}" if job.error else ""
            self._end(running, TargetError(f"the job {job.id} {why}{reason}", hint=_NEW))
        elif job.is_done:
            self._compare_input(running, job)
            self._fetch(running, job, assets, fetchers)
        elif time.monotonic() - max(running.since, self._last_end) > _PATIENCE:
            minutes = _PATIENCE / 60
            late = f"the job {job.id} is still {job.status or 'running'} after {minutes:g} minutes"
            self._drop(running, StillRunning(late, hint=AGAIN))
        elif job.status != running.status:
            running.status = job.status
            self._receiver.tell(Rendering(running.cell, job.status))

    def _compare_input(self, running: RunningJob, job: ImageJob) -> None:
        """Say so, once, if the target made another image than the one that was asked for."""
        sent, kept = running.pending.input, job.input or {}
        different = kept and different_inputs(sent, kept, running.cell.renderer.base_model)
        if different and not self._has_told_input:
            self._has_told_input = True
            parts = [f"{name} {kept.get(name)} instead of {sent.get(name)}" for name in different]
            log.warning(
                "the target changed what it was asked for, perhaps in more images than this: %s",
                shorten(visible("; ".join(parts)), 300),
            )

    def _is_overdue(self, since: float) -> bool:
        """Whether what is missing since then can't be a late replica any more."""
        return time.monotonic() - since > self._options.grace

    def _correct_cost(self, running: RunningJob, job: ImageJob) -> None:
        """Count what a job costs more than its first answer said."""
        if running.price is None or job.cost is None or job.cost <= running.cost:
            return
        before, running.cost = running.cost, job.cost
        self._budget.correct(running.price, before, job.cost)
        self._receiver.tell(Rendering(running.cell, job.status, cost=job.cost - before))

    def _fail_running(self, error: ComposeError) -> None:
        """The target can't be asked: what runs stays in the journal."""
        for running in list(self._running.values()):
            self._drop(running, error)

    # --- fetching ------------------------------------------------------------------------

    def _fetch(
        self,
        running: RunningJob,
        job: ImageJob,
        assets: Mapping[str, Asset],
        fetchers: ThreadPoolExecutor,
    ) -> None:
        asset = assets.get(job.assets[0]) if job.assets else None
        running.ended = running.ended or time.monotonic()
        if asset and asset.url:
            del self._running[running.id]
            self._last_end = time.monotonic()
            self._fetching[fetchers.submit(self._fetcher.fetch, running.pending, asset)] = running
        elif asset and asset.status == "error":
            self._end(running, TargetError(f"the image of the job {job.id} failed", hint=_NEW))
        elif asset and time.monotonic() - running.ended > _PATIENCE:
            late = f"the image of the job {job.id} is still {asset.status}"
            self._drop(running, StillRunning(late, hint=AGAIN))
        elif not asset and self._is_overdue(running.ended):
            why = "is no longer there" if job.assets else "was never made"
            self._end(running, TargetError(f"the image of the job {job.id} {why}", hint=_NEW))

    def _collect_fetched(self) -> None:
        for future in [future for future in self._fetching if future.done()]:
            running = self._fetching.pop(future)
            try:
                future.result()
            except ComposeError as error:
                self._fail(running.cell, error)

    # --- how it ends ---------------------------------------------------------------------

    def _end(self, running: RunningJob, error: ComposeError) -> None:
        """There will be no image of this job."""
        self._journal.close(running.pending)
        self._drop(running, error)

    def _drop(self, running: RunningJob, error: ComposeError) -> None:
        """Wait for this job no longer."""
        del self._running[running.id]
        self._last_end = time.monotonic()
        self._fail(running.cell, error)

    def _fail(self, cell: Cell, error: ComposeError) -> None:
        if cell in self._prices:
            self._errors[cell] = error
            self._receiver.tell(Rendering(cell, "failed", error=error))
        else:
            log.warning("an image that an earlier run asked for: %s", error)

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped
