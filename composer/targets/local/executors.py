"""Where compositions are made: in processes of this machine, or on the workers of a Dask cluster.

The worker hands a `Task` to an executor and gets a verified file. Task and result are small values:
the weights are read and written by whoever carries the task out, in folders that it shares with
this machine, or in an object store. A ticket stands for each attempt while somebody wants it.
"""

from __future__ import annotations

import concurrent.futures as futures
import logging
import os
import pickle
import re
import signal
import threading
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from composer.errors import TargetError, Unreachable, UsageError
from composer.targets.local.tasks import carry_out
from composer.targets.local.tickets import (
    FileTicket,
    NotWanted,
    ObjectTicket,
    digest,
    opened,
    remove_tickets,
    temporary_beside,
)
from composer.text import visible
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from composer.targets.local.tasks import Task
    from composer.targets.local.tickets import Result, Ticket

log = logging.getLogger(__name__)

T = TypeVar("T")
ATTEMPTS = 3  # workers that a task may lose
MOST = 256  # tasks at once
INTERVAL = 0.2  # seconds between two looks at a task
STORE_INTERVAL = 2.0  # seconds between two reports by an object store, which charges for each


@dataclass(frozen=True, slots=True)
class _Call:
    """Loading its pickle calls the function.

    Dask's scheduler and workers load what is sent to them before they run it, and one that can't
    ends. A pickle within bytes is loaded by the task itself: without compose, that alone fails.
    """

    function: Callable[..., object]
    arguments: tuple[object, ...]

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


class NoExecutor(TargetError):
    """Nobody is there to carry out any task. The task may be tried again later."""


class _Lost(Exception):
    """Who carried the task out is gone, or what it wrote is not there."""


# --- in the engine -----------------------------------------------------------------------


class Executor(ABC):
    """Carries tasks out, as many at once as it has slots. Thread-safe. Close it when done.

    Workers that don't see this machine's folders read the library from the URL `library`, and
    bring the results to the URL `results`. Either is empty where they do.
    """

    library = ""
    results = ""
    shares_files = False  # whether its workers certainly see temporary files of this process

    @abstractmethod
    def slots(self) -> int:
        """How many tasks can be carried out at once, at least 1."""

    @abstractmethod
    def close(self) -> None:
        """Let go of all workers; tasks that still run have no ticket any more, and end soon."""

    @abstractmethod
    def _lent(self, watch: Callable[[float], None]) -> Any:
        """A context with an executor of the standard library's interface; a lost one is replaced.

        An error that says that it is gone passes through, and the next one gets another.
        """

    def run(self, task: Task, out: Path, watch: Callable[[float], None]) -> None:
        """Make the composition, verify its digest, and put it in the place of the temporary `out`.

        A task whose worker is lost runs again on another one. `watch` is called with the progress,
        0..1, and may raise to cancel. Raises what carrying it out raises, and `NoExecutor`.
        """
        task = task.by_place(self.library) if self.library else task

        def attempt(executor: futures.Executor) -> None:
            with self._opened_ticket(out) as ticket:
                call = pickle.dumps(_Call(carry_out, (task, ticket)))
                result = _result(executor.submit(pickle.loads, call), ticket, watch)
                _receive(result, ticket, out, watch)

        self._try(attempt, task.id, watch)

    def call(
        self, function: Callable[..., T], *arguments: object, watch: Callable[[float], None]
    ) -> T:
        """What this function of a module returns, called by a worker; it may be called again.

        `watch` is called now and then with 0, and may raise to leave. Raises what the function
        raises, and `NoExecutor`.
        """
        call = pickle.dumps(_Call(function, arguments))

        def attempt(executor: futures.Executor) -> T:
            with _without_packages("render"):
                future: futures.Future[T] = executor.submit(pickle.loads, call)
                return _waited(future, lambda: watch(0.0))

        return self._try(attempt, "a task", watch)

    def _try(
        self, attempt: Callable[[futures.Executor], T], name: str, watch: Callable[[float], None]
    ) -> T:
        """What the attempt returns, on another worker where one is lost."""
        reason: Exception | None = None
        for _ in range(ATTEMPTS):
            try:
                with self._lent(watch) as executor:
                    return attempt(executor)
            except (futures.BrokenExecutor, _Lost) as error:
                log.info("%s runs again: %s", name, error)
                reason = error
        raise TargetError(
            f"its worker was lost {ATTEMPTS} times, the last time so: {reason}",
            hint="was it out of memory? docs/cluster.md lists what workers need",
        )

    def sweep(self, names: list[str]) -> None:
        """Remove what a killed engine left in the object store; it named its attempts so."""
        if self.results:
            remove_tickets(self.results, [name.lstrip(".") for name in names])

    @contextmanager
    def _opened_ticket(self, out: Path) -> Iterator[Ticket]:
        """One attempt. Raises `NoExecutor` where the object store does not answer."""
        mark = FileTicket(temporary_beside(out))
        try:
            with ExitStack() as stack:
                ticket: Ticket = stack.enter_context(opened(mark))
                if self.results:  # the file stays as a mark of it: see `sweep`
                    name = mark.path.name.lstrip(".")
                    stored = ObjectTicket(self.results, name, STORE_INTERVAL)
                    ticket = stack.enter_context(opened(stored))
                yield ticket
        except Unreachable as error:
            raise NoExecutor(error.message, hint=error.hint) from error


def _result(
    future: futures.Future[Result], ticket: Ticket, watch: Callable[[float], None]
) -> Result:
    """What the task returns; meanwhile `watch` sees its progress."""
    try:
        with _without_packages("local"):
            return _waited(future, lambda: watch(ticket.progress()))
    except NotWanted as error:  # but the ticket is here
        raise TargetError(
            f"a worker does not see {ticket.place}: {error}",
            hint="the workers must see it under the same name (docs/cluster.md)",
        ) from None


def _waited(future: futures.Future[T], look: Callable[[], None]) -> T:
    """What comes of it; `look` is called now and then, and may raise to give it up."""
    try:
        while not futures.wait([future], INTERVAL).done:
            look()
        return future.result()
    finally:
        future.cancel()


@contextmanager
def _without_packages(extra: str) -> Iterator[None]:
    """The error for a worker that lacks packages is one of ours, with a hint."""
    try:
        yield
    except ModuleNotFoundError as missing:
        raise TargetError(
            f"a worker has no {missing.name}",
            hint=f"on the workers: pip install 'lora-compose[{extra}]=={__version__}'",
        ) from missing


def _receive(result: Result, ticket: Ticket, out: Path, watch: Callable[[float], None]) -> None:
    """Put the file in the place of `out`. Raises `_Lost` if it is not what its worker wrote."""
    try:
        path = ticket.receive(result, out, lambda: watch(1.0))
        if (path.stat().st_size, digest(path)) != (result.size, result.sha256):
            path.unlink()
            raise _Lost("the result that arrived is not what its worker wrote")
        os.replace(path, out)
    except FileNotFoundError:
        raise _Lost("the result that its worker wrote did not arrive") from None


# --- processes of this machine -----------------------------------------------------------


class Processes(Executor):
    """So many processes, each in a pool of its own: one that dies takes no other with it."""

    shares_files = True

    def __init__(self, count: int) -> None:
        self._count = count
        self._idle: SimpleQueue[futures.ProcessPoolExecutor] = SimpleQueue()
        for _ in range(count):
            self._idle.put(_one_process())

    def slots(self) -> int:
        return self._count

    def close(self) -> None:
        for _ in range(self._count):
            self._idle.get().shutdown()

    @contextmanager
    def _lent(self, watch: Callable[[float], None]) -> Iterator[futures.ProcessPoolExecutor]:
        pool = self._idle.get()
        try:
            yield pool
        except futures.BrokenExecutor:
            pool.shutdown(wait=False)
            pool = _one_process()
            raise
        finally:
            self._idle.put(pool)


def _one_process() -> futures.ProcessPoolExecutor:
    """Started at the first task. Not forked: it must not inherit locks and threads."""
    import multiprocessing  # takes milliseconds, which only this executor needs

    context = multiprocessing.get_context("spawn")
    return futures.ProcessPoolExecutor(1, mp_context=context, initializer=_start_process)


def _start_process() -> None:
    """Leave Ctrl-C to the engine, and end when the engine does, even if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_engine, daemon=True).start()


def _end_with_the_engine() -> None:
    import multiprocessing

    if engine := multiprocessing.parent_process():
        engine.join()
        os._exit(1)


# --- a Dask cluster ----------------------------------------------------------------------


CONNECT = 5.0  # seconds for one attempt to connect
RECONNECT = 60.0  # seconds in which a scheduler may start again
COUNTED = 2.0  # seconds for which the number of threads is believed


class Dask(Executor):
    """The workers of a Dask cluster, by the address of its scheduler."""

    def __init__(self, place: str, library: str = "", results: str = "") -> None:
        """Raises `UsageError` without the package, `Unreachable` without a scheduler."""
        try:
            self._distributed: Any = import_module("distributed")
        except ModuleNotFoundError as missing:
            raise UsageError(
                f"--executor dask:// needs {missing.name}",
                hint="pip install 'lora-compose[cluster]'",
            ) from missing
        for name in ("distributed", "distributed.client"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are told in our words
        self._place, self.library, self.results = place, library, results
        self._lock = threading.Lock()
        self._counted = 0.0, 0
        try:
            self._client: Any = self._connect()
        except OSError as error:
            raise Unreachable(
                f"no Dask scheduler answers at dask://{place}: {error}",
                hint="start one: dask scheduler (docs/cluster.md)",
            ) from error
        if not self._threads():
            log.warning("the Dask cluster dask://%s has no workers yet: jobs wait for one", place)

    def slots(self) -> int:
        at, threads = self._counted
        if not at or time.monotonic() - at > COUNTED:
            threads = self._threads()
            self._counted = time.monotonic(), threads
        return min(MOST, max(1, threads))

    def close(self) -> None:
        if self._client is not None:
            self._client.close(CONNECT)

    @contextmanager
    def _lent(self, watch: Callable[[float], None]) -> Iterator[futures.Executor]:
        client = self._connected(watch)
        try:
            yield client.get_executor(pure=False)
        except (futures.CancelledError, self._distributed.client.ClosedClientError) as error:
            with self._lock, suppress(OSError):  # of closing
                if self._client is client:
                    self._client = None
                    client.close(CONNECT)
            raise _Lost(f"the scheduler dask://{self._place} was lost: {error}") from error
        except self._distributed.KilledWorker as error:
            raise TargetError(
                f"{error.allowed_failures + 1} Dask workers died while they worked on it",
                hint="were they out of memory? the workers' logs say more",
            ) from error

    def _connect(self) -> Any:
        address = f"tcp://{self._place}"
        return self._distributed.Client(address, timeout=CONNECT, set_as_default=False)

    def _connected(self, watch: Callable[[float], None]) -> Any:
        """The client, or a new one once the scheduler answers again; raises `NoExecutor`."""
        end = time.monotonic() + RECONNECT
        while time.monotonic() < end:
            if self._lock.acquire(timeout=INTERVAL):
                try:
                    self._client = self._client or self._connect()
                    return self._client
                except OSError as error:
                    log.info("dask://%s: %s", self._place, error)
                finally:
                    self._lock.release()
            watch(0.0)
        raise NoExecutor(
            f"the Dask scheduler dask://{self._place} no longer answers",
            hint="start it and its workers again, then run the same command again",
        )

    def _threads(self) -> int:
        """How many threads the workers have together; 0 if that can't be found out now."""
        client = self._client
        if client is None or client.status != "running":
            return 0
        try:
            return sum(client.nthreads().values())
        except Exception as error:  # it closes, or the scheduler does: Dask has many words for it
            log.info("dask://%s: %s", self._place, error)
            return 0


# --- by name -----------------------------------------------------------------------------


_PROCESSES = re.compile(r"processes:(\d{1,6})")
_DASK = re.compile(r"dask://(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):(\d{1,5})")


def find_executor(name: str, *, library: str = "", results: str = "") -> Callable[[], Executor]:
    """What opens the executor of this name: `processes:N` or `dask://HOST:PORT`.

    `library` and `results` are the URLs of object stores, for workers on other machines. Raises
    `UsageError` for any other name.
    """
    if (processes := _PROCESSES.fullmatch(name)) and 1 <= int(processes[1]) <= MOST:
        return partial(Processes, int(processes[1]))
    if (dask := _DASK.fullmatch(name)) and 1 <= int(dask[2]) <= 65535:
        return partial(Dask, f"{dask[1]}:{dask[2]}", library, results)
    raise UsageError(
        f"{visible(name)!r} is not an executor",
        hint=f"use processes:N (1 to {MOST}) or dask://HOST:PORT, as in dask://127.0.0.1:8786",
    )
