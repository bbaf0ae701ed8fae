"""The calls that make images, against scripted answers on a real socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.image_server import BASE, target_at
from support.wire_server import Reply, WireServer

from composer.errors import Ambiguous, NotFound, TargetError, Unreachable
from composer.targets.http.error_translation import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.targets.scenario.generation import Generation

EARLY, NOON, LATE = (f"2026-10-01T{hour}:00:00.000Z" for hour in ("08", "12", "16"))


@pytest.fixture
def server() -> Iterator[WireServer]:
    with WireServer() as server:
        yield server


@pytest.fixture
def generation(server: WireServer) -> Iterator[Generation]:
    with target_at(server.url, project="proj_1") as target:
        yield target.generation


def job(id: str, created: str = NOON, **more: Any) -> dict[str, Any]:
    return {"jobId": id, "status": "queued", "createdAt": created, **more}


def page(*jobs: dict[str, Any], token: str | None = None) -> Reply:
    return Reply({"jobs": list(jobs)} | ({"nextPaginationToken": token} if token else {}))


@pytest.mark.parametrize(
    ("answer", "price"),
    [
        (Reply({"creativeUnitsCost": 9, "creativeUnitsDiscount": 1}, 269), 9.0),
        (Reply({"creativeUnitsCost": 10.75}, 200), 10.75),
        (Reply({"creativeUnitsCost": 0}, 269), 0.0),
        (Reply({}, 269), None),
        (Reply({"creativeUnitsCost": "9"}, 269), None),
    ],
)
def test_a_price(
    server: WireServer, generation: Generation, answer: Reply, price: float | None
) -> None:
    server.say(answer)
    assert generation.price(BASE, {"prompt": "x"}) == price
    (seen,) = server.seen
    assert seen.query == {"dryRun": "true", "projectId": "proj_1"} and seen.body == {"prompt": "x"}


def test_a_price_below_nothing_is_not_believed(server: WireServer, generation: Generation) -> None:
    server.say(*[Reply({"creativeUnitsCost": -9}, 269)] * 9)
    with pytest.raises(Unreachable, match="no usable price"):
        generation.price(BASE, {})


def test_a_start_is_sent_once(server: WireServer, generation: Generation) -> None:
    server.say(Reply({}, 500), Reply({"job": job("job_1"), "creativeUnitsCost": 9}))
    with pytest.raises(Ambiguous):
        generation.start(BASE, {})
    assert len(server.seen) == 1
    started = generation.start(BASE, {})
    assert (started.id, started.cost, started.created_at) == ("job_1", 9.0, NOON)


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "Input lorasScale must be at most 2", Refusal),
        (404, "Model lora_x not found", NotFound),
    ],
)
def test_a_refusal_is_told_in_its_words(
    server: WireServer, generation: Generation, status: int, reason: str, kind: type[Exception]
) -> None:
    server.say(Reply({"reason": reason}, status))
    with pytest.raises(kind, match=reason):
        generation.start(BASE, {})


@pytest.mark.parametrize("id", ["../models", "a b", "", "x" * 65])
def test_what_is_no_id_goes_into_no_path(
    server: WireServer, generation: Generation, id: str
) -> None:
    with pytest.raises(NotFound, match="not an id"):
        generation.job(id)
    with pytest.raises(NotFound, match="not an id"):
        generation.start(id, {})
    assert server.seen == []


def test_an_answer_about_another_job_is_not_taken(
    server: WireServer, generation: Generation
) -> None:
    server.say(*[Reply({"job": job("job_2")})] * 9)
    with pytest.raises(Unreachable, match="about job_2 instead of job_1"):
        generation.job("job_1")


def test_all_pages_since_a_time_even_empty_ones(server: WireServer, generation: Generation) -> None:
    server.say(page(job("job_3", LATE), token="a"), page(token="b"), page(job("job_1"), {"x": 1}))
    pages = list(generation.jobs_since(EARLY))
    assert [[one.id for one in jobs] for jobs in pages] == [["job_3"], [], ["job_1"]]
    assert [seen.query.get("paginationToken") for seen in server.seen] == [None, "a", "b"]
    assert server.seen[0].query["createdAfter"] == EARLY


def test_a_server_that_ignores_the_time_is_read_up_to_it(
    server: WireServer, generation: Generation
) -> None:
    server.say(
        page(job("job_3", LATE), job("job_2", NOON), token="a"),
        page(job("job_1", EARLY), token="b"),
    )
    found = [one.id for jobs in generation.jobs_since(NOON) for one in jobs]
    assert found == ["job_3"] and len(server.seen) == 2


def test_pages_that_repeat_end(server: WireServer, generation: Generation) -> None:
    server.say(*[page(job("job_1", LATE), token="a")] * 9)
    with pytest.raises(TargetError, match="does not end: its pages repeat"):
        list(generation.jobs_since(EARLY))


def test_assets_are_asked_for_in_batches(server: WireServer, generation: Generation) -> None:
    def answer(seen: Any) -> Reply:
        rows = [{"id": id, "url": "https://example.com/x"} for id in seen.body["assetIds"]]
        return Reply({"assets": [*rows[:-1], {"id": "asset_other"}, {"id": "no id!"}]})

    server.answer = answer
    ids = [f"asset_{number:03}" for number in range(450)]
    found = generation.assets([*ids, *ids])
    assert [len(seen.body["assetIds"]) for seen in server.seen] == [200, 200, 50]
    assert len(found) == 447 and set(found) < set(ids)  # the last of each is unknown
    assert generation.assets([]) == {} and len(server.seen) == 3


def test_a_job_s_error_is_safe_to_print(server: WireServer, generation: Generation) -> None:
    text = "failed \x1b[2J with secret_for-tests at https://example.com/a?Signature=x"
    server.say(Reply({"job": job("job_1", status="failure", metadata={"error": text})}))
    found = generation.job("job_1")
    assert found.has_failed
    assert found.error == "failed \\x1b[2J with *** at https://example.com/a"
