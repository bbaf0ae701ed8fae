"""The worker: a thread that carries training jobs out, which here means composing files.

The service starts, wakes and stops it. One process works at a time, under a lock of the
operating system; the others watch, and take over if it dies. Whatever kills a worker, a
result's name only ever holds a whole file, and the next worker does the job again.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from composer.errors import ComposeError, TargetError, Unreachable
from composer.files.atomic import sync_folder
from composer.lora.fingerprint import Part
from composer.lora.merging import CompositionSpec, OutputOptions, write_composed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from composer.targets.local.folder import Folder
    from composer.targets.local.library import Library
    from composer.targets.local.records import Record
    from composer.targets.local.store import Store

REPORTS = 0.1  # seconds between two notes of progress


class _Stop(Exception):
    """The engine is being closed: the job goes back to the queue."""


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
    ) -> None:
        """`poll` is the time in seconds between two looks for what other processes left."""
        self._store = store
        self._library = library
        self._folder = folder
        self._poll = poll
        self._free_space = free_space
        self._lock = FileLock(folder.lock)
        self._bell = threading.Condition()
        self._rung = True  # work may have been left by an earlier process
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="compose-worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Say that there is work."""
        with self._bell:
            self._rung = True
            self._bell.notify()

    def stop(self) -> None:
        """End the thread soon; a job that runs goes back to the queue."""
        with self._bell:
            self._stopping = True
            self._bell.notify()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            # What fails here is the store or the disk. The verbs meet the same and report it;
            # the job stays where it is, and is tried again.
            with suppress(ComposeError, OSError):
                self._work()
            with self._bell:
                self._bell.wait_for(lambda: self._rung or self._stopping, self._poll)
                self._rung = False

    def _work(self) -> None:
        """Do all jobs that wait, unless another process is at it."""
        if not self._store.waiting():
            return
        try:
            with self._lock.acquire(timeout=0):
                self._folder.sweep()
                while not self._stopping and (record := self._store.claim()):
                    self._do(record)
        except Timeout:
            return

    def _do(self, record: Record) -> None:
        job = str(record.job)
        try:
            self._compose(record, job)
        except _Cancel:
            return
        except _Stop:
            self._store.put_back(job)
        except Unreachable:
            raise  # the store is busy: the job is taken up again
        except ComposeError as error:
            self._store.fail(record.id, job, str(error))
        except OSError as error:
            self._store.fail(record.id, job, f"{self._folder.models}: {error.strerror or error}")
        except Exception as error:  # a bug must end its job, not the worker
            self._store.fail(record.id, job, f"unexpected {type(error).__name__}: {error}")

    def _compose(self, record: Record, job: str) -> None:
        options = OutputOptions.of(record.parameters or ())
        spec = CompositionSpec(self._parts(record), record.id, options)
        temporary = self._folder.temporary(record.id)
        try:
            write_composed(
                spec,
                temporary,
                progress=self._reporter(job),
                free_space=self._free_space,
                hint="`compose prune --local` frees what no lock names",
            )
            self._publish(record.id, job, temporary)
        finally:
            with suppress(OSError):  # what can't be removed now is swept later
                temporary.unlink(missing_ok=True)

    def _parts(self, record: Record) -> tuple[Part, ...]:
        """The LoRAs and scales of a composition, in content order."""
        loras = self._library.scan().loras
        gone = [c.model_id for c in record.concepts if c.model_id not in loras]
        if gone:
            raise TargetError(
                f"the library no longer has {', '.join(gone)}",
                hint="put the file back, then run `compose apply` again",
            )
        pairs = [(loras[c.model_id].fingerprint, c.scale) for c in record.concepts]
        return tuple(Part(fingerprint, fingerprint.read(), scale) for fingerprint, scale in pairs)

    def _publish(self, id: str, job: str, temporary: Path) -> None:
        result = self._folder.result(id)

        def replace() -> None:
            os.replace(temporary, result)
            sync_folder(result.parent)

        self._store.succeed(id, job, temporary.stat().st_size, replace)

    def _reporter(self, job: str) -> Callable[[float], None]:
        """A function that notes progress, and ends the job if it is to end."""
        last = 0.0

        def report(share: float) -> None:
            nonlocal last
            if self._stopping:
                raise _Stop
            if time.monotonic() - last < REPORTS:
                return
            last = time.monotonic()
            with suppress(Unreachable):  # a busy store may miss a note
                if not self._store.report(job, share):
                    raise _Cancel

        return report
