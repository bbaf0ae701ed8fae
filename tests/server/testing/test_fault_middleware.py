"""The fault script: each kind of fault does what it says, fires when it says, and is logged."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import requests
from support import serving
from support.engine_files import PATIENCE, write_lora
from support.painter import Painter
from support.shapes import check_model

from composer.errors import InvalidInput
from composer.images.decoding import BadImage, decode
from composer.server.testing.fault_script import read_script

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from support.serving import Served

LATE = 0.8  # seconds


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_lora(tmp_path / "loras" / "ink.safetensors", 1, title="Ink Lines")
    return tmp_path


def faulty(root: Path, *faults: dict[str, Any]) -> AbstractContextManager[Served]:
    return serving.thread(root, root / "loras", faults=faults)


def painting(root: Path, *faults: dict[str, Any]) -> AbstractContextManager[Served]:
    return serving.thread(root, root / "loras", faults=faults, renderer=Painter())


def compositions(served: Served) -> list[str]:
    query = {"type": "flux.1-composition"}
    return [model["id"] for model in served.ok("GET", "/models", params=query)["models"]]


def post(served: Served) -> requests.Response:
    body = {
        "name": "K",
        "type": "flux.1-composition",
        "concepts": [{"modelId": id, "scale": 0.5} for id in LORA],
    }
    return served.call("POST", "/models", body)


LORA = ["model_OcPgWlOGDvBYHzuzxPA9gB"]  # the id of the bytes that `write_lora` makes of seed 1


# --- what a fault does -------------------------------------------------------------------


@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1)])
def test_a_dropped_connection_gets_no_byte(root: Path, when: str, made: int) -> None:
    with faulty(root, {"when": "POST /models", "drop": when}) as served:
        with pytest.raises(requests.ConnectionError, match="without response"):
            post(served)
        assert len(compositions(served)) == made
        assert post(served).status_code == 200
        assert served.faults == [1]
        assert [event["status"] for event in served.events("call")] == [None, 200, 200]
        assert "POST /v1/models dropped" in "\n".join(served.lines)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_dropped_connection_is_dropped_on_a_kept_one_too(root: Path, when: str) -> None:
    with faulty(root, {"call": 3, "drop": when}) as served, requests.Session() as session:
        session.auth = (served.key, served.secret)
        for _ in range(2):
            assert session.get(served.url + "/models").status_code == 200
        with pytest.raises(requests.ConnectionError):
            session.get(served.url + "/models")
        assert session.get(served.url + "/models").status_code == 200


@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1)])
def test_an_error_comes_before_or_after_the_effect(root: Path, when: str, made: int) -> None:
    with faulty(root, {"when": "POST /models", "error": when}) as served:
        assert post(served).status_code == 500
        assert len(compositions(served)) == made


def test_a_status_has_no_effect_and_the_headers_and_body_that_are_scripted(root: Path) -> None:
    faults = [
        {"when": "POST /models", "status": 429, "headers": {"Retry-After": "1"}, "body": {"a": 1}},
        {"when": "POST /models", "nth": 2, "status": 503, "body": "plain"},
        {"when": "POST /models", "nth": 3, "status": 409},
    ]
    with faulty(root, *faults) as served:
        first, second, third, last = (post(served) for _ in range(4))
        assert (first.status_code, first.headers["Retry-After"], first.json()) == (
            429,
            "1",
            {"a": 1},
        )
        assert (second.status_code, second.text) == (503, "plain")
        assert (third.status_code, third.text) == (409, "")
        assert last.status_code == 200
        assert len(compositions(served)) == 1
        assert served.faults == [1, 2, 3]


@pytest.mark.parametrize("how", ["truncated", "malformed", "not-json"])
def test_a_body_may_be_unreadable_though_the_effect_took_place(root: Path, how: str) -> None:
    with faulty(root, {"when": "POST /models", "body": how}) as served:
        if how == "truncated":
            with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
                post(served)
        else:
            answer = post(served)
            assert answer.status_code == 200
            with pytest.raises(requests.JSONDecodeError):
                answer.json()
            assert answer.text.startswith('{"model"' if how == "malformed" else "<html>")
        assert len(compositions(served)) == 1


@pytest.mark.parametrize(
    ("fault", "jobs"),
    [
        ({"drop": "before"}, 0),
        ({"error": "before"}, 0),
        ({"status": 429}, 0),
        ({"drop": "after"}, 1),
        ({"error": "after"}, 1),
        ({"body": "not-json"}, 1),
        ({"duplicate": True}, 2),
    ],
    ids=str,
)
def test_a_job_that_makes_images_is_charged_if_the_effect_took_place(
    root: Path, fault: dict[str, Any], jobs: int
) -> None:
    with painting(root, {"when": "POST /generate/custom/*", **fault}) as served:
        body = {"prompt": "a knight", "width": 128, "height": 128}
        with suppress(requests.ConnectionError):
            served.call("POST", f"/generate/custom/{serving.BASE_MODEL}", body)
        assert served.charged() == (jobs, 9 * jobs)
        assert served.faults == [1]


def test_the_bytes_of_an_image_suffer_too(root: Path) -> None:
    html = {"headers": {"Content-Type": "text/html"}, "body": "<html>"}
    faults: list[dict[str, Any]] = [
        {"status": 403},
        {"status": 200, **html},
        {"body": "malformed"},
        {"body": "truncated"},
        {"drop": "after"},
    ]
    scripted = [
        {"when": "GET /assets/*/content", "nth": number, **fault}
        for number, fault in enumerate(faults, 1)
    ]
    with painting(root, *scripted) as served:
        (asset,) = served.ended(served.generate(width=128, height=128))["metadata"]["assetIds"]
        url = served.ok("GET", f"/assets/{asset}")["asset"]["url"]
        assert requests.get(url, timeout=PATIENCE).status_code == 403
        assert requests.get(url, timeout=PATIENCE).text == "<html>"
        half = requests.get(url, timeout=PATIENCE)
        for _ in range(2):
            with pytest.raises(requests.RequestException):
                requests.get(url, timeout=PATIENCE)
        whole = requests.get(url, timeout=PATIENCE)
        assert (half.status_code, half.headers["Content-Type"]) == (200, "image/png")
        assert half.content == whole.content[: len(whole.content) // 2]
        assert decode(whole.content).size == (128, 128)
        with pytest.raises(BadImage):
            decode(half.content)
        assert served.faults == [1, 2, 3, 4, 5]


def test_a_delay_is_one(root: Path) -> None:
    with faulty(root, {"when": "GET /models", "delay": 0.3}) as served:
        began = time.monotonic()
        assert compositions(served) == []
        assert time.monotonic() - began >= 0.3


def test_a_duplicate_takes_effect_twice(root: Path) -> None:
    with faulty(root, {"when": "POST /models", "duplicate": True}) as served:
        answered = post(served).json()["model"]["id"]
        ids = compositions(served)
        assert len(ids) == 2 and ids[0] == answered  # newest first: the later one is answered


def test_a_late_replica_is_left_out_of_reads_for_a_while(root: Path) -> None:
    with faulty(root, {"when": "POST /models", "late_replica": LATE}) as served:
        made = post(served)
        appears = time.monotonic() + LATE
        check_model(made.json()["model"])
        id = made.json()["model"]["id"]
        assert served.call("GET", f"/models/{id}").status_code == 404
        assert served.ok("POST", "/models/get-bulk", {"modelIds": [id]}) == {"models": []}
        assert compositions(served) == []
        assert served.ok("PUT", f"/models/{id}/tags", {"add": ["x"]})["added"] == ["x"]
        assert time.monotonic() < appears, "too slow to see it"
        time.sleep(LATE)
        assert served.ok("GET", f"/models/{id}")["model"]["tags"] == ["x"]
        assert compositions(served) == [id]
        assert [event["id"] for event in served.events("hidden")] == [id]


def test_a_late_job_is_left_out_of_reads_for_a_while(root: Path) -> None:
    with painting(root, {"when": "POST /generate/custom/*", "late_replica": LATE}) as served:
        late, there = (served.generate(width=128, height=128) for _ in range(2))
        assert served.call("GET", f"/jobs/{late}").status_code == 404
        assert [job["jobId"] for job in served.ok("GET", "/jobs")["jobs"]] == [there]
        time.sleep(LATE)
        assert served.ended(late)["status"] == "success"
        assert served.charged() == (2, 18)


def test_a_stale_list_answers_as_of_before_for_a_while(root: Path) -> None:
    faults = [
        {"when": "POST /models", "nth": 2, "stale_list": LATE},
        {"when": "DELETE /models/*", "stale_list": LATE},
    ]
    with faulty(root, *faults) as served:
        old = post(served).json()["model"]["id"]
        time.sleep(LATE)
        new = post(served).json()["model"]["id"]
        fresh = time.monotonic() + LATE
        assert compositions(served) == [old]
        assert served.ok("GET", f"/models/{new}")["model"]["id"] == new
        assert time.monotonic() < fresh, "too slow to see it"
        time.sleep(LATE)
        assert compositions(served) == [new, old]
        served.ok("DELETE", f"/models/{old}")
        assert served.call("GET", f"/models/{old}").status_code == 404
        assert compositions(served) == [new, old]
        time.sleep(LATE)
        assert compositions(served) == [new]


def test_a_list_that_is_stale_itself_misses_what_is_young(root: Path) -> None:
    with faulty(root, {"when": "GET /models", "stale_list": LATE}) as served:
        id = post(served).json()["model"]["id"]
        made = time.monotonic()
        assert compositions(served) == []
        assert time.monotonic() < made + LATE, "too slow to see it"
        time.sleep(LATE)
        assert compositions(served) == [id]  # never later than so long after it was made


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_pause_holds_the_call_until_a_file_is_there(root: Path, at: str) -> None:
    with faulty(root, {"when": "POST /models", "pause": {"at": at, "until": "go"}}) as served:
        answers: list[requests.Response] = []
        caller = threading.Thread(target=lambda: answers.append(post(served)))
        caller.start()
        served.wait_for("paused")
        assert len(compositions(served)) == (at == "after")
        assert not answers
        (root / "go").touch()
        caller.join(PATIENCE)
        assert answers[0].status_code == 200
        assert len(compositions(served)) == 1


CLIENT = """
import sys, requests
requests.post(sys.argv[1], json={"name": "K", "type": "flux.1-composition",
    "concepts": [{"modelId": sys.argv[2], "scale": 0.5}]}, auth=(sys.argv[3], sys.argv[4]))
"""


@pytest.mark.parametrize(
    ("fault", "made"),
    [
        ({"pause": {"at": "before", "until": "go"}, "drop": "before"}, 0),
        ({"pause": {"at": "before", "until": "go"}}, 1),
        ({"pause": {"at": "after", "until": "go"}}, 1),
    ],
    ids=["before", "during", "after"],
)
def test_a_client_can_be_killed_around_the_effect(
    root: Path, fault: dict[str, Any], made: int
) -> None:
    with faulty(root, {"when": "POST /models", **fault}) as served:
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, f"{served.url}/models", *LORA, served.key, served.secret]
        )
        served.wait_for("paused")
        client.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        client.wait(PATIENCE)
        (root / "go").touch()
        served.wait_for("call")
        assert len(compositions(served)) == made


def test_a_server_ends_though_calls_are_held(root: Path) -> None:
    with faulty(root, {"pause": {"seconds": 3600}}, {"call": 2, "delay": 3600}) as served:
        callers = [threading.Thread(target=_quietly, args=(served,)) for _ in range(2)]
        for caller in callers:
            caller.start()
        served.wait_for("fault", 2)
        began = time.monotonic()
    for caller in callers:
        caller.join(PATIENCE)
    assert time.monotonic() - began < 5


def _quietly(served: Served) -> None:
    try:
        served.call("GET", "/models")
    except requests.RequestException:
        return


# --- when it fires -----------------------------------------------------------------------


def test_calls_are_counted_by_pattern_or_in_all(root: Path) -> None:
    faults: list[dict[str, Any]] = [
        {"when": "GET /models", "nth": 2, "times": 2, "status": 418},
        {"when": "* /models/*", "nth": 2, "status": 419},
        {"call": 8, "status": 420},
        {"when": "PUT **", "status": 421},
    ]
    asked = [
        ("GET", "/models", 200),  # 1
        ("GET", "/jobs", 200),  # 2
        ("GET", "/models", 418),  # 3
        ("GET", "/models/x", 404),  # 4
        ("GET", "/models", 418),  # 5
        ("DELETE", "/models/x", 419),  # 6
        ("GET", "/models", 200),  # 7
        ("GET", "/models", 420),  # 8
        ("GET", "/models/x/y", 404),  # 9
        ("PUT", "/models/x/y/z", 421),  # 10
    ]
    with faulty(root, *faults) as served:
        assert [served.call(method, path).status_code for method, path, _ in asked] == [
            status for _, _, status in asked
        ]
        assert served.faults == [1, 1, 2, 3, 4]
        assert served.calls == [f"{method} {path}" for method, path, _ in asked]
        log = [(event["n"], event["status"]) for event in served.events("call")]
        assert log == [(n, status) for n, (_, _, status) in enumerate(asked, 1)]


def test_the_command_takes_a_script_and_says_what_fired(root: Path) -> None:
    library = ("--library", str(root / "loras"))
    faults = [{"when": "POST /models", "drop": "after"}]
    with serving.process(root, *library, faults=faults) as served:
        with pytest.raises(requests.ConnectionError):
            post(served)
        assert len(compositions(served)) == 1
    assert served.faults == [1]
    assert served.calls == ["POST /models", "GET /models"]
    assert 'fault 1 at call 1: {"drop": "after"}' in served.lines


def test_calls_are_logged_without_a_script_too(root: Path) -> None:
    with faulty(root) as served:
        served.call("GET", "/models", auth=None)
        assert served.events("call") == [
            {"event": "call", "status": 401, "n": 1, "method": "GET", "path": "/v1/models"}
        ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid YAML"),
        ("drop: after", "not a list"),
        ("- 7", "not a mapping"),
        ("- dorp: after", "unknown key dorp"),
        ("- drop: now", "drop must be one of"),
        ("- {drop: after, error: after}", "can't be given together"),
        ("- {drop: after, body: truncated}", "can't be given together"),
        ("- {body: wrong}", "body must be one of"),
        ("- {nth: 0}", "nth must be"),
        ("- {delay: -1}", "delay must be"),
        ("- {pause: 7}", "pause needs"),
        ("- {pause: {seconds: 1, at: noon}}", "at must be one of"),
        ("- {pause: {seconds: 1, for: 2}}", "has no key for"),
        ("- {status: 200, headers: 7}", "headers"),
        ("- {status: 600}", "status must be"),
        ("- {when: 7}", "when"),
    ],
)
def test_a_script_that_makes_no_sense_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=words):
        read_script(file)


def test_a_script_that_isn_t_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        read_script(tmp_path / "none.yaml")
