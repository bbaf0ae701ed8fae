"""The local target's compositions, jobs and downloads: checked, as rows, and as models.

The service checks what it is given before it writes. The store keeps rows, which are read strictly
as values, and the service answers them as models. Times are in milliseconds since 1970, UTC.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from composer.errors import TargetError
from composer.lora import families
from composer.lora.merging import OutputOptions
from composer.model import (
    DESCRIBED,
    TRAINED,
    Concept,
    Described,
    Job,
    Model,
    Parameters,
    in_order,
    is_id,
    parameters,
)
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Mapping

# --- times -------------------------------------------------------------------------------


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_ms() -> int:
    """Now, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def iso(ms: int) -> str:
    """ISO 8601 in UTC with milliseconds and `Z`: such texts sort by time."""
    try:
        moment = EPOCH + timedelta(milliseconds=ms)
    except OverflowError:  # a file's time can be anything, even the year 30000
        moment = EPOCH
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- rows as values ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Record(Described):
    """A composition in the store; `size` is that of its result in bytes, once trained."""

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
    started_at: int | None  # the current attempt of its job
    error: str | None  # of its job
    job_status: str | None  # of its job
    project: str
    deleted_at: int | None


@dataclass(frozen=True, slots=True)
class NewComposition:
    """A composition to create; `concepts` are in content order."""

    name: str
    type: str
    concepts: tuple[Concept, ...]
    described: Described


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A training job in the store."""

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
    """A request to download a result, which the API shows as a job."""

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
        raise ValueError(f"{text!r} is not an id")
    return text


def insert_model(db: sqlite3.Connection, id: str, columns: Mapping[str, object]) -> None:
    """Add a composition, created now and after all others, even if the clock was set back."""
    last = db.execute("SELECT max(created_at) FROM models").fetchone()[0]
    at = max(now_ms(), (last or 0) + 1)
    columns = {"id": id, **columns, "created_at": at, "updated_at": at}
    places = ", ".join("?" * len(columns))
    db.execute(
        f"INSERT OR REPLACE INTO models ({', '.join(columns)}) VALUES ({places})",
        tuple(columns.values()),
    )


def running(db: sqlite3.Connection, job: str, table: str = "jobs") -> bool:
    """Whether this job is in progress."""
    sql = f"SELECT 1 FROM {table} WHERE id = ? AND status = 'in-progress'"
    return db.execute(sql, (job,)).fetchone() is not None


def advance(
    db: sqlite3.Connection,
    job: str,
    status: str,
    *,
    error: str | None = None,
    progress: float | None = None,
    table: str = "jobs",
) -> None:
    """Set a job's status, and add it to the job's history."""
    at = now_ms()
    (text,) = db.execute(f"SELECT history FROM {table} WHERE id = ?", (job,)).fetchone()
    history = json.dumps([*json.loads(text), [status, at]])
    db.execute(
        f"UPDATE {table} SET status = ?, error = ?, progress = coalesce(?, progress),"
        " history = ?, updated_at = ? WHERE id = ?",
        (status, error, progress, history, at, job),
    )


def stop_job(db: sqlite3.Connection, model: str) -> bool:
    """Cancel a composition's queued or running job; False if there is none."""
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


# --- rows as models ----------------------------------------------------------------------


TRAINING, FAILED, NEW = "training", "failed", "new"


def composition_model(record: Record, result_size: int | None) -> Model:
    """A composition as a model; `result_size` is that of its result's file, None without one."""
    status = status_of(record, result_size)
    training = status == TRAINING
    described: dict[str, Any] = described_texts(record)
    return Model(
        id=record.id,
        type=record.type,
        name=record.name,
        status=status,
        created_at=iso(record.created_at),
        concepts=record.concepts,
        parameters=record.parameters,
        tags=record.tags,
        job=record.job,
        progress=record.progress if training else None,
        remaining=_remaining(record) if training else None,
        error=record.error if status in (FAILED, NEW) else None,
        **described,
    )


def described_texts(record: Record) -> dict[str, str]:
    """Every text that describes a composition, by the field's name; empty where it has none.

    An absent one would mean that the target doesn't say, and then it is never changed.
    """
    return {field.name: record.texts.get(field.name, "") for field in DESCRIBED}


def status_of(record: Record, result_size: int | None) -> str:
    """Its true status: `new` if its result is missing or cut off, and must be composed again."""
    if record.status == TRAINED and result_size != record.size:
        return NEW
    return record.status


def damage(record: Record, result_size: int | None) -> str | None:
    """Why a trained composition must be composed again; None for any other."""
    if record.status != TRAINED or result_size == record.size:
        return None
    return f"its stored result {'is missing' if result_size is None else 'was changed'}"


def job_answer(record: JobRecord) -> Job:
    """A training job."""
    return Job(record.id, record.status, record.progress, record.error)


def _remaining(record: Record) -> float | None:
    """Seconds that training still takes at its speed so far."""
    if not record.started_at or not record.progress:
        return None
    elapsed = max(now_ms() - record.started_at, 0) / 1000
    return elapsed * (1 - record.progress) / record.progress


# --- what is accepted --------------------------------------------------------------------


# The limits of the Scenario API.
NAME_LIMIT, CONCEPTS_LIMIT, SCALE_LIMIT = 64, 5, 2.0
UNSUPPORTED = MappingProxyType(
    {"modelEpoch": "a file has no epochs; put the file of that epoch into the library"}
)
DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)\d", re.IGNORECASE)  # reserved by Windows


def check_texts(name: str | None, described: Described) -> None:
    """Refuse a text that is too long, or a name that is empty."""
    if name is not None and not 1 <= len(name) <= NAME_LIMIT:
        raise TargetError(f"a name must have 1 to {NAME_LIMIT} characters, not {len(name)}")
    texts = described.texts
    for field in DESCRIBED:
        length = len(texts.get(field.name, ""))
        if length > field.longest:
            raise TargetError(
                f"a {field.name} has at most {field.longest} characters, not {length}"
            )


def check_concepts(type: str, concepts: tuple[Concept, ...], lora_types: Mapping[str, str]) -> None:
    """Refuse concepts that can't be composed to this type; `lora_types`: the library's, by id."""
    family = families.of_type(type)
    if family is None:
        raise TargetError(
            f"unknown model type {shorten(visible(type), 64)}",
            hint=f"the types of compositions are {', '.join(sorted(families.composition_types()))}",
        )
    if not 1 <= len(concepts) <= CONCEPTS_LIMIT:
        raise TargetError(f"a composition has 1 to {CONCEPTS_LIMIT} concepts, not {len(concepts)}")
    for concept in concepts:
        _check_concept(concept)
        if concept.model_id not in lora_types:
            raise no_such_lora(concept.model_id)
        lora_type = lora_types[concept.model_id]
        if lora_type != family.types.lora:
            raise TargetError(
                f"{concept.model_id} is a {lora_type}; only a {family.types.lora} can be composed"
                f" to a {type}"
            )
    if len({concept.model_id for concept in concepts}) < len(concepts):
        raise TargetError("a composition cannot have the same LoRA twice")


def no_such_lora(id: str) -> TargetError:
    """The error for a LoRA that the library does not have."""
    return TargetError(
        f"the library has no LoRA {id}",
        hint="`compose models` lists its LoRAs; `--library` chooses another folder",
    )


def _check_concept(concept: Concept) -> None:
    if not -SCALE_LIMIT <= concept.scale <= SCALE_LIMIT:  # NaN fails it too
        raise TargetError(f"the scale of {concept.model_id} is {concept.scale}, not within -2..2")
    if concept.epoch is not None:
        raise TargetError(
            f"{concept.model_id} is a file, which has no epoch {concept.epoch}",
            hint="remove modelEpoch from the recipe; put the file of that epoch into the library",
        )


def check_parameters(parameters: Parameters) -> None:
    """Refuse training parameters that the local target would have to apply and can't."""
    OutputOptions.of(parameters)
    for name, _ in parameters:
        if name in UNSUPPORTED:
            raise TargetError(
                f"the training parameter {name} is not supported: {UNSUPPORTED[name]}",
                hint=f"remove {name} from the recipe's training",
            )


def is_usable_id(id: str) -> bool:
    """Whether a requested id can be used: it becomes a file's name."""
    return is_id(id) and not DEVICES.fullmatch(id)
