"""What the local target is doing now: the jobs that are queued or in progress, of all projects."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from composer.targets.local.store import Store

# Trainings, unless their composition was deleted, or trains by another job by now; images.
_TRAININGS = """FROM jobs AS job JOIN models ON models.id = job.model AND models.job = job.id
    AND models.deleted_at IS NULL WHERE job.status IN ('queued', 'in-progress')"""
_IMAGES = "FROM generations AS job WHERE job.status IN ('queued', 'in-progress')"


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """A job that is queued or in progress: a composition's name, or what an image shows."""

    kind: str  # training or image
    name: str
    status: str
    progress: float  # 0..1


@dataclass(frozen=True, slots=True)
class Activity:
    """The first of the jobs, those in progress before others, and how many more there are."""

    jobs: tuple[ActiveJob, ...]
    more: int


def activity(store: Store, *, most: int) -> Activity:
    """What is going on now, at most so many jobs of each kind."""

    def select(what: str, some: str) -> str:
        order = "ORDER BY job.status = 'queued', job.created_at, job.id LIMIT ?"
        return f"SELECT {what} AS words, job.status, job.progress {some} {order}"

    with store.reading() as db:
        trainings = db.execute(select("models.name", _TRAININGS), (most,)).fetchall()
        images = db.execute(select("job.input", _IMAGES), (most,)).fetchall()
        counts = (f"SELECT count(*) {some}" for some in (_TRAININGS, _IMAGES))
        count = sum(db.execute(sql).fetchone()[0] for sql in counts)
    jobs = [
        *(ActiveJob("training", str(r["words"]), r["status"], r["progress"]) for r in trainings),
        *(ActiveJob("image", _prompt(r["words"]), r["status"], r["progress"]) for r in images),
    ]
    return Activity(tuple(jobs), count - len(jobs))


def _prompt(text: str) -> str:
    try:
        return str(json.loads(text)["prompt"])
    except (ValueError, TypeError, KeyError):
        return "image"
