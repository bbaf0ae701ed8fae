"""Lists over HTTP: the work for a page does not grow with what it leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from composer.server.asset_links import AssetLinks
from composer.server.auth import Credentials
from composer.server.calls import Call, Visibility
from composer.server.handlers import list_jobs, list_models
from composer.server.request_fields import Query
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = 2000  # compositions, each with a job and a download
TYPE = "flux.1-composition"
STATES = ("failed", "training-canceled", "new")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    state = tmp_path_factory.mktemp("state")
    numbers = [(f"{n:05}", STATES[n % 3], 1000 * n, n % 2 or None) for n in range(MANY)]
    with Engine(state, None) as engine, engine.store.writing() as db:
        db.executemany(
            "INSERT INTO models (id, name, concepts, status, tags, created_at, updated_at,"
            " deleted_at, type) VALUES ('model_' || ?1, 'K', '[]', ?2, '[]', ?3, ?3, ?4, '"
            f"{TYPE}')",
            numbers,
        )
        db.executemany(
            "INSERT INTO jobs (id, model, status, progress, history, created_at, updated_at,"
            " queued_at, type) VALUES ('job_' || ?1, 'model_' || ?1, CASE ?2 WHEN 'failed' THEN"
            f" 'failure' ELSE 'canceled' END, 0, '[]', ?3, ?3, ?3, '{TYPE}')",
            [number[:3] for number in numbers],
        )
        db.executemany(
            "INSERT INTO downloads VALUES ('job_d' || ?, 'x', '', ?)",
            [(id, at) for id, _, at, _ in numbers],
        )
    with Engine(state, None, run_jobs=False) as engine:  # no other thread uses its connection
        yield engine


def listed(engine: Engine, kind: str, **query: str) -> dict[str, Any]:
    values = {name: [value] for name, value in query.items()}
    credentials = Credentials("key", "secret")
    links, query = AssetLinks(b"key"), Query(values)
    call = Call(engine, "", query, {}, Visibility(), credentials, "http://localhost/v1", links)
    return dict((list_models if kind == "models" else list_jobs)(call).body)


QUERIES: list[tuple[str, dict[str, str], int]] = [
    ("models", {}, 1000),
    ("models", {"type": TYPE}, 1000),
    ("models", {"status": "failed"}, 334),
    ("models", {"status": "deleted"}, 1000),
    ("models", {"status": "nonsense"}, 2000),
    ("models", {"sortBy": "createdAt", "sortDirection": "asc"}, 1000),
    ("models", {"sortBy": "createdAt", "createdAfter": "1970-01-01T00:00:10Z"}, 994),
    ("models", {"sortBy": "createdAt", "createdBefore": "1970-01-01T00:10:00.0001Z"}, 301),
    ("jobs", {}, 4000),
    ("jobs", {"status": "failure"}, 667),
    ("jobs", {"status": "success"}, 2000),
    ("jobs", {"type": "flux-model-training"}, 2000),
    ("jobs", {"type": "model-download", "status": "success"}, 2000),
    ("jobs", {"createdAfter": "1970-01-01T00:00:10Z"}, 3978),
]


def cost(engine: Engine, kind: str, **query: str) -> tuple[int, dict[str, Any]]:
    """How many steps SQLite takes for a page, in tens, and the page."""
    counted = 0

    def step() -> None:
        nonlocal counted
        counted += 1

    engine.store._connection.set_progress_handler(step, 10)
    try:
        page = listed(engine, kind, **query)
    finally:
        engine.store._connection.set_progress_handler(None, 10)
    return counted, page


@pytest.mark.parametrize(("kind", "query", "count"), QUERIES)
def test_every_page_costs_the_same(
    engine: Engine, kind: str, query: dict[str, str], count: int
) -> None:
    costs, ids, token = [], [], dict[str, str]()
    while True:
        steps, page = cost(engine, kind, pageSize="90", **query, **token)
        costs.append(steps)
        ids += [item.get("jobId") or item["id"] for item in page[kind]]
        if "nextPaginationToken" not in page:
            break
        token = {"paginationToken": page["nextPaginationToken"]}
    assert len(ids) == len(set(ids)) == count
    assert max(costs) <= 1.2 * costs[0], costs
    assert costs[0] < 2500, costs


@pytest.mark.parametrize(
    ("kind", "query"),
    [
        ("models", {"privacy": "public"}),
        ("models", {"collectionId": "c"}),
        ("models", {"type": "sd-xl"}),
        ("models", {"status": "copying"}),
        ("jobs", {"status": "queued"}),
        ("jobs", {"type": "custom"}),
        ("jobs", {"updatedAfter": "1999-01-01"}),
    ],
)
def test_an_empty_list_costs_next_to_nothing(
    engine: Engine, kind: str, query: dict[str, str]
) -> None:
    steps, page = cost(engine, kind, **query)
    assert page == {kind: []}
    assert steps < 100
