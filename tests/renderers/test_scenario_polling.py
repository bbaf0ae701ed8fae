"""Many jobs are looked at with few requests, less and less often while none ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from support.image_server import Fault, ImageServer, target_of
from support.wire_server import Reply

from composer.errors import Unreachable
from composer.renderers.scenario_polling import JobPoller

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.targets.scenario.generation import Generation


@dataclass
class Running:
    created_at: str


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with ImageServer() as server:
        yield server


@pytest.fixture
def generation(server: ImageServer) -> Iterator[Generation]:
    with target_of(server) as target:
        yield target.generation


def started(server: ImageServer, count: int) -> dict[str, Any]:
    """So many jobs that run."""
    jobs = [server.add({"seed": number}) for number in range(count)]
    return {job["jobId"]: Running(job["createdAt"]) for job in jobs}


@pytest.mark.parametrize(("count", "requests"), [(1, 1), (2, 1), (100, 1), (101, 2), (250, 3)])
def test_the_list_shows_many_at_once(
    server: ImageServer, generation: Generation, count: int, requests: int
) -> None:
    running = started(server, count)
    found = JobPoller(generation, 1.0).jobs(running)
    assert set(found) == set(running) and all(found.values())
    assert len(server.seen) == requests


def test_a_list_full_of_other_jobs_is_given_up(server: ImageServer, generation: Generation) -> None:
    """At the latest when single requests would have been fewer."""
    running = started(server, 3)
    started(server, 600)
    found = JobPoller(generation, 1.0).jobs(running)
    assert all(found.values())
    assert server.lines.count("GET /jobs") == 3 and len(server.seen) == 6


def test_without_a_list_each_is_asked_for(server: ImageServer, generation: Generation) -> None:
    running = started(server, 3)
    server.fault("GET /jobs", Fault(reply=Reply({"reason": "no"}, 400)))
    assert all(JobPoller(generation, 1.0).jobs(running).values())
    assert len(server.seen) == 4


def test_what_the_list_lacks_is_asked_for_and_may_be_gone(
    server: ImageServer, generation: Generation
) -> None:
    running = started(server, 3)
    del server.jobs["job_2"]
    found = JobPoller(generation, 1.0).jobs(running)
    assert found["job_2"] is None and found["job_1"] and found["job_3"]


def test_where_a_job_was_created_at_an_unknown_time(
    server: ImageServer, generation: Generation
) -> None:
    running = started(server, 2)
    running["job_1"].created_at = ""
    poller = JobPoller(generation, 1.0)
    poller.jobs(running)
    assert len(server.seen) == 2
    poller.jobs(running)  # it is known now
    assert len(server.seen) == 3


def test_pauses_grow_and_are_short_again_once_something_ended(
    generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    poller, pauses = JobPoller(generation, 10.0), []
    poller.begin()
    for ended in (False, False, False, False, False, False, True, False):
        pauses.append(poller.left())
        poller.polled(something_ended=ended)
    assert pauses == pytest.approx([2, 3, 4.5, 6.75, 10, 10, 10, 2])


def test_it_gives_up_after_some_failures_in_a_row(
    server: ImageServer, generation: Generation
) -> None:
    poller = JobPoller(generation, 0.0)
    assert [poller.gives_up(), poller.gives_up()] == [False, False]
    poller.polled(something_ended=False)
    assert [poller.gives_up() for _ in range(3)] == [False, False, True]
    for _ in range(5):
        server.fault("GET /jobs/*", Fault(drop="before"))
    with pytest.raises(Unreachable):
        poller.jobs(started(server, 1))
