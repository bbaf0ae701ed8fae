"""The journal of image jobs: `jobs.jsonl` in the folder of previews, one event a line, all fsynced.

    intent   a request for an image is about to be sent (cell, input, at, uptime); once more, with a
             later time, where it got no answer
    job      the job that makes it (cell, job, at)
    closed   its image is kept, or there will be none (cell)

What is open is paid for, or may be: the next run looks for it before it pays for anything. Each
event has the `target`, whose jobs other targets don't know.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from composer.files.event_file import EventFile
from composer.previews.cells import Cell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from composer.files.event_file import Event

NAME = "jobs.jsonl"
_LATEST = 1e11  # seconds: what is later is not a time
_HINT = "move the file away; images of the jobs that it names are then paid for again"


@dataclass(frozen=True, slots=True)
class Pending:
    """A request for an image that is open: `job` is None until its answer is known.

    `input` is the body that was sent. `at` and `uptime` are when, by two clocks.
    """

    cell: Cell
    input: Mapping[str, object]
    at: float
    uptime: float
    job: str | None = None


class JobJournal:
    """The open requests to one target. Any thread may change them.

    `clock` gives seconds since 1970, `uptime` those since the machine started. Raises
    `InvalidInput` for a file that can't be read.
    """

    def __init__(
        self, folder: Path, target: str, clock: Callable[[], float], uptime: Callable[[], float]
    ) -> None:
        self.path = folder / NAME
        self.clock, self.uptime = clock, uptime
        self._target = target
        self._file = EventFile(self.path, _HINT)
        self._guard = threading.Lock()
        self._open: dict[Cell, Pending] = {}
        for number, event in enumerate(self._file.read(), start=1):
            try:
                self._apply(event)
            except (KeyError, TypeError, ValueError) as bad:
                raise self._file.invalid(number, "not an event of an image job") from bad

    @property
    def open(self) -> dict[Cell, Pending]:
        """What is open now, by cell, the oldest first."""
        with self._guard:
            return dict(self._open)

    def intend(self, cell: Cell, input: Mapping[str, object]) -> Pending:
        """Record that a request is about to be sent."""
        return self._record_intent(Pending(cell, input, self.clock(), self.uptime()))

    def unanswered(self, pending: Pending) -> Pending:
        """Record that it got no answer and may have taken effect: its grace begins now."""
        return self._record_intent(replace(pending, at=self.clock(), uptime=self.uptime()))

    def started(self, pending: Pending, job: str) -> Pending:
        """Record the job that makes the image."""
        now = self.clock()
        self._append("job", pending.cell, job=job, at=now)
        return self._keep(replace(pending, job=job, at=now))

    def close(self, pending: Pending) -> None:
        """Record that nothing is left to do: the image is kept, or there will be none."""
        self._append("closed", pending.cell)
        with self._guard:
            self._open.pop(pending.cell, None)

    def fold(self) -> None:
        """Keep only the events of what is open, and those of other targets."""
        is_open, events = self.open, self._file.read()
        kept = [
            event
            for event in events
            if event["target"] != self._target or Cell.described(event["cell"]) in is_open
        ]
        if not kept or len(kept) != len(events):  # an incomplete line alone is removed, too
            self._file.replace(kept)

    def _record_intent(self, pending: Pending) -> Pending:
        times = {"at": pending.at, "uptime": pending.uptime}
        self._append("intent", pending.cell, input=dict(pending.input), **times)
        return self._keep(pending)

    def _keep(self, pending: Pending) -> Pending:
        with self._guard:
            self._open[pending.cell] = pending
        return pending

    def _append(self, event: str, cell: Cell, **more: Any) -> None:
        place = {"target": self._target, "cell": cell.description}
        self._file.append({"event": event, **place, **more})

    def _apply(self, event: Event) -> None:
        if event["target"] != self._target:
            return
        cell = Cell.described(event["cell"])
        match event["event"]:
            case "intent":
                times = _time(event["at"]), _time(event["uptime"])
                self._open[cell] = Pending(cell, {**event["input"]}, *times)
            case "job":
                at = _time(event["at"])
                self._open[cell] = replace(self._open[cell], job=str(event["job"]), at=at)
            case "closed":
                self._open.pop(cell, None)


def _time(raw: object) -> float:
    if isinstance(raw, int | float) and abs(raw) < _LATEST:
        return float(raw)
    raise ValueError("not a time")
