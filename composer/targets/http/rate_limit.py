"""When the next request may be sent: shared by all threads and clients of one server.

The client asks here before each request, and records here how long a server asked to wait.
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_BACKOFF_CAP = 8.0  # seconds
_SPREAD_CAP = 5.0  # seconds


class Pace:
    """How long all callers must wait because the server asked for it. Thread-safe.

    `clock` counts seconds, `wall` is the time of day in seconds since 1970, and `chance` gives
    0..1 for jitter: tests bring their own.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.clock = clock
        self.wall = wall
        self.chance = chance
        self._lock = threading.Lock()
        self._until = float("-inf")
        self._spread = 0.0

    def hold(self, seconds: float, *, exact: bool = False) -> None:
        """Make all callers wait so many seconds; without `exact`, each a random bit longer."""
        until = self.clock() + seconds
        with self._lock:
            if until > self._until:
                self._until = until
                self._spread = 0.0 if exact else min(max(0.1, seconds / 10), _SPREAD_CAP)

    def left(self) -> float:
        """Seconds that this caller has to wait; 0 for none."""
        with self._lock:
            left = self._until - self.clock()
            return 0.0 if left <= 0 else left + self._spread * self.chance()

    def backoff(self, tries: int, first: float) -> float:
        """Seconds to wait after so many failed tries: doubled each time, half of it random."""
        longest = min(first * 2.0 ** min(tries - 1, 30), _BACKOFF_CAP)
        return longest * (0.5 + 0.5 * self.chance())


_paces: dict[str, Pace] = {}
_paces_lock = threading.Lock()


def shared(base: str) -> Pace:
    """The pace that the whole process shares for this base URL."""
    with _paces_lock:
        return _paces.setdefault(base, Pace())
