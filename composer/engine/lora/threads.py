"""Work on many layers by a few threads of ours, while BLAS has only one for each of its calls.

A layer's matrices are too small for several threads: those of OpenBLAS would wait for each other,
and on a machine that has other work to do, for a hundred times as long as the product takes.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Future

    Item = TypeVar("Item")
    Result = TypeVar("Result")

THREADS = 4  # at most: more only wait for the disk and for memory


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item]
) -> Generator[Result, None, None]:
    """What `work` makes of each item, in order; no more than a few wait for their turn.

    When the caller stops, so does the work. What `work` raises is raised at that item's turn.
    """
    threads = min(THREADS, os.cpu_count() or 1)
    waiting: deque[Future[Result]] = deque()
    rest = iter(items)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads, "compose-layer") as pool:
        try:
            waiting.extend(pool.submit(work, item) for item in islice(rest, threads + 1))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(rest, 1))
        finally:
            pool.shutdown(cancel_futures=True)
