"""Answers that lag behind, on purpose: stale lists and late replicas, for a while.

The fault script asks for it, the calls look through it. Without a script it does nothing.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from composer.targets.local.times import now_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.targets.local.records import Record


@dataclass(frozen=True, slots=True)
class _Frozen:
    """All compositions as they were; `until` and `span` in milliseconds."""

    records: Sequence[Record]
    until: int
    span: int


@dataclass(slots=True)
class ReplicaLag:
    """What is to be answered as if it hadn't happened yet; safe between threads."""

    _frozen: _Frozen | None = None
    _hidden: dict[str, int] = field(default_factory=dict)  # id -> the moment it appears
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def freeze(self, records: Sequence[Record], seconds: float) -> None:
        """For so long, lists answer these; of what is younger than that, nothing."""
        span = round(seconds * 1000)
        with self._lock:
            self._frozen = _Frozen(records, now_ms() + span, span)

    def hide(self, id: str, seconds: float) -> None:
        """For so long, this model is not there to be read."""
        with self._lock:
            self._hidden[id] = now_ms() + round(seconds * 1000)

    def hides(self, id: str) -> bool:
        """Whether a read must not know this model yet."""
        with self._lock:
            until = self._hidden.get(id)
            if until is not None and until <= now_ms():
                del self._hidden[id]
                return False
            return until is not None

    def listed(self, fresh: Sequence[Record], project: str) -> list[Record]:
        """What a list of this project's compositions answers; `fresh` is the truth."""
        with self._lock:
            frozen = self._frozen
        if frozen is None or frozen.until <= now_ms():
            records: Sequence[Record] = fresh
        else:
            old = now_ms() - frozen.span
            known = (record for record in frozen.records if record.project == project)
            records = [record for record in known if record.created_at <= old]
        return [record for record in records if not self.hides(record.id)]
