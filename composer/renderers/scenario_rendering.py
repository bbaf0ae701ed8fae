"""The renderer of the kind `scenario`: images that the Scenario API makes of a mix of LoRAs.

The mix need not exist as a composition: its LoRAs and scales are sent with each request. Images
cost money, so every request is in a journal before it is sent, and what an interrupted run paid for
is fetched by the next one. `scenario_run` does the work.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import Refused
from composer.files.delivery import unwritable
from composer.lock import steady_clock
from composer.lora.families import default
from composer.previews.cells import RendererInfo
from composer.renderers.budget import Budget
from composer.renderers.cache import CellCache
from composer.renderers.job_journal import JobJournal
from composer.renderers.scenario_fetching import ImageReceiver
from composer.renderers.scenario_input import NAME, check_cells, image_input
from composer.renderers.scenario_run import Run, RunOptions
from composer.targets.base import Closing
from composer.targets.scenario.generation import StartedInstead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from composer.previews.cells import Cell, Look
    from composer.renderers.base import Keep, Rendered, Rendering, RenderRequest
    from composer.targets.scenario.service import Scenario

VERSION = "1"  # of what is sent for a cell; with another one, every image is made again


class ScenarioRenderer(Closing):
    """A `Renderer` on one target; the request's state folder has the journal of its jobs."""

    charges = True

    def __init__(self, service: Scenario, request: RenderRequest) -> None:
        base_model = request.base_model or default().base_model
        self.info = RendererInfo(NAME, VERSION, base_model, service.key.partition("#")[0])
        self._service, self._request = service, request
        self._cache = CellCache(request.state)
        self._prices: dict[tuple[Look, RendererInfo], float | None] = {}

    def check(self, cells: Sequence[Cell]) -> None:
        check_cells(cells)

    def price(self, cells: Sequence[Cell]) -> float | None:
        """See `Renderer`. An image whose job is known is paid for; one whose request got no answer
        may have to be paid for.

        If the target makes an image instead, that is in the journal: the next run fetches it.
        """
        started = {cell for cell, pending in self._journal().open.items() if pending.job}
        return _total(self._price(cell) for cell in dict.fromkeys(cells) if cell not in started)

    def render(
        self,
        cells: Sequence[Cell],
        keep: Keep,
        *,
        max_cost: float | None = None,
        tell: Callable[[Rendering], None] = lambda rendering: None,
    ) -> Rendered:
        """See `Renderer`. Without `max_cost` only that is made which costs nothing, and what the
        state folder has is not made again.

        What earlier runs paid for is fetched, too, whether it is among `cells` or not: `keep` gets
        it. A failed job counts as spent, though the vendor usually refunds it.
        """
        journal = self._journal()
        try:
            for cell, pending in journal.open.items():
                if cell in self._cache:  # the run was killed after the image was kept
                    journal.close(pending)
            wanted = dict.fromkeys(cell for cell in cells if cell not in self._cache)
            from_earlier = journal.open
            todo = [cell for cell in wanted if cell not in from_earlier]
            run = self._run(journal, Budget(max_cost or 0.0), keep, tell)
            started = {cell for cell, pending in from_earlier.items() if pending.job}
            prices = {c: 0.0 if c in started else self._known_price(c) for c in wanted}
            rendered = run.render(prices, todo)
            journal.fold()
        except OSError as error:
            raise unwritable(Path(error.filename or journal.path), error) from error
        return rendered

    def _run(
        self,
        journal: JobJournal,
        budget: Budget,
        keep: Keep,
        tell: Callable[[Rendering], None],
    ) -> Run:
        service, request = self._service, self._request
        options = RunOptions(
            service.grace, service.poll_interval, request.parallelism, request.sleep
        )
        return Run(service.generation, journal, budget, ImageReceiver(keep, tell), options)

    def close(self) -> None:
        """The target is closed by who opened it."""

    def _journal(self) -> JobJournal:
        return JobJournal(self._request.state, self._service.key, steady_clock(), time.monotonic)

    def _price(self, cell: Cell) -> float | None:
        """The price of an image of this kind, asked once."""
        if cell.kind not in self._prices:
            body = image_input(cell)
            try:
                price = self._service.generation.price(cell.renderer.base_model, body)
            except StartedInstead as started:
                with suppress(OSError):  # the message names the job
                    journal = self._journal()
                    journal.started(journal.intend(cell, body), started.job.id)
                raise
            self._prices[cell.kind] = price
        return self._prices[cell.kind]

    def _known_price(self, cell: Cell) -> float:
        """Raises `Refused` if there is none: no limit would hold."""
        price = self._price(cell)
        if price is None:
            raise Refused("the target does not say what an image costs: no limit would hold")
        return price


def _total(prices: Iterable[float | None]) -> float | None:
    """Their sum; None if one is not known."""
    known = list(prices)
    return None if None in known else sum(price for price in known if price is not None)
