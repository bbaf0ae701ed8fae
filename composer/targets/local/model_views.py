"""What the engine knows, as a target answers it: rows and LoRAs become models and jobs.

Used by the service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from composer.model import TRAINED, Job, Model
from composer.targets.local.times import iso, now_ms

if TYPE_CHECKING:
    from composer.targets.local.library import Lora
    from composer.targets.local.records import JobRecord, Record

TRAINING, FAILED, NEW = "training", "failed", "new"


def lora_model(lora: Lora) -> Model:
    """A LoRA of the library."""
    return Model(
        id=lora.id,
        type=lora.type,
        name=lora.name,
        status=TRAINED,
        created_at=lora.created_at,
        tags=frozenset(),
        aliases=lora.aliases,
    )


def composition_model(record: Record, result_size: int | None) -> Model:
    """A composition; `result_size` is what its result's file has, None if there is none."""
    status = status_of(record, result_size)
    training = status == TRAINING
    described: dict[str, Any] = record.texts
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
        error=record.error if status == FAILED else None,
        **described,
    )


def status_of(record: Record, result_size: int | None) -> str:
    """Its status. One whose result is gone or was cut is `new`: it needs training again."""
    if record.status == TRAINED and result_size != record.size:
        return NEW
    return record.status


def job_answer(record: JobRecord) -> Job:
    """A training job."""
    return Job(record.id, record.status, record.progress, record.error)


def _remaining(record: Record) -> float | None:
    """Seconds that training still takes, if it goes on as it went so far."""
    if not record.started_at or not record.progress:
        return None
    elapsed = max(now_ms() - record.started_at, 0) / 1000
    return elapsed * (1 - record.progress) / record.progress
