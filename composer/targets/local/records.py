"""The rows of the store: read strictly as values, and what happens to them within a transaction.

The store makes them, the worker and the service read them. Moments are in milliseconds.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from composer.model import DESCRIBED, Concept, Described, Parameters, in_order, is_id, parameters
from composer.targets.local.times import now_ms


@dataclass(frozen=True, slots=True)
class Record(Described):
    """A composition as the store keeps it; `size` is its result's, in bytes, once trained."""

    id: str
    type: str
    name: str
    concepts: tuple[Concept, ...]
    parameters: Parameters | None
    status: str
    tags: frozenset[str]
    job: str | None
    size: int | None
    created_at: int
    updated_at: int
    progress: float  # of its job, 0..1
    started_at: int | None  # its job's current attempt
    error: str | None  # of its job
    job_status: str | None  # of its job
    project: str
    deleted_at: int | None


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A training job as the store keeps it."""

    id: str
    model: str
    type: str  # its composition's
    status: str
    progress: float
    error: str | None
    history: tuple[tuple[str, int], ...]  # (status, moment), oldest first
    created_at: int
    updated_at: int


def to_record(row: sqlite3.Row) -> Record:
    """A composition from its row, joined with its job's; `sqlite3.DataError` if it isn't one."""
    try:
        concepts = [Concept(_id(id), float(scale)) for id, scale in json.loads(row["concepts"])]
        sent = row["parameters"]
        return Record(
            id=_id(row["id"]),
            type=str(row["type"]),
            name=str(row["name"]),
            concepts=in_order(concepts),
            parameters=None if sent is None else parameters(json.loads(sent)),
            status=str(row["status"]),
            tags=frozenset(map(str, json.loads(row["tags"]))),
            job=None if row["job"] is None else _id(row["job"]),
            size=row["size"],
            created_at=int(row["created_at"]),
            updated_at=int(row["updated_at"]),
            progress=float(row["progress"] or 0.0),
            started_at=row["started_at"],
            error=row["error"],
            job_status=row["job_status"],
            project=str(row["project"]),
            deleted_at=row["deleted_at"],
            **{field.name: row[field.name] for field in DESCRIBED},
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise sqlite3.DataError(f"the row of model {row['id']!r}: {error}") from error


def to_job(row: sqlite3.Row) -> JobRecord:
    """A job from its row; `sqlite3.DataError` if it isn't one."""
    try:
        return JobRecord(
            id=_id(row["id"]),
            model=_id(row["model"]),
            type=str(row["type"]),
            status=str(row["status"]),
            progress=float(row["progress"]),
            error=row["error"],
            history=tuple((str(status), int(at)) for status, at in json.loads(row["history"])),
            created_at=int(row["created_at"]),
            updated_at=int(row["updated_at"]),
        )
    except (ValueError, TypeError) as error:
        raise sqlite3.DataError(f"the row of job {row['id']!r}: {error}") from error


@dataclass(frozen=True, slots=True)
class Download:
    """A request to fetch a result, which is a job on the wire."""

    id: str
    model: str
    created_at: int


def to_download(row: sqlite3.Row) -> Download:
    """A download from its row; `sqlite3.DataError` if it isn't one."""
    try:
        return Download(_id(row["id"]), _id(row["model"]), int(row["created_at"]))
    except (ValueError, TypeError) as error:
        raise sqlite3.DataError(f"the row of download {row['id']!r}: {error}") from error


def _id(text: object) -> str:
    if not isinstance(text, str) or not is_id(text):
        raise ValueError(f"{text!r} is no id")
    return text


def running(db: sqlite3.Connection, job: str) -> bool:
    """Whether this job is being carried out."""
    sql = "SELECT 1 FROM jobs WHERE id = ? AND status = 'in-progress'"
    return db.execute(sql, (job,)).fetchone() is not None


def advance(
    db: sqlite3.Connection,
    job: str,
    status: str,
    *,
    error: str | None = None,
    progress: float | None = None,
) -> None:
    """Bring a job to this status, and write that down in its history."""
    at = now_ms()
    (text,) = db.execute("SELECT history FROM jobs WHERE id = ?", (job,)).fetchone()
    history = json.dumps([*json.loads(text), [status, at]])
    db.execute(
        "UPDATE jobs SET status = ?, error = ?, progress = coalesce(?, progress),"
        " history = ?, updated_at = ? WHERE id = ?",
        (status, error, progress, history, at, job),
    )


def stop_job(db: sqlite3.Connection, model: str) -> bool:
    """Cancel what waits or runs for this composition; False if nothing does."""
    sql = "SELECT id FROM jobs WHERE model = ? AND status IN ('queued', 'in-progress')"
    rows = db.execute(sql, (model,)).fetchall()
    for row in rows:
        advance(db, row["id"], "canceled")
    return bool(rows)


def set_status(db: sqlite3.Connection, id: str, status: str, size: int | None = None) -> None:
    """Set a composition's status; `size` is its result's, in bytes, if it has one now."""
    db.execute(
        "UPDATE models SET status = ?, size = ?, updated_at = ? WHERE id = ?",
        (status, size, now_ms(), id),
    )
