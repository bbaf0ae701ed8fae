"""Pages by key: they hold what a listing asks for, and cost the same wherever they begin."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sizes import size

from composer.targets.local.database import STEPS, in_memory
from composer.targets.local.paging import Listing, all_of, rows_of

TYPES, STATES = ("flux.1-composition", "other-composition"), ("new", "trained", "failed", "deleted")
PROJECTS = ("", "p")


@dataclass(frozen=True)
class Row:
    id: str
    created_at: int
    updated_at: int
    project: str
    type: str
    state: str


def rows(db: sqlite3.Connection, table: str, project: str, listing: Listing) -> list[str]:
    """The whole listing, page by page."""

    def read(listing: Listing) -> list[Row]:
        ids = rows_of(db, table, project, listing)
        found = (db.execute(f"SELECT * FROM {table} WHERE id = ?", (id,)).fetchone() for id in ids)
        return [Row(row["id"], row["created_at"], 0, "", "", "") for row in found]

    return [row.id for row in all_of(read, listing)]


def fill(db: sqlite3.Connection, made: list[Row]) -> None:
    """The rows as compositions, and two jobs of each with the same creation, type and state."""
    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO models (id, name, concepts, status, tags, created_at, updated_at, deleted_at,"
        " project, type) VALUES (:id, 'K', '[]', :state, '[]', :number, 0,"
        " CASE WHEN :state = 'deleted' THEN 1 END, :project, :type)",
        [{**fields(row), "number": number} for number, row in enumerate(made)],
    )
    db.executemany(
        "INSERT INTO jobs (id, model, status, progress, history, created_at, updated_at, queued_at,"
        " project, type) VALUES (:id, :id, :state, 0, '[]', :created_at, :updated_at, 0, :project,"
        " :type)",
        [fields(row) for row in made],
    )
    db.executemany(
        "INSERT INTO generations VALUES (:id, :project, :type, :state, 0, NULL, '[]', '{}', 0,"
        " :created_at, :updated_at)",
        [fields(row) for row in made],
    )
    db.executemany(
        "INSERT INTO downloads VALUES (:id, '', :project, :created_at)",
        [fields(row) for row in made],
    )
    db.execute("COMMIT")


def fields(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__dataclass_fields__}


moments = st.integers(0, 6)
some_rows = st.lists(
    st.builds(
        Row,
        id=st.text("abAB-_", min_size=1, max_size=4),
        created_at=moments,
        updated_at=moments,
        project=st.sampled_from(PROJECTS),
        type=st.sampled_from(TYPES),
        state=st.sampled_from(STATES),
    ),
    max_size=25,
    unique_by=lambda row: row.id,
)
limits = st.none() | moments


@settings(max_examples=size(40, 2000), deadline=None)
@given(
    made=some_rows,
    newest_first=st.booleans(),
    at_once=st.integers(1, 4),
    types=st.none() | st.sets(st.sampled_from(TYPES)),
    states=st.none() | st.frozensets(st.sampled_from(STATES)),
    after=limits,
    before=limits,
    updated=limits,
)
def test_the_pages_together_are_what_a_look_at_every_row_finds(
    made: list[Row],
    newest_first: bool,
    at_once: int,
    types: set[str] | None,
    states: frozenset[str] | None,
    after: int | None,
    before: int | None,
    updated: int | None,
) -> None:
    listing = Listing(
        newest_first=newest_first,
        size=at_once,
        types=lambda type: types is None or type in types,
        states=states,
        created_after=after,
        created_before=before,
        updated_after=updated,
    )
    wanted = [
        row.id
        for row in sorted(made, key=lambda row: (row.created_at, row.id), reverse=newest_first)
        if row.project == "p"
        and (types is None or row.type in types)
        and (states is None or row.state in states)
        and (after is None or row.created_at > after)
        and (before is None or row.created_at < before)
        and (updated is None or row.updated_at > updated)
    ]
    with closing(in_memory()) as db:
        fill(db, made)
        assert rows(db, "jobs", "p", listing) == wanted
        assert rows(db, "generations", "p", listing) == wanted


LISTINGS = {
    "all": Listing(size=10),
    "oldest first": Listing(size=10, newest_first=False),
    "one type": Listing(size=10, types=lambda type: type == TYPES[1]),
    "two states": Listing(size=10, states=frozenset(["failed", "deleted"])),
    "a type and a state": Listing(
        size=10, types=lambda type: type == TYPES[0], states=frozenset(["new"])
    ),
    "a time": Listing(size=10, created_after=20, created_before=2980),
}


@pytest.mark.parametrize("table", ["models", "jobs", "downloads", "generations"])
def test_a_page_costs_the_same_at_the_start_and_at_the_end(table: str) -> None:
    """Counted in steps of SQLite's machine, of which a row that is passed over takes several."""
    many = [
        Row(f"m{n:04}", n, n, PROJECTS[n % 2], TYPES[n // 2 % 3 // 2], STATES[n // 6 % 4])
        for n in range(3000)
    ]
    with closing(in_memory()) as db:
        fill(db, many)
        for name, listing in LISTINGS.items():
            ids = rows(db, table, "p", listing)
            assert len(ids) > 100
            costs = []
            for position in (10, len(ids) // 2, len(ids) - 20):
                last = next(row for row in many if row.id == ids[position])
                costs.append(steps(db, table, listing.after(last)))
            assert max(costs) <= min(costs) * 1.2, (name, costs)
            assert max(costs) < 1500, (name, costs)


def test_what_was_updated_since_is_found_without_all_that_was_not() -> None:
    with closing(in_memory()) as db:
        fill(db, [Row(f"m{n:04}", n, n, "p", TYPES[0], STATES[n % 4]) for n in range(3000)])
        listing = Listing(size=10, updated_after=2989)
        assert steps(db, "jobs", listing) < 1500
        assert steps(db, "generations", listing) < 1500


def steps(db: sqlite3.Connection, table: str, listing: Listing) -> int:
    """How many steps SQLite takes for a page of 10 rows."""
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    db.set_progress_handler(count, 1)
    assert len(rows_of(db, table, "p", listing)) == 10
    db.set_progress_handler(None, 1)
    return counted


def test_a_store_from_before_knows_the_projects_and_types_of_its_jobs() -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        for statement in (statement for step in STEPS[:4] for statement in step):
            db.execute(statement)
        db.execute(
            "INSERT INTO models (id, name, concepts, status, tags, created_at, updated_at, project,"
            " type) VALUES ('m', 'K', '[]', 'trained', '[]', 1, 1, 'p', 'other')"
        )
        for job, model in (("j", "m"), ("k", "gone")):
            jobs = "INSERT INTO jobs VALUES (?, ?, 'success', 1, NULL, '[]', 1, 1, 1, 1)"
            db.execute(jobs, (job, model))
        for statement in STEPS[4]:
            db.execute(statement)
        found = db.execute("SELECT id, project, type FROM jobs ORDER BY id").fetchall()
        assert found == [("j", "p", "other"), ("k", "", "")]
