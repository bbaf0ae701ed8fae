"""The embedded engine as a target: the verbs of `composer.target`, on this machine.

The command line opens an `Engine` and hands it to `apply`; the server puts HTTP in front of
one. Compositions live in the store, LoRAs in the library; training is the worker's.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from composer.engine import checks
from composer.engine.answers import composition_model, job_answer, lora_model
from composer.engine.folder import Folder
from composer.engine.ids import composition_ids, job_id
from composer.engine.library import Library
from composer.engine.store import Store
from composer.engine.worker import Worker, free_space
from composer.entities import COMPOSITION, LORA, in_order
from composer.errors import NotFound, TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    from composer.engine.records import Record
    from composer.entities import Concept, Job, Model, Parameters


class Engine:
    """A `Target` on this machine; safe between threads. Close it when done.

    With `run_jobs` it makes its folder and carries jobs out while it is open, those that an
    earlier one left too. Without, it only answers: nothing is written but notes on LoRA files,
    and those only if there is a store already.
    """

    key = "local"
    remote = False
    grace = 0.0
    unsupported: Mapping[str, str] = checks.UNSUPPORTED
    ignores_training = True

    def __init__(
        self,
        state: Path,
        library: Path | None,
        *,
        run_jobs: bool = True,
        poll_interval: float = 0.2,
        free_space: Callable[[Path], int] = free_space,
    ) -> None:
        """`state` is the `.compose/` folder; `free_space` gives the bytes free on a folder's disk.

        Raises `TargetError` if the folder is a link, or the store can't be opened.
        """
        self._folder = Folder(state)
        if run_jobs:
            self._folder.prepare()
        else:
            self._folder.refuse_links()
        self.poll_interval = poll_interval
        self.store = Store(self._folder.database, write=run_jobs)  # the server reads rows from it
        self._library = Library(library, self.store)
        self._worker = (
            Worker(
                self.store, self._library, self._folder, poll=poll_interval, free_space=free_space
            )
            if run_jobs
            else None
        )
        if self._worker:
            self._worker.start()

    # --- what there is -------------------------------------------------------------------

    @property
    def rejected(self) -> Mapping[str, str]:
        """Names of files in the library that can't be used, each with the reason."""
        return self._library.scan().rejected

    def owner(self) -> str | None:
        return None

    def list_models(self, *types: str) -> list[Model]:
        """The LoRAs and compositions of these types (all, without any), newest first."""
        models: list[Model] = []
        if not types or COMPOSITION in types:
            models += map(self._model, self.store.records())
        if not types or LORA in types:
            models += map(lora_model, self._library.scan().loras.values())
        return sorted(models, key=lambda model: (model.created_at, model.id), reverse=True)

    def get_models(self, ids: Collection[str]) -> dict[str, Model]:
        """The models of these ids; unknown and deleted ones are left out."""
        records = [record for id in ids if (record := self.store.record(id))]
        models = {record.id: self._model(record) for record in records}
        if rest := [id for id in ids if id not in models]:
            loras = self._library.scan().loras
            models |= {id: lora_model(loras[id]) for id in rest if id in loras}
        return models

    def job(self, id: str) -> Job:
        """A training job; raises `NotFound`."""
        record = self.store.job(id)
        if record is None:
            raise NotFound(f"the local target has no job {id}")
        return job_answer(record)

    def result(self, id: str) -> Path:
        """The composed file of a trained composition; `NotFound` or `TargetError` without one."""
        record = self._composition(id)
        if not self._model(record).trained:
            raise TargetError(f"{id} ({record.name}) is not trained", hint="run `compose apply`")
        return self._folder.result(id)

    def size(self) -> int:
        """Bytes of all results."""
        return sum(self._folder.results().values())

    # --- what changes it -----------------------------------------------------------------

    def create(
        self,
        name: str,
        concepts: Iterable[Concept],
        *,
        description: str | None = None,
        id: str | None = None,
    ) -> Model:
        """Create a composition; scales are kept to 4 decimals, which is how they are compared.

        The wished `id` is granted if it is free, else one is derived from name and concepts.
        Raises `TargetError` for concepts that can't be composed.
        """
        self._writable()
        checks.check_texts(name, description)
        content = in_order(concepts)
        checks.check_concepts(content, self._library.scan().loras.keys())
        wish = [id] if id is not None and checks.can_be_granted(id) else []
        ids = chain(wish, composition_ids(name, content))
        created = self.store.create(ids, name, content, description)
        return self._model(self._composition(created))

    def update(self, id: str, *, name: str | None = None, description: str | None = None) -> None:
        """Change a composition's name or description; its id and its result stay."""
        self._writable()
        checks.check_texts(name, description)
        self._composition(id)
        self.store.update(id, name=name, description=description)

    def tag(self, id: str, *, add: Collection[str] = (), remove: Collection[str] = ()) -> None:
        """Add and remove a composition's tags."""
        self._writable()
        self._composition(id)
        self.store.tag(id, add=add, remove=remove)

    def train(self, id: str, parameters: Parameters = ()) -> Model:
        """Queue a composition's job. One that trains already is answered as it is.

        Raises `TargetError` for one that is trained (its content can't change, so there is
        nothing to do) and for parameters that are `unsupported`.
        """
        worker = self._writable()
        checks.check_parameters(parameters)
        record = self._composition(id)
        if self._model(record).trained:
            raise TargetError(f"{id} ({record.name}) is trained already")
        self.store.queue(id, job_id(id), parameters)
        worker.wake()
        return self._model(self._composition(id))

    def cancel(self, id: str) -> None:
        """Stop a training; one that was canceled already is no error."""
        self._writable()
        record = self._composition(id)
        if not self.store.cancel(id) and record.status != "training-canceled":
            raise TargetError(f"{id} ({record.name}) is not training")

    def delete(self, id: str) -> None:
        """Delete a composition and its result, for good; its training stops."""
        self._writable()
        self._composition(id)
        self._remove(id)

    def prune(self, keep: Collection[str], *, dry_run: bool = False) -> list[str]:
        """Delete all compositions, and results that no row knows, but those of `keep`.

        Answers their ids, sorted; with `dry_run` that is all it does.
        """
        if not dry_run:
            self._writable()
        stray = self._folder.results().keys()  # before the rows: a result's row is the older
        ids = sorted({*stray, *(record.id for record in self.store.records())} - set(keep))
        if not dry_run:
            for id in ids:
                self._remove(id)
        return ids

    def close(self) -> None:
        """Stop working; a job that runs goes back to the queue, for the next start."""
        if self._worker:
            self._worker.stop()
        self.store.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- within --------------------------------------------------------------------------

    def _model(self, record: Record) -> Model:
        return composition_model(record, self._folder.result_size(record.id))

    def _composition(self, id: str) -> Record:
        record = self.store.record(id)
        if record is not None:
            return record
        if id in self._library.scan().loras:
            raise TargetError(
                f"{id} is a LoRA of the library, not a composition",
                hint="change the file itself; the engine never does",
            )
        raise NotFound(
            f"the local target has no model {id}", hint="`compose models` lists what is there"
        )

    def _remove(self, id: str) -> None:
        try:
            self.store.delete(id, lambda: self._folder.result(id).unlink(missing_ok=True))
        except OSError as error:
            raise TargetError(
                f"the result of {id} can't be removed: {error.strerror or error}",
                hint="close the program that has the file open, then run it again",
            ) from error

    def _writable(self) -> Worker:
        """The worker, which only an engine that may write has."""
        if self._worker is None:
            raise TargetError("the engine is open for looking only")
        return self._worker
