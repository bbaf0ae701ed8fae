"""The jobs that make images, and those images, in the store of the local target.

`compose serve --base-model` adds jobs, carries them out and answers for them. As with trainings,
whatever kills a server, a job that it had begun is done again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from composer.model import is_id
from composer.targets.local.paging import rows_of
from composer.targets.local.records import advance, now_ms, running

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from composer.targets.local.paging import Listing
    from composer.targets.local.store import Store

SEEDS = 2**31  # how many different seeds there are
_WAITING = """SELECT id FROM generations WHERE status IN ('queued', 'in-progress')
    ORDER BY created_at, rowid LIMIT ?"""


@dataclass(frozen=True, slots=True)
class Generation:
    """A job that makes images; `input` is what it makes, `assets` the ids of what it made."""

    id: str
    project: str
    base_model: str
    status: str
    progress: float
    error: str | None
    history: tuple[tuple[str, int], ...]  # (status, moment), oldest first
    input: Mapping[str, Any]
    cost: float
    created_at: int
    updated_at: int
    assets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asset:
    """An image, number `number` of those that its job made; `size` is that of its file in bytes."""

    id: str
    number: int
    width: int
    height: int
    size: int
    created_at: int
    generation: Generation


@dataclass(frozen=True, slots=True)
class ImageSize:
    """An image's size in pixels, and of its file in bytes."""

    width: int
    height: int
    size: int


def asset_id(job: str, number: int) -> str:
    """The id of a job's image. A job that is done again makes the same files again."""
    digest = hashlib.sha256(f"{job} {number}".encode()).digest()
    return "asset_" + base64.urlsafe_b64encode(digest[:16]).decode().rstrip("=")


def image_seed(input: Mapping[str, Any], number: int) -> int:
    """The seed of a job's image: the first has the given one, the others those that follow."""
    return (int(input["seed"]) + number) % SEEDS


class Generations:
    """The tables of one store. Every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(
        self, id: str, project: str, base_model: str, *, input: Mapping[str, Any], cost: float
    ) -> None:
        """Queue a job."""
        at = now_ms()
        with self._store.writing() as db:
            db.execute(
                "INSERT INTO generations VALUES (?, ?, ?, '', 0, NULL, '[]', ?, ?, ?, ?)",
                (id, project, base_model, json.dumps(dict(input)), cost, at, at),
            )
            advance(db, id, "queued", table="generations")

    def get(self, id: str, project: str) -> Generation | None:
        """A job of the project; None if it does not exist."""
        with self._store.reading() as db:
            sql = "SELECT * FROM generations WHERE id = ? AND project = ?"
            row = db.execute(sql, (id, project)).fetchone()
            return None if row is None else _generation(db, row)

    def page(self, project: str, listing: Listing) -> list[Generation]:
        """The next jobs of a project."""
        with self._store.reading() as db:
            ids = rows_of(db, "generations", project, listing)
            return [_generation(db, _row(db, id)) for id in ids]

    def assets(self, ids: Iterable[str], project: str) -> list[Asset]:
        """The images of these ids, in this order; unknown ones and other projects' are left out."""
        with self._store.reading() as db:
            found = (_asset(db, id) for id in ids)
            return [asset for asset in found if asset and asset.generation.project == project]

    def has_asset(self, id: str) -> bool:
        """Whether there is such an image, of whatever project."""
        with self._store.reading() as db:
            sql = "SELECT 1 FROM assets WHERE id = ?"
            return db.execute(sql, (id,)).fetchone() is not None

    # --- what the worker does with them --------------------------------------------------

    def waiting(self) -> bool:
        """Whether a job is queued or in progress."""
        with self._store.reading() as db:
            return db.execute(_WAITING, (1,)).fetchone() is not None

    def claim(self, most: int = 1) -> list[Generation]:
        """Start the oldest jobs that wait, also those that another worker had begun.

        Only the holder of the worker's lock may call it.
        """
        with self._store.writing() as db:
            ids = [str(row["id"]) for row in db.execute(_WAITING, (most,)).fetchall()]
            for id in ids:
                advance(db, id, "in-progress", progress=0.0, table="generations")
            return [_generation(db, _row(db, id)) for id in ids]

    def report(self, id: str, progress: float) -> None:
        """Record a running job's progress."""
        with self._store.writing() as db:
            sql = "UPDATE generations SET progress = ?, updated_at = ?"
            sql += " WHERE id = ? AND status = 'in-progress'"
            db.execute(sql, (progress, now_ms(), id))

    def put_back(self, id: str) -> None:
        """Return a running job to the queue."""
        self._end(id, "queued")

    def fail(self, id: str, error: str) -> None:
        """End a running job as failed."""
        self._end(id, "failure", error)

    def _end(self, id: str, status: str, error: str | None = None) -> None:
        with self._store.writing() as db:
            if running(db, id, "generations"):
                advance(db, id, status, error=error, table="generations")

    def succeed(self, id: str, sizes: Sequence[ImageSize]) -> bool:
        """End a running job as done, with these images, whose files are in place; False if it was
        canceled."""
        with self._store.writing() as db:
            if not running(db, id, "generations"):
                return False
            for number, one in enumerate(sizes):
                row = asset_id(id, number), id, number, one.width, one.height, one.size, now_ms()
                db.execute("INSERT INTO assets VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            advance(db, id, "success", progress=1.0, table="generations")
            return True

    def cancel(self, id: str) -> bool:
        """Stop a job that waits or runs; False if it has ended."""
        with self._store.writing() as db:
            sql = "SELECT 1 FROM generations WHERE id = ? AND status IN ('queued', 'in-progress')"
            if db.execute(sql, (id,)).fetchone() is None:
                return False
            advance(db, id, "canceled", table="generations")
            return True


def _row(db: sqlite3.Connection, id: str) -> sqlite3.Row:
    row: sqlite3.Row = db.execute("SELECT * FROM generations WHERE id = ?", (id,)).fetchone()
    return row


def _generation(db: sqlite3.Connection, row: sqlite3.Row) -> Generation:
    """A job from its row; `sqlite3.DataError` if it isn't one."""
    assets = db.execute("SELECT id FROM assets WHERE job = ? ORDER BY number", (row["id"],))
    try:
        return Generation(
            id=str(row["id"]),
            project=str(row["project"]),
            base_model=str(row["type"]),
            status=str(row["status"]),
            progress=float(row["progress"]),
            error=row["error"],
            history=tuple((str(status), int(at)) for status, at in json.loads(row["history"])),
            input=dict(json.loads(row["input"])),
            cost=float(row["cost"]),
            created_at=int(row["created_at"]),
            updated_at=int(row["updated_at"]),
            assets=tuple(str(asset["id"]) for asset in assets),
        )
    except (ValueError, TypeError) as error:
        raise sqlite3.DataError(f"the row of job {row['id']!r}: {error}") from error


def _asset(db: sqlite3.Connection, id: str) -> Asset | None:
    row = db.execute("SELECT * FROM assets WHERE id = ?", (id,)).fetchone()
    if row is None or not is_id(id):
        return None
    number, width, height, size, at = (
        int(row[name]) for name in ("number", "width", "height", "size", "created_at")
    )
    return Asset(id, number, width, height, size, at, _generation(db, _row(db, row["job"])))
