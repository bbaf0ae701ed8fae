"""The SQLite file of the store: how it is opened, its tables, and its errors as ours.

Only the store uses it. A file is opened for writing (created and migrated if needed) or for reading
(never created; instead of a missing or empty one, an empty one in memory is opened).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from composer.errors import ComposeError, TargetError, Unreachable
from composer.lora import families
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

log = logging.getLogger("composer.targets.local")

BUSY = 30.0  # seconds to wait for another process's write
_WARN_AFTER = 1.0  # seconds of waiting after which a warning is logged
TABLES = (
    """CREATE TABLE models (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        description TEXT,
        concepts TEXT NOT NULL,       -- JSON [[modelId, scale], ...] in content order
        parameters TEXT,              -- JSON object, as sent to train; NULL before that
        status TEXT NOT NULL,         -- new, training, trained, failed, training-canceled
        tags TEXT NOT NULL,           -- JSON list
        job TEXT,
        size INTEGER,                 -- bytes of the result, once trained
        created_at INTEGER NOT NULL UNIQUE,  -- milliseconds since 1970; never twice the same
        updated_at INTEGER NOT NULL,
        deleted_at INTEGER
    )""",
    """CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        model TEXT NOT NULL,
        status TEXT NOT NULL,         -- queued, in-progress, success, failure, canceled
        progress REAL NOT NULL,       -- 0..1
        error TEXT,
        history TEXT NOT NULL,        -- JSON [[status, milliseconds], ...]
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        queued_at INTEGER NOT NULL,
        started_at INTEGER
    )""",
    """CREATE TABLE notes (           -- what LoRA files hold, so that they are read once
        path TEXT PRIMARY KEY,
        stamp TEXT NOT NULL,          -- size, times and inode of the file, and who read it
        sha256 TEXT NOT NULL,
        title TEXT
    )""",
)
PROJECTS = (  # what the server keeps apart; in process there is one project, the empty name
    "ALTER TABLE models ADD COLUMN project TEXT NOT NULL DEFAULT ''",
    """CREATE TABLE downloads (
        id TEXT PRIMARY KEY,          -- of the job that answers where the result is
        model TEXT NOT NULL,
        project TEXT NOT NULL,
        created_at INTEGER NOT NULL
    )""",
)
OVERLAPS = (
    """CREATE TABLE overlaps (        -- how much two LoRAs overlap, computed once
        pair TEXT PRIMARY KEY,        -- their ids, in order
        version TEXT NOT NULL,        -- of compose, which computed it
        numbers TEXT NOT NULL         -- JSON object: block -> inner product at scale 1
    )""",
)
TYPES = (  # before there was a second model family, every composition was one of the default's
    "ALTER TABLE models ADD COLUMN type TEXT NOT NULL"
    f" DEFAULT '{families.default().types.composition}'",
    "ALTER TABLE notes ADD COLUMN type TEXT NOT NULL DEFAULT ''",
)
LISTINGS = (  # what listings, the queue and creations look for, they find by an index
    "ALTER TABLE models ADD COLUMN state TEXT GENERATED ALWAYS AS"
    " (CASE WHEN deleted_at IS NULL THEN status ELSE 'deleted' END) VIRTUAL",
    "ALTER TABLE jobs ADD COLUMN project TEXT NOT NULL DEFAULT ''",  # both are its composition's
    "ALTER TABLE jobs ADD COLUMN type TEXT NOT NULL DEFAULT ''",
    "UPDATE jobs SET (project, type) = (SELECT project, type FROM models WHERE id = jobs.model)"
    " WHERE model IN (SELECT id FROM models)",
    "CREATE INDEX models_by_id ON models (id COLLATE NOCASE)",
    "CREATE INDEX models_by_state ON models (project, type, state, created_at, id)",
    "CREATE INDEX jobs_by_model ON jobs (model)",
    "CREATE INDEX jobs_by_state ON jobs (project, type, status, created_at, id)",
    "CREATE INDEX jobs_by_update ON jobs (project, type, status, updated_at, created_at, id)",
    "CREATE INDEX jobs_waiting ON jobs (queued_at) WHERE status IN ('queued', 'in-progress')",
    "CREATE INDEX downloads_by_time ON downloads (project, created_at, id)",
)
IMAGES = (  # what `compose serve --base-model` makes
    """CREATE TABLE generations (     -- jobs that make images
        id TEXT PRIMARY KEY,
        project TEXT NOT NULL,
        type TEXT NOT NULL,           -- the base model's id
        status TEXT NOT NULL,         -- queued, in-progress, success, failure, canceled
        progress REAL NOT NULL,       -- 0..1
        error TEXT,
        history TEXT NOT NULL,        -- JSON [[status, milliseconds], ...]
        input TEXT NOT NULL,          -- JSON object: the API's inputs, none left out
        cost REAL NOT NULL,           -- in creative units
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL
    )""",
    """CREATE TABLE assets (          -- the images that they made
        id TEXT PRIMARY KEY,
        job TEXT NOT NULL,
        number INTEGER NOT NULL,      -- among those of its job, from 0
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        size INTEGER NOT NULL,        -- bytes of its file
        created_at INTEGER NOT NULL
    )""",
    "CREATE INDEX generations_by_state ON generations (project, type, status, created_at, id)",
    "CREATE INDEX generations_by_update"
    " ON generations (project, type, status, updated_at, created_at, id)",
    "CREATE INDEX generations_waiting ON generations (created_at)"
    " WHERE status IN ('queued', 'in-progress')",
    "CREATE INDEX assets_by_job ON assets (job, number)",
)
DATABASE = "engine.sqlite3"  # its name in the state folder
# Each brings a store to the next version.
STEPS = (TABLES, PROJECTS, OVERLAPS, TYPES, LISTINGS, IMAGES)
VERSION = len(STEPS)  # of the tables, kept in `user_version`


class Wait:
    """The wait for a database that another process holds: one for all calls, with a warning.

    It takes `BUSY` seconds unless given. Once it has run out, no call waits any more, until one
    has worked again.
    """

    def __init__(self, path: Path, seconds: float | None = None) -> None:
        self._path = path
        self._seconds = seconds
        self._over = False

    def until_free(self, do: Callable[[], T]) -> T:
        """What `do` returns; it is tried again while the database is busy. Raises what it raises
        at last."""
        seconds = BUSY if self._seconds is None else self._seconds
        began, has_warned = time.monotonic(), False
        while True:
            try:
                done = do()
            except sqlite3.OperationalError as error:
                waited = time.monotonic() - began
                if not is_busy(error):
                    raise
                if self._over or waited >= seconds:
                    self._over = True
                    raise
                if waited >= _WARN_AFTER and not has_warned:
                    log.warning(
                        "the local database %s is busy: waiting up to %d s for another process",
                        visible(str(self._path)),
                        seconds,
                    )
                    has_warned = True
                time.sleep(0.02)
            else:
                self._over = False
                return done


def is_busy(error: sqlite3.DatabaseError) -> bool:
    """Whether another process holds the database."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open the database; create it, or its tables, if they are missing. Waits for nobody."""
    connection = _connect(f"{_uri(path)}?mode=rwc")
    try:
        _use_wal(connection)
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Open the database without leaving any new file; in memory if it does not exist.

    A database in WAL mode in a read-only folder opens only as immutable.
    """
    for mode in ("mode=rw", "mode=ro", "mode=ro&immutable=1"):
        if not path.exists():
            break
        connection = _connect(f"{_uri(path)}?{mode}")
        try:
            version = _version(connection)
            if version == VERSION:
                return connection
            if version:
                return _migrated_copy(connection)
            connection.close()
            break
        except sqlite3.OperationalError as error:
            connection.close()
            if mode.endswith("immutable=1") or is_busy(error):
                raise
        except BaseException:
            connection.close()
            raise
    return in_memory()


def in_memory() -> sqlite3.Connection:
    """An empty database that leaves no trace."""
    connection = _connect("file::memory:")
    _migrate(connection)
    return connection


def _migrated_copy(older: sqlite3.Connection) -> sqlite3.Connection:
    """A copy in memory of an older store, with the current tables; the file is unchanged."""
    copy = _connect("file::memory:")
    try:
        older.backup(copy)
        _migrate(copy)
    except BaseException:
        copy.close()
        raise
    finally:
        older.close()
    return copy


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Raise `Unreachable` for an error of SQLite that waiting can solve, else `TargetError`."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # an internal error, not a state of the file
    except sqlite3.DatabaseError as error:
        raise _translated(path, error) from error


def _translated(path: Path, error: sqlite3.DatabaseError) -> ComposeError:
    if is_busy(error):
        return Unreachable(
            f"the local database {path} is busy: another process writes to it",
            hint="run the command again when that process has ended",
        )
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return TargetError(
                f"no disk space left for the local database {path}",
                hint="free some disk space; `compose prune --local` frees what no lock names",
            )
        case (
            sqlite3.SQLITE_READONLY
            | sqlite3.SQLITE_PERM
            | sqlite3.SQLITE_CANTOPEN
            | sqlite3.SQLITE_IOERR
        ):
            return TargetError(
                f"the local database {path} can't be read or written: {error}",
                hint="check the permissions of that folder and the disk",
            )
    return damaged(path, str(error))


def damaged(path: Path, reason: str) -> TargetError:
    """The error for a database with invalid content."""
    return TargetError(
        f"the local database {path} is damaged: {reason}",
        hint=f"move {path.name} and {path.name}-* away; `compose apply` composes the models again",
    )


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, timeout=0.0, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    return connection


def _uri(path: Path) -> str:
    """A file URI that SQLite accepts: `file:///x`, `file:///C:/x`, `file:////server/share/x`."""
    name = path.absolute().as_posix()
    return "file://" + ("" if name.startswith("/") else "/") + quote(os.fsencode(name))


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL mode, where readers don't wait for writers, if the file system supports it."""
    try:
        connection.execute("PRAGMA journal_mode=WAL").fetchone()
    except sqlite3.OperationalError as error:
        if is_busy(error):
            raise


def _migrate(connection: sqlite3.Connection) -> None:
    if _version(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in STEPS[_version(connection) :]:  # another process may have been faster
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise TargetError(
            f"the local database has version {version}; this compose supports version {VERSION}",
            hint="update compose",
        )
    return version
