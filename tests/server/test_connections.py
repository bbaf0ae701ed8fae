"""The limits of the server: what is beyond them is told to wait, at once, and nothing is lost."""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from support import serving
from support.cli import compose
from support.crowd import Crowd, Poll
from support.engine_files import PATIENCE
from support.serving import basic
from support.shapes import check_refusal
from support.sizes import size

from composer.server import connections
from composer.server.connections import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from support.serving import Served


class Client:
    """A connection that is kept."""

    def __init__(self, served: Served) -> None:
        self._connection = http.client.HTTPConnection(served.url[7:-3], timeout=PATIENCE)
        self._headers = basic(served.key, served.secret)

    def get(self, path: str = "/models") -> tuple[int, dict[str, str], Any]:
        self._connection.request("GET", f"/v1{path}", headers=self._headers)
        answer = self._connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, headers, json.loads(answer.read())

    def close(self) -> None:
        self._connection.close()


def check_told_to_wait(answer: tuple[int, dict[str, str], Any], why: str) -> None:
    status, headers, body = answer
    assert (status, headers["retry-after"]) == (429, "1")
    check_refusal(body)
    assert why in body["error"]


def test_requests_beyond_the_limit_are_told_to_wait_at_once(root: Path) -> None:
    end = root / "end"
    pause = {"when": "GET /models", "times": 3, "pause": {"at": "before", "until": str(end)}}
    limits = Limits(threads=1, waiting=2)
    refused, answered = list[Any](), list[int]()

    def ask() -> None:
        client = Client(served)
        if (answer := client.get())[0] == 429:
            refused.append(answer)
            refused.append(client.get())  # on the same connection
        else:
            answered.append(answer[0])
        client.close()

    with serving.thread(root, root / "recipes/loras", faults=[pause], limits=limits) as served:
        threads = [threading.Thread(target=ask) for _ in range(6)]
        threads[0].start()
        served.wait_for("paused")  # the only thread is busy
        for thread in threads[1:]:
            thread.start()
        deadline = time.monotonic() + PATIENCE
        while len(refused) < 6:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert answered == []  # two wait, and were not sent away
        end.touch()
        for thread in threads:
            thread.join(PATIENCE)
    assert answered == [200, 200, 200]
    for answer in refused:
        check_told_to_wait(answer, "busy")
    assert len([line for line in served.lines if line.startswith("GET /v1/models 429 ")]) == 6


def test_connections_beyond_the_limit_are_told_so_and_closed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SURPLUS_IDLE", 0.5)
    monkeypatch.setattr(connections, "CHECK_INTERVAL", 0)
    limits = Limits(connections=3)
    with serving.thread(root, root / "recipes/loras", limits=limits) as served:
        kept = [Client(served) for _ in range(3)]
        for client in kept:
            assert client.get()[0] == 200
        late = Client(served)
        answer = late.get()
        check_told_to_wait(answer, "no more connections")
        assert answer[1]["connection"] == "close"
        silent = Client(served)
        silent._connection.connect()
        silent._connection.sock.settimeout(PATIENCE)
        assert silent._connection.sock.recv(1) == b""  # closed, though it never asked
        assert [client.get()[0] for client in kept] == [200, 200, 200]
        kept.pop().close()
        deadline = time.monotonic() + PATIENCE
        while late.get()[0] != 200:
            assert time.monotonic() < deadline
        for client in (*kept, late, silent):
            client.close()


def test_the_files_that_a_process_may_open_limit_the_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resource = pytest.importorskip("resource")
    for files, most in ((256, 142), (65536, 400), (resource.RLIM_INFINITY, 400), (20, 1)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, files=files: (files, files))
        assert Limits().most_connections == most


def test_a_crowd_is_asked_to_wait_and_every_request_is_answered(root: Path) -> None:
    """Also those of clients that don't wait: the server neither hangs nor drops anything."""
    limits = Limits(threads=2, waiting=4, retry_after=0)
    clients = size(40, 300)
    with serving.thread(root, root / "recipes/loras", limits=limits) as served:
        with Crowd(served, clients, [Poll("/models"), Poll("/jobs")]) as crowd:
            deadline = time.monotonic() + PATIENCE
            while min(crowd.answers(429), crowd.answers(200)) < 50:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert {one.status for one in crowd.asked} == {200, 429}


def test_compose_waits_as_told_and_loses_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An apply with more requests at once than the server takes."""
    (ink,) = (root / "recipes").glob("loras/*.safetensors")
    assert ink.name == "ink.safetensors"
    for number in range(6):
        (root / "recipes" / f"k{number}.yaml").write_text(
            f"name: K{number}\nconcepts:\n  - {{name: Ink Lines, scale: 0.{number + 1}}}\n"
        )
    slow = {"when": "POST /models", "times": 100, "delay": 0.02}
    limits = Limits(threads=1, waiting=1, retry_after=0)
    with serving.thread(root, root / "recipes/loras", faults=[slow], limits=limits) as served:
        for name, value in served.env.items():
            monkeypatch.setenv(name, value)
        arguments = ("apply", "--target", served.url, "--poll-interval", "0.1s")
        ran = compose(*arguments, "--parallelism", "6", at=root)
        assert ran.status == 0, ran.err
        refused = [line.split()[:2] for line in served.lines if " 429 " in line]
        assert ["POST", "/v1/models"] in refused
        made = served.ok("GET", "/models", params={"type": "flux.1-composition"})["models"]
        assert sorted(model["name"] for model in made) == [f"K{number}" for number in range(6)]
        assert {model["status"] for model in made} == {"trained"}
        assert served.calls.count("POST /models") == 6
