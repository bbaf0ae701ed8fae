"""The database of the local target: compositions, their jobs, and notes on LoRA files.

The service reads and writes it, the worker takes its jobs from it. Every method is one transaction,
safe between threads and processes. Times are in milliseconds.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from composer.errors import TargetError, Unreachable
from composer.model import is_id
from composer.targets.local.database import (
    Wait,
    open_for_reading,
    open_for_writing,
    translated_errors,
)
from composer.targets.local.paging import Listing, rows_of
from composer.targets.local.records import (
    Download,
    JobRecord,
    NewComposition,
    Record,
    advance,
    insert_model,
    now_ms,
    running,
    set_status,
    stop_job,
    to_download,
    to_job,
    to_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from composer.model import Described, Parameters

ALL = """SELECT models.*, jobs.progress, jobs.started_at, jobs.error, jobs.status AS job_status
    FROM models LEFT JOIN jobs ON jobs.id = models.job"""
ALIVE = f"{ALL} WHERE models.deleted_at IS NULL"
WAITING = """SELECT jobs.id, jobs.model FROM jobs JOIN models
    ON models.id = jobs.model AND models.job = jobs.id AND models.deleted_at IS NULL
    WHERE jobs.status IN ('queued', 'in-progress')
    AND jobs.id NOT IN (SELECT value FROM json_each(?))
    ORDER BY jobs.queued_at, models.created_at LIMIT 1"""

_NOTE = 1.0  # seconds to wait before a note is left out


class Store:
    """The tables of one `engine.sqlite3`. Close it when done."""

    def __init__(self, path: Path, *, write: bool, notes: bool = True) -> None:
        """Open the store; without `write` nothing but notes is ever written, and with neither
        nothing at all.
        """
        self._path = path
        self._notes = notes
        self._lock = threading.RLock()
        self._waits = {"read": Wait(path), "write": Wait(path), "note": Wait(path, _NOTE)}
        with translated_errors(path):
            opening = open_for_writing if write else open_for_reading
            self._connection = self._waits["read"].until_free(lambda: opening(path))

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One transaction that reads; inside another one, a part of it."""
        with self._transaction("BEGIN", "read") as db:
            yield db

    @contextmanager
    def writing(self, kind: str = "write") -> Iterator[sqlite3.Connection]:
        """One transaction that writes; inside another one, a part of it."""
        with self._transaction("BEGIN IMMEDIATE", kind) as db:
            yield db

    @contextmanager
    def _transaction(self, begin: str, kind: str) -> Iterator[sqlite3.Connection]:
        """One transaction; within another one, a part of it. Waits for other processes."""
        with self._lock, translated_errors(self._path):
            db, wait = self._connection, self._waits[kind]
            if db.in_transaction:
                yield db
                return
            wait.until_free(lambda: self._begin(begin))
            try:
                yield db
                wait.until_free(lambda: db.execute("COMMIT"))
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def _begin(self, begin: str) -> None:
        """Begin, and take the lock that reading needs, which BEGIN alone does not."""
        self._connection.execute(begin)
        try:
            self._connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise

    def problems(self) -> list[str]:
        """What SQLite finds wrong with the file; empty if it is OK."""
        with self.reading() as db:
            rows = [str(row[0]) for row in db.execute("PRAGMA integrity_check")]
        return [] if rows == ["ok"] else rows

    # --- compositions --------------------------------------------------------------------

    def records(self, *, deleted: bool = False) -> list[Record]:
        """The compositions of all projects, newest first; deleted ones only on request."""
        with self.reading() as db:
            rows = db.execute(f"{ALL if deleted else ALIVE} ORDER BY models.created_at DESC")
            return [to_record(row) for row in rows if is_id(row["id"])]

    def page(self, project: str, listing: Listing) -> list[Record]:
        """The next compositions of a project in a listing's order."""
        with self.reading() as db:
            ids = rows_of(db, "models", project, listing)
            rows = (db.execute(f"{ALL} WHERE models.id = ?", (id,)).fetchone() for id in ids)
            return [to_record(row) for row in rows]

    def record(self, id: str) -> Record | None:
        """A composition; None if it does not exist or is deleted."""
        with self.reading() as db:
            row = db.execute(f"{ALIVE} AND models.id = ?", (id,)).fetchone()
            return to_record(row) if row is not None and is_id(id) else None

    def create(
        self,
        ids: Iterable[str],
        new: NewComposition,
        *,
        project: str = "",
        reuse: bool = True,
    ) -> str:
        """Add an untrained composition under the first of these ids that is free; returns that id.

        With `reuse` a deleted composition's id is free, and its job is deleted. Ids that differ
        only in case count as one: on some systems their results would be one file.
        """
        columns: dict[str, object] = {
            "name": new.name,
            "type": new.type,
            **new.described.texts,
            "concepts": json.dumps([[part.model_id, part.scale] for part in new.concepts]),
            "status": "new",
            "tags": "[]",
            "project": project,
        }
        with self.writing() as db:
            taken = "SELECT 1 FROM models WHERE id = ? COLLATE NOCASE"
            taken += " AND deleted_at IS NULL" if reuse else ""
            id = next(id for id in ids if db.execute(taken, (id,)).fetchone() is None)
            db.execute("DELETE FROM jobs WHERE model = ?", (id,))
            insert_model(db, id, columns)
        return id

    def update(self, id: str, *, name: str | None, described: Described) -> None:
        """Change the name and the described fields; None leaves a text as it is."""
        changed = {**({} if name is None else {"name": name}), **described.texts}
        changed_columns = "".join(f"{column} = ?, " for column in changed)
        with self.writing() as db:
            db.execute(
                f"UPDATE models SET {changed_columns}updated_at = ?"
                " WHERE id = ? AND deleted_at IS NULL",
                (*changed.values(), now_ms(), id),
            )

    def tag(
        self, id: str, *, add: Collection[str], remove: Collection[str]
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Add and remove tags; returns the tags before and after."""
        with self.writing() as db:
            alive = "id = ? AND deleted_at IS NULL"
            row = db.execute(f"SELECT tags FROM models WHERE {alive}", (id,)).fetchone()
            if row is None:
                return frozenset(), frozenset()
            before = frozenset(json.loads(row["tags"]))
            after = (before | set(add)) - set(remove)
            db.execute(
                f"UPDATE models SET tags = ?, updated_at = ? WHERE {alive}",
                (json.dumps(sorted(after)), now_ms(), id),
            )
            return before, after

    def delete(self, id: str, unlink: Callable[[], None]) -> None:
        """Mark it deleted and cancel its job, once `unlink` has removed its result."""
        with self.writing() as db:
            unlink()
            at = now_ms()
            db.execute(
                "UPDATE models SET deleted_at = ?, updated_at = ? WHERE id = ?"
                " AND deleted_at IS NULL",
                (at, at, id),
            )
            stop_job(db, id)

    # --- jobs ----------------------------------------------------------------------------

    def job(self, id: str, project: str | None = None) -> JobRecord | None:
        """A job, also of a deleted composition; None if it does not exist, or not in the project.

        Without a `project`, any project's.
        """
        with self.reading() as db:
            sql = "SELECT * FROM jobs WHERE id = ? AND project = coalesce(?, project)"
            row = db.execute(sql, (id, project)).fetchone()
            return None if row is None else to_job(row)

    def jobs_page(self, project: str, listing: Listing) -> list[JobRecord]:
        """The next training jobs of a project, also of deleted compositions."""
        with self.reading() as db:
            ids = rows_of(db, "jobs", project, listing)
            rows = (db.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone() for id in ids)
            return [to_job(row) for row in rows]

    def queue(self, id: str, job: str, parameters: Parameters) -> bool:
        """Queue the composition's job, also if it ran before; False if it is training already."""
        with self.writing() as db:
            at = now_ms()
            changed = db.execute(
                "UPDATE models SET status = 'training', parameters = ?, job = ?, size = NULL,"
                " updated_at = ? WHERE id = ? AND deleted_at IS NULL AND status != 'training'",
                (json.dumps(dict(parameters)), job, at, id),
            ).rowcount
            if changed:
                db.execute(
                    "INSERT OR IGNORE INTO jobs (id, model, project, type, status, progress,"
                    " history, created_at, updated_at, queued_at)"
                    " SELECT ?, id, project, type, '', 0, '[]', ?, ?, ? FROM models WHERE id = ?",
                    (job, at, at, at, id),
                )
                db.execute("UPDATE jobs SET queued_at = ? WHERE id = ?", (at, job))
                advance(db, job, "queued", progress=0.0)
            return changed > 0

    def waiting(self, but: Iterable[str] = ()) -> bool:
        """Whether a job is queued or in progress, `but` these."""
        with self.reading() as db:
            return db.execute(WAITING, (json.dumps([*but]),)).fetchone() is not None

    def claim(self, but: Iterable[str] = ()) -> Record | None:
        """Start the oldest waiting job, `but` these: its composition, or None without one.

        Only the holder of the worker's lock may call it: it takes over jobs that others started.
        """
        with self.writing() as db:
            row = db.execute(WAITING, (json.dumps([*but]),)).fetchone()
            if row is None:
                return None
            db.execute("UPDATE jobs SET started_at = ? WHERE id = ?", (now_ms(), row["id"]))
            advance(db, row["id"], "in-progress", progress=0.0)
            return self.record(row["model"])

    def report(self, job: str, progress: float) -> bool:
        """Record a running job's progress; False if it must stop (canceled, deleted)."""
        with self.writing() as db:
            changed = db.execute(
                "UPDATE jobs SET progress = ?, updated_at = ?"
                " WHERE id = ? AND status = 'in-progress'",
                (min(max(progress, 0.0), 1.0), now_ms(), job),
            ).rowcount
            return changed > 0

    def put_back(self, job: str) -> None:
        """Return a running job to its place in the queue."""
        with self.writing() as db:
            if running(db, job):
                advance(db, job, "queued", progress=0.0)

    def fail(self, id: str, job: str, error: str) -> None:
        """End a running job, and its composition, as failed."""
        with self.writing() as db:
            if running(db, job):
                advance(db, job, "failure", error=error)
                set_status(db, id, "failed")

    def succeed(self, id: str, job: str, size: int, publish: Callable[[], None]) -> bool:
        """End a running job as done, once `publish` has put the result in place; False if it was
        canceled.

        No other process can change a row meanwhile, so a canceled job never publishes a result.
        After a kill in between, the job still counts as running and is done again.
        """
        with self.writing() as db:
            if not running(db, job):
                return False
            publish()
            advance(db, job, "success", progress=1.0)
            set_status(db, id, "trained", size)
            return True

    def cancel(self, id: str) -> bool:
        """Stop the training of a composition; False if it is not training."""
        with self.writing() as db:
            if not stop_job(db, id):
                return False
            set_status(db, id, "training-canceled")
            return True

    # --- downloads -----------------------------------------------------------------------

    def add_download(self, id: str, model: str, project: str) -> None:
        """Record a request to download a result."""
        with self.writing() as db:
            sql = "INSERT INTO downloads VALUES (?, ?, ?, ?)"
            db.execute(sql, (id, model, project, now_ms()))

    def download(self, id: str, project: str) -> Download | None:
        """A download of a project; None if it does not exist."""
        with self.reading() as db:
            sql = "SELECT * FROM downloads WHERE id = ? AND project = ?"
            row = db.execute(sql, (id, project)).fetchone()
            return None if row is None else to_download(row)

    def downloads_page(self, project: str, listing: Listing) -> list[Download]:
        """The next downloads of a project."""
        with self.reading() as db:
            ids = rows_of(db, "downloads", project, listing)
            sql = "SELECT * FROM downloads WHERE id = ?"
            return [to_download(db.execute(sql, (id,)).fetchone()) for id in ids]

    # --- notes on LoRA files -------------------------------------------------------------

    def get_note(self, path: str, signature: str) -> tuple[str, str, str | None] | None:
        """The hashes, the type and the title noted for a file that still has this signature."""
        with self.reading() as db:
            sql = "SELECT sha256, type, title FROM notes WHERE path = ? AND stamp = ?"
            row = db.execute(sql, (path, signature)).fetchone()
        if row is None:
            return None
        return str(row["sha256"]), str(row["type"]), row["title"] and str(row["title"])

    def put_note(
        self, path: str, signature: str, sha256: str, type: str, title: str | None
    ) -> None:
        """Note what a file holds; if that can't be written now, it is read again next time."""
        sql = "INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?, ?)"
        self._note(sql, (path, signature, sha256, title, type))

    # --- overlaps of LoRAs --------------------------------------------------------------

    def get_overlap(self, pair: str, version: str) -> str | None:
        """What this version of compose noted for a pair of LoRAs, as JSON."""
        with self.reading() as db:
            sql = "SELECT numbers FROM overlaps WHERE pair = ? AND version = ?"
            row = db.execute(sql, (pair, version)).fetchone()
        return None if row is None else str(row["numbers"])

    def put_overlap(self, pair: str, version: str, numbers: str) -> None:
        """Note it; if that can't be written now, it is computed again next time."""
        self._note("INSERT OR REPLACE INTO overlaps VALUES (?, ?, ?)", (pair, version, numbers))

    def _note(self, sql: str, values: tuple[str | None, ...]) -> None:
        """Write what can be found out again, unless the database can't be written now."""
        if not self._notes:
            return
        try:
            with self.writing("note") as db:
                db.execute(sql, values)
        except (Unreachable, TargetError) as error:
            if not isinstance(error.__cause__, sqlite3.OperationalError):
                raise
