"""Where compositions are made: in processes of this machine, or on the workers of a Dask cluster.

The worker hands a `Task` to an executor and gets a verified file. Task and result are small values:
the weights are read and written by whoever carries the task out, in folders that it shares with
this machine. A small file, the ticket, stands for each attempt while somebody wants it: who carries
it out writes the progress into it, and stops once it is gone.
"""

from __future__ import annotations

import concurrent.futures as futures
import hashlib
import logging
import os
import pickle
import re
import secrets
import signal
import socket
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import BrokenExecutor, CancelledError, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib import import_module
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from composer.errors import BadLora, TargetError, Unreachable, UsageError
from composer.files.atomic import create, no_link
from composer.lora.fingerprint import Fingerprint, Part, fingerprint_file
from composer.lora.merging import CompositionSpec, OutputOptions, write_composed
from composer.lora.threads import in_one_thread
from composer.text import visible
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

ATTEMPTS = 3  # workers that a task may lose
MOST = 256  # tasks at once
INTERVAL = 0.2  # seconds between two looks at the ticket
TEMPORARY = ".compose.tmp"  # how the names of the files end that `files.atomic` makes
# Reading a header takes as long as hashing; many compositions have one LoRA. Raises `BadLora`.
read_once = lru_cache(maxsize=64)(Fingerprint.read)
SPACE_HINT = "`compose prune --local` frees what no lock names"


@dataclass(frozen=True, slots=True)
class Task:
    """A composition to make: its id, and its LoRAs as paths with digests, each with its scale."""

    id: str
    loras: tuple[tuple[Fingerprint, float], ...]
    options: OutputOptions
    version: str = __version__

    @classmethod
    def of(cls, spec: CompositionSpec) -> Task:
        """What this spec says, without the headers that were read; for any working directory."""
        loras = ((_absolute(part.fingerprint), part.scale) for part in spec.parts)
        return cls(spec.title, tuple(loras), spec.options)


def _absolute(lora: Fingerprint) -> Fingerprint:
    root = None if lora.root is None else lora.root.absolute()
    return replace(lora, path=lora.path.absolute(), root=root)


@dataclass(frozen=True, slots=True)
class Result:
    """The file that was written, and what it must be when it arrives."""

    path: Path
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Call:
    """Loading its pickle calls `carry_out`.

    Dask's scheduler and workers load what is sent to them before they run it, and one that can't
    ends. A pickle within bytes is loaded by the task itself: without compose, that alone fails.
    """

    task: Task
    ticket: Path

    def __reduce__(self) -> tuple[Callable[..., Result], tuple[Task, Path]]:
        return carry_out, (self.task, self.ticket)


class NotWanted(Exception):
    """There is no ticket: the task was canceled, or whoever wanted it is gone."""


class NoExecutor(TargetError):
    """Nobody is there to carry out any task. The task may be tried again later."""


class _Lost(Exception):
    """Who carried the task out is gone, or what it wrote is not there."""


# --- on the worker -----------------------------------------------------------------------


def carry_out(task: Task, ticket: Path) -> Result:
    """Write the composition to a new file beside the ticket.

    Raises what `write_composed` does, `TargetError` for a worker that isn't set up as it must be,
    and `NotWanted`; then nothing is left.
    """
    if task.version != __version__:
        raise TargetError(
            f"{socket.gethostname()} has compose {__version__}, and the task is of {task.version}",
            hint=f"on the workers: pip install 'lora-compose[local]=={task.version}'",
        )
    report = _reporter(ticket)
    out = _beside(ticket)
    try:
        os.close(create(out))
        parts = tuple(_part(lora, scale) for lora, scale in task.loras)
        spec = CompositionSpec(parts, task.id, task.options)
        with in_one_thread():
            write_composed(spec, out, progress=report, hint=SPACE_HINT)
        result = Result(out, out.stat().st_size, _digest(out))
        report(1.0)
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    return result


def _beside(file: Path) -> Path:
    """A new name for a temporary file, which begins as that of this temporary file does."""
    return file.with_name(f"{file.name.removesuffix(TEMPORARY)}{secrets.token_hex(8)}{TEMPORARY}")


def _part(lora: Fingerprint, scale: float) -> Part:
    """The LoRA as this machine sees it. Raises `BadLora` if it is another file here."""
    if not lora.still_reliable():
        here = fingerprint_file(lora.path, root=lora.root)
        if here.hashes != lora.hashes:
            raise BadLora(
                f"{visible(str(lora.path))} on {socket.gethostname()} is another file than in the"
                " library",
                hint="the workers must see the library under the same path (docs/cluster.md)",
            )
        lora = here
    return Part(lora, read_once(lora), scale)


def _digest(path: Path) -> str:
    with open(path, "rb", opener=no_link) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reporter(ticket: Path) -> Callable[[float], None]:
    """A function that writes the progress into the ticket, at once and then now and then."""
    last = 0.0

    def report(share: float) -> None:
        nonlocal last
        if 0 < share < 1 and time.monotonic() - last < INTERVAL:
            return
        last = time.monotonic()
        try:
            with open(ticket, "r+b", buffering=0, opener=no_link) as file:
                file.write(f"{share:.6f}".encode())
        except FileNotFoundError:
            raise NotWanted(f"{socket.gethostname()} does not see {ticket}") from None

    report(0.0)
    return report


# --- in the engine -----------------------------------------------------------------------


class Executor(ABC):
    """Carries tasks out, as many at once as it has slots. Thread-safe. Close it when done."""

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
        reason: Exception | None = None
        for _ in range(ATTEMPTS):
            try:
                with self._lent(watch) as executor, _ticket(out) as ticket:
                    future = executor.submit(pickle.loads, pickle.dumps(_Call(task, ticket)))
                    os.replace(_verified(_result(future, ticket, watch), out.parent), out)
                return
            except (BrokenExecutor, _Lost) as error:
                log.info("%s runs again: %s", task.id, error)
                reason = error
        raise TargetError(
            f"its worker was lost {ATTEMPTS} times, the last time so: {reason}",
            hint="was it out of memory? docs/cluster.md lists what workers need",
        )


@contextmanager
def _ticket(out: Path) -> Iterator[Path]:
    """A ticket for one attempt; at the end it is gone, and so is what its workers wrote."""
    ticket = _beside(out)
    os.close(create(ticket))
    try:
        yield ticket
    finally:
        for file in [ticket, *out.parent.glob(f"{ticket.name.removesuffix(TEMPORARY)}?*")]:
            with suppress(OSError):  # swept later
                file.unlink()


def _result(future: futures.Future[Result], ticket: Path, watch: Callable[[float], None]) -> Result:
    """What the task returns; meanwhile `watch` sees its progress."""
    try:
        while not wait([future], INTERVAL).done:
            watch(_progress(ticket))
        return future.result()
    except NotWanted as error:  # but the ticket is here
        raise TargetError(
            f"a worker does not see the state folder: {error}",
            hint="the workers must see it under the same path (docs/cluster.md)",
        ) from None
    except ModuleNotFoundError as missing:
        raise TargetError(
            f"a worker has no {missing.name}",
            hint=f"on the workers: pip install 'lora-compose[local]=={__version__}'",
        ) from missing
    finally:
        future.cancel()


def _progress(ticket: Path) -> float:
    with suppress(ValueError, OSError):
        return float(ticket.read_bytes()[:8])
    return 0.0


def _verified(result: Result, folder: Path) -> Path:
    """The file that a worker wrote into this folder. Raises `_Lost` if it is not what it says."""
    path = folder / result.path.name
    try:
        if (path.stat().st_size, _digest(path)) != (result.size, result.sha256):
            raise _Lost("the result that arrived is not what its worker wrote")
    except FileNotFoundError:
        raise _Lost("the result that its worker wrote did not arrive") from None
    return path


# --- processes of this machine -----------------------------------------------------------


class Processes(Executor):
    """So many processes, each in a pool of its own: one that dies takes no other with it."""

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
        except BrokenExecutor:
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

    def __init__(self, place: str) -> None:
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
        self._place = place
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
        except (CancelledError, self._distributed.client.ClosedClientError) as error:
            with self._lock, suppress(OSError):  # of closing
                if self._client is client:
                    self._client = None
                    client.close(CONNECT)
            raise _Lost(f"the scheduler dask://{self._place} was lost: {error}") from error
        except self._distributed.KilledWorker as error:
            raise TargetError(
                f"{error.allowed_failures + 1} Dask workers died while they composed it",
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


def find_executor(name: str) -> Callable[[], Executor]:
    """What opens the executor of this name: `processes:N` or `dask://HOST:PORT`.

    Raises `UsageError` for any other.
    """
    if (processes := _PROCESSES.fullmatch(name)) and 1 <= int(processes[1]) <= MOST:
        return partial(Processes, int(processes[1]))
    if (dask := _DASK.fullmatch(name)) and 1 <= int(dask[2]) <= 65535:
        return partial(Dask, f"{dask[1]}:{dask[2]}")
    raise UsageError(
        f"{visible(name)!r} is not an executor",
        hint=f"use processes:N (1 to {MOST}) or dask://HOST:PORT, as in dask://127.0.0.1:8786",
    )
