"""The local target: the verbs of `composer.targets.base`, on this machine.

The kind `local` opens an `Engine`, and the server serves one by HTTP. Compositions are in the
store, LoRAs in the library; the worker carries training out.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from composer.errors import BadLora, NotFound, TargetError
from composer.files.delivery import free_space
from composer.lora import families
from composer.lora.analysis import lora_info
from composer.lora.composition import check_together
from composer.lora.errors import LoraFormatError
from composer.lora.ids import composition_ids, job_id
from composer.lora.inspection import Inspection
from composer.lora.opening import read_metadata
from composer.model import NOTHING_DESCRIBED, TRAINED, LibraryPlace, in_order
from composer.targets.base import Closing
from composer.targets.local.activity import activity
from composer.targets.local.library import Library, lora_model
from composer.targets.local.mirror import Mirror
from composer.targets.local.overlaps import Overlaps, lora_file
from composer.targets.local.paging import all_of
from composer.targets.local.records import (
    FAILED,
    NEW,
    TRAINING,
    UNSUPPORTED,
    NewComposition,
    check_concepts,
    check_parameters,
    check_texts,
    composition_model,
    damage,
    is_usable_id,
    job_answer,
    no_such_lora,
    status_of,
)
from composer.targets.local.store import Store
from composer.targets.local.worker import Folder, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from composer.lora.inspection import Advice, Mix
    from composer.model import Concept, Content, Described, Job, Model, Parameters
    from composer.targets.local.activity import Activity
    from composer.targets.local.executors import Executor
    from composer.targets.local.library import Catalog, Lora
    from composer.targets.local.paging import Listing
    from composer.targets.local.records import Download, JobRecord, Record


_COARSE = 2000  # milliseconds: how far the clocks of a file system and of this machine may differ


class Engine(Closing):
    """A `Target` on this machine. Thread-safe. Close it when done.

    With `run_jobs` it creates its folder and carries jobs out while it is open, also those that an
    earlier one left. Without, it only reads: nothing is written but notes on LoRA files, and those
    only with `remember`, and if the database exists.
    """

    key = "local"
    remote = False
    grace = 0.0
    unsupported: Mapping[str, str] = UNSUPPORTED
    ignores_training = True

    def __init__(
        self,
        state: Path,
        library: Path | Mirror | None,
        *,
        place: LibraryPlace | None = None,
        run_jobs: bool = True,
        remember: bool = True,
        one_scan: bool = False,
        poll_interval: float = 0.2,
        free_space: Callable[[Path], int] = free_space,
        executor: Executor | None = None,
        scanning: Callable[[float], None] = lambda share: None,
    ) -> None:
        """`state` is the project's state folder; `free_space` gives the bytes free on a disk;
        `place` is the library as messages name it, by default by its path.

        `library` is a folder of LoRA files, or the mirror of one in an object store.

        With an `executor`, which is closed with the engine, that composes, not this process.

        `scanning` is told 0..1 while the library is looked through for the first time.

        With `one_scan`, the library is what it was at the first look, as one command sees it.

        Raises `TargetError` if the folder is a link or the database can't be opened.
        """
        self.folder = Folder(state)
        self._project = ""
        self._one_scan = one_scan
        self._reuse_ids = True
        if run_jobs:
            self.folder.prepare()
        else:
            self.folder.refuse_links()
        self.poll_interval = poll_interval
        self.store = Store(self.folder.database, write=run_jobs, notes=run_jobs or remember)
        self._library = Library(library, self.store, scanning=scanning)
        folder = library.folder if isinstance(library, Mirror) else library
        exists = folder is not None and folder.is_dir()
        self.library_place = place or LibraryPlace(str(folder), exists)
        self._worker: Worker | None = None
        self._executor = executor
        if run_jobs:
            places = self.store, self._library, self.folder
            self._worker = Worker(
                *places, poll=poll_interval, free_space=free_space, executor=executor
            )
            self._worker.start()

    def of_project(self, name: str) -> Engine:
        """This target as one project sees it: only its own compositions, and all LoRAs.

        In process everything is in the project with the empty name. A view never gives the id of a
        deleted composition to another one, since a client may still know the deleted one by it.
        """
        view = copy.copy(self)
        view._project, view._reuse_ids = name, False
        return view

    # --- what there is -------------------------------------------------------------------

    @property
    def rejected(self) -> Mapping[str, str]:
        """Names of files in the library that can't be used, each with the reason."""
        return self._catalog().rejected

    @property
    def library_url(self) -> str:
        """The URL of the object store that has the library; empty for a folder."""
        return self._library.url

    def owner(self) -> str | None:
        return None

    def list_models(self, *types: str) -> list[Model]:
        """The LoRAs and compositions of these types (all, without any), newest first."""
        models: list[Model] = []
        if not types or families.composition_types() & {*types}:
            models += map(self._model, self.records())
        if not types or families.lora_types() & {*types}:
            models += map(lora_model, self._catalog().loras.values())
        models = [model for model in models if not types or model.type in types]
        return sorted(models, key=lambda model: (model.created_at, model.id), reverse=True)

    def records(self, *, deleted: bool = False) -> list[Record]:
        """The project's compositions as rows, newest first; deleted ones only on request."""
        rows = self.store.records(deleted=deleted)
        return [self._current(row) for row in rows if row.project == self._project]

    def records_of(self, listing: Listing) -> Iterator[Record]:
        """The project's compositions in a listing's order, read from the store as they are taken.

        Rows in other states than the listing's may be among them: a trained composition counts as
        `new` if its result is missing, which only a look at the file tells.
        """
        stored = self._stored(listing, {NEW: {TRAINED}}, {FAILED: {TRAINING}})
        return map(self._current, all_of(partial(self.store.page, self._project), stored))

    def record(self, id: str) -> Record | None:
        """A composition of the project as a row; None if it does not exist or is deleted."""
        row = self.store.record(id)
        return self._current(row) if row is not None and row.project == self._project else None

    def get_models(self, ids: Collection[str]) -> dict[str, Model]:
        """The models of these ids; unknown and deleted ones are left out."""
        records = [record for id in ids if (record := self.record(id))]
        models = {record.id: self._model(record) for record in records}
        if rest := [id for id in ids if id not in models]:
            loras = self._catalog().loras
            models |= {id: lora_model(loras[id]) for id in rest if id in loras}
        return models

    def job(self, id: str) -> Job:
        """A training job; raises `NotFound`."""
        record = self.store.job(id)
        if record is None:
            raise NotFound(f"the local target has no job {id}")
        return job_answer(self._current_job(record))

    def training_job(self, id: str) -> JobRecord | None:
        """A training job of the project as a row; None if it does not exist."""
        job = self.store.job(id, self._project)
        return self._current_job(job) if job else None

    def jobs_of(self, listing: Listing) -> Iterator[JobRecord]:
        """The project's training jobs, as `records_of` gives compositions."""
        stored = self._stored(listing, {}, {"failure": {"queued", "in-progress"}})
        return map(self._current_job, all_of(partial(self.store.jobs_page, self._project), stored))

    def activity(self, *, most: int) -> Activity:
        """The jobs that are queued or in progress, of all projects; at most so many a kind."""
        return activity(self.store, most=most)

    def download(self, id: str) -> Download | None:
        """A download of the project; None if it does not exist."""
        return self.store.download(id, self._project)

    def downloads_of(self, listing: Listing) -> Iterator[Download]:
        """The project's downloads in a listing's order."""
        return all_of(partial(self.store.downloads_page, self._project), listing)

    def add_download(self, id: str, composition: str) -> None:
        """Record a request to download a result; `id` is that of the download's job."""
        self.store.add_download(id, composition, self._project)

    def result(self, id: str) -> Path:
        """The composed file of a trained composition; `NotFound` or `TargetError` without one."""
        record = self._current(self._composition(id))
        if record.status != TRAINED:
            why = (
                f": {record.error}" if record.status == NEW and record.error else " is not trained"
            )
            raise TargetError(f"{id} ({record.name}){why}", hint="run `compose apply`")
        return self.folder.result(id)

    def holds(self, path: Path) -> bool:
        """Whether this path leads to a file of the library, under any name."""
        return self._library.holds(path)

    def size(self) -> int:
        """Bytes of all results."""
        return sum(self.folder.results().values())

    def changed_results(self) -> dict[str, str]:
        """What is wrong with stored results that are not as they were made, by composition.

        `pull` may make a file a hard link: whoever edits it edits the stored result.
        """
        words = {}
        for row in self.store.records():
            if row.project != self._project or row.status != TRAINED:
                continue
            if (size := self.folder.result_size(row.id)) is None:
                continue
            at = self.folder.result(row.id).lstat().st_mtime_ns // 1_000_000
            if size != row.size:
                words[row.id] = f"the stored result of {row.id} ({row.name}) was changed"
            elif (job := self.store.job(row.job or "")) and at > job.updated_at + _COARSE:
                words[row.id] = f"the stored result of {row.id} ({row.name}) was written to later"
        return words

    def inspect(
        self, concepts: Iterable[Concept], progress: Callable[[float], None] = lambda share: None
    ) -> Inspection:
        """What these LoRAs are, and how they interact at their scales.

        Raises `TargetError` for one that the library doesn't have, `BadLora` for one that can't be
        used.
        """
        parts = self._parts(concepts)
        infos = tuple(
            replace(lora_info(lora_file(part.fingerprint)), id=part.id, file=part.files[0])
            for part, _ in parts
        )
        return Inspection("", "", infos, Overlaps(self.store).mix(parts, progress))

    def mix(
        self, concepts: Iterable[Concept], progress: Callable[[float], None] = lambda share: None
    ) -> Mix:
        """How these LoRAs interact at their scales, without what their files hold; raises as
        `inspect`."""
        return Overlaps(self.store).mix(self._parts(concepts), progress)

    def metadata(self, ids: Collection[str]) -> dict[str, Mapping[str, str]]:
        """What the files of these LoRAs say of themselves, of those that can be read."""
        found: dict[str, Mapping[str, str]] = {}
        loras = self._catalog().loras
        for id in loras.keys() & {*ids}:
            with suppress(LoraFormatError):
                found[id] = read_metadata(loras[id].fingerprint.path)
        return found

    def changes_text_encoder(self, id: str) -> bool:
        """Whether this LoRA changes a text encoder besides the model.

        Raises `TargetError` or `BadLora` as `inspect` does.
        """
        return lora_file(self.lora(id).fingerprint).changes_text_encoder

    def lora(self, id: str) -> Lora:
        """This LoRA of the library, with its file. Raises `TargetError` if there is none."""
        if (lora := self._catalog().loras.get(id)) is None:
            raise no_such_lora(id)
        return lora

    def advise(self, mixes: Mapping[str, Sequence[Concept]]) -> dict[str, Advice]:
        """Whether the LoRAs of each mix interfere, by its key; see `Overlaps.advise`."""
        return Overlaps(self.store).advise(mixes, self._catalog().loras)

    def unfit(self, contents: Mapping[str, Content]) -> dict[str, str]:
        """Why some of these can't be composed, by key; as far as their files' headers tell."""
        reasons = {}
        for key, content in contents.items():
            try:
                check_parameters(content.training)
                parts = self._parts(content.concepts)
                check_together([(lora_file(lora.fingerprint), scale) for lora, scale in parts])
            except (BadLora, TargetError) as error:
                reasons[key] = str(error)
        return reasons

    # --- what changes it -----------------------------------------------------------------

    def create(
        self,
        name: str,
        concepts: Iterable[Concept],
        *,
        type: str,
        described: Described = NOTHING_DESCRIBED,
        id: str | None = None,
    ) -> Model:
        """Create a composition; scales are kept to 4 decimals, which is how they are compared.

        The requested `id` is used if it is free, else one is derived from name and concepts.
        Raises `TargetError` for concepts that can't be composed.
        """
        self._writable()
        check_texts(name, described)
        content = in_order(concepts)
        loras = self._library.having([concept.model_id for concept in content])
        check_concepts(type, content, {lora.id: lora.type for lora in loras.values()})
        requested = [id] if id is not None and is_usable_id(id) else []
        ids = chain(requested, composition_ids(name, content))
        new = NewComposition(name, type, content, described)
        created = self.store.create(ids, new, project=self._project, reuse=self._reuse_ids)
        return self._model(self._composition(created))

    def update(
        self, id: str, *, name: str | None = None, described: Described = NOTHING_DESCRIBED
    ) -> None:
        """Change a composition's name and described fields; its id and its result stay."""
        self._writable()
        check_texts(name, described)
        self._composition(id)
        self.store.update(id, name=name, described=described)

    def tag(self, id: str, *, add: Collection[str] = (), remove: Collection[str] = ()) -> None:
        """Add and remove a composition's tags."""
        self.retag(id, add=add, remove=remove)

    def retag(
        self, id: str, *, add: Collection[str], remove: Collection[str]
    ) -> tuple[frozenset[str], frozenset[str]]:
        """The same; returns the tags before and after."""
        self._writable()
        self._composition(id)
        return self.store.tag(id, add=add, remove=remove)

    def train(self, id: str, parameters: Parameters = ()) -> Model:
        """Queue a composition's job. One that is training already is returned as it is.

        Raises `TargetError` for one that is trained (its content can't change, so there is
        nothing to do) and for an invalid `rank` or `precision`. Other parameters are part of a
        composition's content, and have no effect.
        """
        self.start(id, parameters)
        return self._model(self._composition(id))

    def start(self, id: str, parameters: Parameters = (), *, dry_run: bool = False) -> bool:
        """The same; returns whether this call queued it, or with `dry_run` would have."""
        worker = self._writable()
        check_parameters(parameters)
        record = self._current(self._composition(id))
        if record.status == TRAINED:
            raise TargetError(f"{id} ({record.name}) is trained already")
        if dry_run:
            return record.status != TRAINING
        queued = self.store.queue(id, job_id(id), parameters)
        worker.wake()
        return queued

    def price(self, id: str, parameters: Parameters = ()) -> float | None:
        """0: composing on this machine is free."""
        return 0.0

    def cancel(self, id: str) -> None:
        """Stop a training; one that is already canceled is not an error."""
        self._writable()
        record = self._composition(id)
        if not self.store.cancel(id) and record.status != "training-canceled":
            raise TargetError(f"{id} ({record.name}) is not training")

    def delete(self, id: str) -> None:
        """Delete a composition and its result permanently; its training stops."""
        self._writable()
        self._composition(id)
        self._remove(id)

    def prune(self, keep: Collection[str], *, dry_run: bool = False) -> list[str]:
        """Delete the project's compositions but those of `keep`, and results without a row.

        Returns their ids, sorted; with `dry_run` nothing is deleted.
        """
        if not dry_run:
            self._writable()
        results = self.folder.results()  # read before the rows: a row is older than its result
        projects = {record.id: record.project for record in self.store.records()}
        stray = [id for id in results if projects.get(id, self._project) == self._project]
        own = [id for id, project in projects.items() if project == self._project]
        ids = sorted({*stray, *own} - set(keep))
        if not dry_run:
            for id in ids:
                self._remove(id)
        return ids

    def close(self) -> None:
        """Stop the worker; a running job goes back to the queue, for the next start."""
        if self._worker:
            self._worker.stop()
        if self._executor:
            self._executor.close()
        self.store.close()

    # --- helpers -------------------------------------------------------------------------

    def _catalog(self) -> Catalog:
        return self._library.latest() if self._one_scan else self._library.scan()

    def _model(self, record: Record) -> Model:
        return composition_model(record, self.folder.result_size(record.id))

    def _current(self, record: Record) -> Record:
        """The row with its true status: its result may be missing, or the worker in trouble."""
        size = self.folder.result_size(record.id)
        status, error = status_of(record, size), damage(record, size) or record.error
        if status == TRAINING and (trouble := self._trouble()):
            return replace(record, status=FAILED, job_status="failure", error=trouble)
        return replace(record, status=status, error=error)

    def _current_job(self, job: JobRecord) -> JobRecord:
        trouble = self._trouble() if job.status in ("queued", "in-progress") else None
        return replace(job, status="failure", error=trouble) if trouble else job

    def _stored(
        self,
        listing: Listing,
        always: Mapping[str, set[str]],
        in_trouble: Mapping[str, set[str]],
    ) -> Listing:
        """The listing with all states of rows which may be shown as one that it asks for."""
        if listing.states is None:
            return listing
        may_be = {**always, **(in_trouble if self._trouble() else {})}
        more = (may_be.get(state, set()) for state in listing.states)
        return replace(listing, states=listing.states.union(*more))

    def _trouble(self) -> str | None:
        """Why the worker can't carry out any job, nor record that; None if it can."""
        return self._worker.trouble if self._worker else None

    def _composition(self, id: str) -> Record:
        record = self.store.record(id)
        if record is not None and record.project == self._project:
            return record
        if id in self._catalog().loras:
            raise TargetError(
                f"{id} is a LoRA of the library, not a composition",
                hint="change the file itself; compose never does",
            )
        raise NotFound(
            f"the local target has no model {id}", hint="`compose models` lists the models"
        )

    def _parts(self, concepts: Iterable[Concept]) -> list[tuple[Lora, float]]:
        loras = self._catalog().loras
        listed = list(concepts)
        for concept in listed:
            if concept.model_id not in loras:
                raise no_such_lora(concept.model_id)
        return [(loras[concept.model_id], concept.scale) for concept in listed]

    def _remove(self, id: str) -> None:
        try:
            self.store.delete(id, lambda: self.folder.result(id).unlink(missing_ok=True))
        except OSError as error:
            raise TargetError(
                f"the result of {id} can't be removed: {error.strerror or error}",
                hint="close the program that has the file open, then run it again",
            ) from error

    def _writable(self) -> Worker:
        """The worker, which a target opened for reading does not have."""
        if self._worker is None:
            raise TargetError("the local target is open for reading only")
        return self._worker
