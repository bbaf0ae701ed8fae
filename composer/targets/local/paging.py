"""Pages of the store's listings, by key: a page costs the same wherever it begins.

Listings are in order of creation. A table's index has the rows of one type and one state in that
order, so a page is the merge of those that the listing asks for, and reads no row but its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence

# The column of a table that has a row's state; downloads have none, nor types.
STATES = {"models": "state", "jobs": "status", "generations": "status"}
VALID = "id NOT GLOB '*[^A-Za-z0-9_-]*' AND length(id) BETWEEN 1 AND 64"


class Row(Protocol):
    """What a listing lists."""

    @property
    def id(self) -> str: ...

    @property
    def created_at(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Listing:
    """What a listing asks for. Times are in milliseconds since 1970; all limits are exclusive."""

    newest_first: bool = True
    size: int = 500  # rows that are read at once
    last: tuple[int, str] | None = None  # creation and id of the row that it begins after
    types: Callable[[str], bool] = lambda type: True  # of compositions; base models of images
    states: frozenset[str] | None = None  # None: all
    created_after: int | None = None
    created_before: int | None = None
    updated_after: int | None = None

    def after(self, row: Row) -> Listing:
        """The rest of the listing."""
        return replace(self, last=(row.created_at, row.id))


def rows_of(db: sqlite3.Connection, table: str, project: str, listing: Listing) -> list[str]:
    """The ids of the next rows of a project in a listing's order, at most its size."""
    wanted = [
        group
        for group in _groups(db, table, project)
        if len(group) == 1 or _wants(listing, *group[1:])
    ]
    if not wanted:
        return []
    one, limits = _select(table, listing)
    direction = "DESC" if listing.newest_first else "ASC"
    # SQLite merges the parts of such a query as it reads them: no more is read than the limit.
    sql = " UNION ALL ".join([one] * len(wanted))
    sql += f" ORDER BY created_at {direction}, id {direction} LIMIT ?"
    values = [value for group in wanted for value in (*group, *limits)]
    return [str(row["id"]) for row in db.execute(sql, [*values, listing.size])]


def _wants(listing: Listing, type: str, state: str) -> bool:
    return listing.types(type) and (listing.states is None or state in listing.states)


def _groups(db: sqlite3.Connection, table: str, project: str) -> list[tuple[str, ...]]:
    """Project, type and state of each group that has rows: a step through the index for each."""
    if table not in STATES:
        return [(project,)]
    select = f"SELECT project, type, {STATES[table]} FROM {table} WHERE project = ? AND type"
    same_type = f"{select} = ? AND {STATES[table]} > ? ORDER BY 3 LIMIT 1"
    next_type = f"{select} > ? ORDER BY 2, 3 LIMIT 1"
    groups: list[tuple[str, ...]] = []
    last = (project, "", "")
    while row := (
        db.execute(same_type, last).fetchone() or db.execute(next_type, last[:2]).fetchone()
    ):
        last = (project, str(row[1]), str(row[2]))
        groups.append(last)
    return groups


def _select(table: str, listing: Listing) -> tuple[str, list[object]]:
    """The query for the rows of one group, and the values of its limits."""
    grouped = f" AND type = ? AND {STATES[table]} = ?" if table in STATES else ""
    later = "<" if listing.newest_first else ">"
    limits: dict[str, Sequence[object] | None] = {
        f"(created_at, id) {later} (?, ?)": listing.last,
        "created_at > ?": _one(listing.created_after),
        "created_at < ?": _one(listing.created_before),
        "updated_at > ?": _one(listing.updated_after),
    }
    used = {sql: values for sql, values in limits.items() if values is not None}
    # What was updated later is sorted: few rows as a rule, where all others would be passed over.
    index = f" INDEXED BY {table}_by_update" if listing.updated_after is not None else ""
    conditions = "".join(f" AND {sql}" for sql in (*used, VALID))
    sql = f"SELECT id, created_at FROM {table}{index} WHERE project = ?{grouped}{conditions}"
    return sql, [value for values in used.values() for value in values]


def _one(value: int | None) -> tuple[int] | None:
    return None if value is None else (value,)


T = TypeVar("T", bound=Row)


def all_of(read: Callable[[Listing], Sequence[T]], listing: Listing) -> Iterator[T]:
    """All rows of a listing, which `read` reads as they are taken."""
    while rows := read(listing):
        yield from rows
        listing = listing.after(rows[-1])
