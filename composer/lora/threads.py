"""Work on many layers in a few threads, while BLAS has only one for each of its calls.

A layer's matrices are too small for several threads: those of OpenBLAS would wait for each other,
and on a machine that has other work to do, for a hundred times as long as the product takes.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator
    from concurrent.futures import Future

    Item = TypeVar("Item")
    Result = TypeVar("Result")

THREADS = 4  # at most: more only wait for the disk and for memory
TURN = 4  # at most that a thread takes at once, of many: a turn costs as much as a small layer

_most = ContextVar("_most", default=THREADS)


@contextmanager
def in_one_thread() -> Iterator[None]:
    """Meanwhile layers are worked on one after the other, as where many processes share the cores.

    It holds for the thread that calls it.
    """
    token = _most.set(1)
    try:
        yield
    finally:
        _most.reset(token)


def map_in_order(
    work: Callable[[Item], Result], items: Collection[Item]
) -> Generator[Result, None, None]:
    """What `work` makes of each item, in order; no more than a few wait for their turn.

    When the caller stops, so does the work. What `work` raises is raised at its turn.
    """
    threads = min(_most.get(), os.cpu_count() or 1)
    waiting: deque[Future[list[Result]]] = deque()
    turns = _turns(items, max(1, min(TURN, len(items) // (8 * threads))))
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads, "compose-layer") as pool:
        try:
            waiting.extend(pool.submit(_each, work, turn) for turn in islice(turns, threads + 1))
            while waiting:
                yield from waiting.popleft().result()
                waiting.extend(pool.submit(_each, work, turn) for turn in islice(turns, 1))
        finally:
            pool.shutdown(cancel_futures=True)


def _turns(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while turn := list(islice(rest, size)):
        yield turn


def _each(work: Callable[[Item], Result], turn: list[Item]) -> list[Result]:
    return [work(item) for item in turn]
