"""Moments as the engine keeps them (milliseconds since 1970, UTC) and as it answers them.

Used by the library and the store.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_ms() -> int:
    """Now, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def iso(ms: int) -> str:
    """ISO 8601 in UTC with milliseconds and `Z`: such texts sort by time."""
    try:
        moment = EPOCH + timedelta(milliseconds=ms)
    except OverflowError:  # a file's time can be anything, even the year 30000
        moment = EPOCH
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
