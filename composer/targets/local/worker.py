"""The worker: a thread that carries training jobs out, which here means composing files.

The service starts, wakes and stops it. One process works at a time, under a lock of the operating
system; the others watch, and take over if it dies. Whatever kills a worker, the file of a result is
always whole, and the next worker does the job again.

It composes one file after the other; with an executor as many at once as that has slots, each
watched by a thread.
"""

from __future__ import annotations

import logging
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from composer.errors import ComposeError, TargetError, Unreachable
from composer.files.atomic import replacing
from composer.files.repository import is_link
from composer.lora.fingerprint import Fingerprint, Part
from composer.lora.merging import (
    CompositionSpec,
    OutputOptions,
    cost_warning,
    size_warning,
    write_composed,
)
from composer.model import is_id
from composer.targets.local.database import DATABASE
from composer.targets.local.executors import MOST, NoExecutor
from composer.targets.local.tasks import SPACE_HINT, Task, read_once
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from pathlib import Path

    from composer.targets.local.executors import Executor
    from composer.targets.local.library import Library
    from composer.targets.local.records import Record
    from composer.targets.local.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Folder:
    """The files and folders of the local target in the state folder, which is `root`."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / DATABASE

    @property
    def lock(self) -> Path:
        return self.root / "worker.lock"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def assets(self) -> Path:
        return self.root / "assets"

    def asset(self, id: str) -> Path:
        """Where the image of this id lies that the server made."""
        return self.assets / f"{id}.png"

    def result(self, id: str) -> Path:
        """Where the composed file of this composition lies, once trained."""
        return self.models / f"{id}.safetensors"

    def result_size(self, id: str) -> int | None:
        """Bytes of a composition's result; None without a regular file of that name."""
        try:
            status = self.result(id).lstat()
        except OSError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def results(self) -> dict[str, int]:
        """The size in bytes of each result, by id."""
        names = sorted(file.stem for file in self.models.glob("*.safetensors"))
        sizes = {name: self.result_size(name) for name in names if is_id(name)}
        return {name: size for name, size in sizes.items() if size is not None}

    def sweep(self) -> list[str]:
        """Remove temporary files that a killed worker left; only under the worker's lock.

        Returns their names.
        """
        files = list(self.models.glob(".*.tmp"))
        for file in files:
            with suppress(OSError):  # it does no harm
                file.unlink()
        return [file.name for file in files]

    def refuse_links(self) -> None:
        """Raise `TargetError` if the folder, or one of its files and folders, is a link."""
        for path in (self.root, self.models, self.assets, self.database, self.lock):
            if is_link(path):
                raise TargetError(
                    f"{path} is a link, and compose does not follow links there",
                    hint="remove the link; compose creates its own",
                )

    def prepare(self) -> None:
        """Create the folders that are missing. Raises `TargetError`."""
        self.refuse_links()
        try:
            self.models.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TargetError(
                f"cannot create the folder {self.models}: {error.strerror or error}",
                hint="make that folder writable, or use another target",
            ) from error


REPORT_INTERVAL = 0.1  # seconds


class _Stop(Exception):
    """The target is being closed: the job goes back to the queue."""


class _Cancel(Exception):
    """The job was canceled, or its composition deleted."""


class Worker:
    """Carries the store's jobs out in a thread, from `start` to `stop`."""

    def __init__(
        self,
        store: Store,
        library: Library,
        folder: Folder,
        *,
        poll: float,
        free_space: Callable[[Path], int],
        executor: Executor | None = None,
    ) -> None:
        """`poll` is the time in seconds between two looks for jobs of other processes."""
        self._store = store
        self._library = library
        self._folder = folder
        self._poll = poll
        self._free_space = free_space
        self._executor = executor
        self._lock = FileLock(folder.lock)
        self._condition = threading.Condition()
        self._awake = True  # an earlier process may have left jobs
        self._stopping = False
        self.trouble: str | None = None  # why the last attempt could not even be recorded
        self._thread = threading.Thread(target=self._run, name="compose-worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Tell the thread that there is a job."""
        self.trouble = None
        self._rouse()

    def stop(self) -> None:
        """End the thread soon; a job that runs goes back to the queue."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join()

    def _rouse(self) -> None:
        with self._condition:
            self._awake = True
            self._condition.notify()

    def _run(self) -> None:
        while not self._stopping:
            self._try()
            self._rest()

    def _rest(self) -> None:
        """Wait until there may be something to do."""
        with self._condition:
            self._condition.wait_for(lambda: self._awake or self._stopping, self._poll)
            self._awake = False

    def _try(self) -> None:
        """Work; a failure here is one of the store or the disk, and can't be recorded in the store.

        The job stays queued and is tried again; who asks for it meanwhile is told the `trouble`.
        """
        try:
            self._work()
            self.trouble = None
        except Unreachable:
            pass  # the store is busy
        except ComposeError as error:
            self.trouble = str(error)
        except OSError as error:
            place = error.filename or self._folder.root
            self.trouble = f"{place}: {error.strerror or error}"

    def _work(self) -> None:
        """Carry out all queued jobs, unless another process does."""
        if not self._store.waiting():
            return
        try:
            with self._lock.acquire(timeout=0):
                left = self._folder.sweep()
                if self._executor:
                    self._executor.sweep(left)
                    self._share_out(self._executor)
                    return
                while not self._stopping and (record := self._store.claim()):
                    self._do(record)
        except Timeout:
            return

    def _share_out(self, executor: Executor) -> None:
        """Carry out all queued jobs, also those that come meanwhile, several at once."""
        running: dict[str, Future[None]] = {}
        with ThreadPoolExecutor(MOST, "compose-job") as threads:
            while not self._stopping:
                while len(running) < executor.slots() and (record := self._next(running)):
                    future = threads.submit(self._do, record)
                    running[str(record.job)] = future
                    future.add_done_callback(lambda done: self._rouse())
                if not running:
                    break
                self._rest()
                for job in [job for job, future in running.items() if future.done()]:
                    running.pop(job).result()
                    self.trouble = None
        for future in running.values():
            future.result()

    def _next(self, running: Iterable[str]) -> Record | None:
        """Start another job, if there is one; looking for it locks nothing."""
        return self._store.claim(running) if self._store.waiting(running) else None

    def _do(self, record: Record) -> None:
        job = str(record.job)
        try:
            self._compose(record, job)
        except _Cancel:
            return
        except _Stop:
            self._store.put_back(job)
        except Unreachable:
            raise  # the store is busy: the job is tried again
        except NoExecutor:
            self._store.put_back(job)
            raise
        except ComposeError as error:
            self._store.fail(record.id, job, str(error))
        except OSError as error:
            self._store.fail(record.id, job, f"{self._folder.models}: {error.strerror or error}")
        except Exception as error:  # an internal error ends its job, not the worker
            self._store.fail(record.id, job, f"unexpected {type(error).__name__}: {error}")

    def _compose(self, record: Record, job: str) -> None:
        options = OutputOptions.of(record.parameters or ())
        spec = CompositionSpec(self._parts(record), record.id, options)
        cost = cost_warning(spec.foreseen) if options.rank else None
        for warning in filter(None, (size_warning(spec), cost)):
            log.warning("%s: %s", visible(record.name), warning)
        with ExitStack() as replacement:
            temporary = replacement.enter_context(replacing(self._folder.result(record.id)))
            self._write(spec, temporary, self._reporter(job))
            size = temporary.stat().st_size
            if not self._store.succeed(record.id, job, size, publish=replacement.close):
                raise _Cancel

    def _write(self, spec: CompositionSpec, out: Path, progress: Callable[[float], None]) -> None:
        """Compose the file `out`, here or by the executor."""
        if self._executor:
            self._executor.run(Task.of(spec), out.absolute(), progress)
            return
        write_composed(spec, out, progress=progress, free_space=self._free_space, hint=SPACE_HINT)

    def _parts(self, record: Record) -> tuple[Part, ...]:
        """The LoRAs and scales of a composition, in content order."""
        wanted = [concept.model_id for concept in record.concepts]
        loras = self._library.having(wanted)
        gone = [id for id in wanted if id not in loras]
        if gone:
            raise TargetError(
                f"the library no longer has {', '.join(gone)}",
                hint="put the file back, then run `compose apply` again",
            )
        pairs = [(loras[c.model_id].fingerprint, c.scale) for c in record.concepts]
        read = read_once if self._executor else Fingerprint.read
        return tuple(Part(fingerprint, read(fingerprint), scale) for fingerprint, scale in pairs)

    def _reporter(self, job: str) -> Callable[[float], None]:
        """A function that records progress, and raises if the job must stop."""
        last = 0.0

        def report(share: float) -> None:
            nonlocal last
            if self._stopping:
                raise _Stop
            if time.monotonic() - last < REPORT_INTERVAL:
                return
            last = time.monotonic()
            with suppress(Unreachable):  # a busy store may miss one report
                if not self._store.report(job, share):
                    raise _Cancel

        return report
