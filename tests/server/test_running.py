"""The socket and its lifetime: Host, malformed HTTP, restarts, kills and the log."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import requests
from support import serving
from support.cli import compose
from support.engine_files import PATIENCE, write_lora
from support.serving import basic
from support.shapes import check_refusal, refused

from composer.server.connections import HEADERS

if TYPE_CHECKING:
    from pathlib import Path

    from support.serving import Served


POSIX = os.name == "posix"


def test_a_foreign_host_is_refused_before_anything_else(served: Served) -> None:
    for host in ("evil.example", "evil.example:80", "", "127.0.0.1.evil.example", "[::2]", "::1]"):
        answer = served.call("GET", "/models", auth=None, headers={"Host": host})
        assert "Host" in refused(answer, 421)
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:8321", "localhost."):
        assert served.call("GET", "/models", headers={"Host": host}).status_code == 200


def test_no_page_of_another_origin_may_read_it(served: Served) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    for method in ("GET", "OPTIONS"):
        answer = served.call(method, "/models", headers=headers)
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert answer.status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/",
        "/v1//models",
        "/v1/models/",
        "/v1/models/..%2f..%2fserve.json",
        "/v1/models/%2e%2e",
        "/v1/models/model_x%00",
        "/v1/downloads/",
        "/v1/static/x",
        "/.compose/serve.json",
        "/v1/../.compose/serve.json",
    ],
)
def test_there_is_nothing_but_the_api(served: Served, path: str) -> None:
    connection = http.client.HTTPConnection(served.url[7:-3], timeout=PATIENCE)
    connection.request("GET", path, headers=basic(served.key, served.secret))
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == 404, body
    assert answer.getheader("Location") is None
    check_refusal(json.loads(body))


def test_links_lead_to_results_alone(served: Served) -> None:
    for path in ("/downloads/job_x/y", "/downloads/%2e%2e/y", "/downloads/job_x/%F0%9F%98%80"):
        refused(served.call("GET", path, auth=None), 403)


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: ".ljust(HEADERS, b"x"),
        b"GET /v1/models HTTP/1.0\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_the_same_envelope(served: Served, request_: bytes) -> None:
    host, _, port = served.url[7:-3].partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
        client.sendall(request_)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    status = int(answer.split()[1])
    assert 400 <= status < 500
    check_refusal(json.loads(answer.partition(b"\r\n\r\n")[2]))


def test_it_stops_cleanly_and_starts_again_with_all_it_had(root: Path) -> None:
    with serving.process(root) as served:
        id = served.create("Knight", 0.5)
        served.ok("PUT", f"/models/{id}/tags", {"add": ["x"]})
        served.ok("PUT", f"/models/{id}/train")
        trained = served.finished(id)
        job = served.ok("POST", f"/models/{id}/download")["jobId"]
        url = served.ok("GET", f"/jobs/{job}")["job"]["metadata"]["output"]["url"]
        status = served.stop()
        if POSIX:  # elsewhere there is no signal that it could answer
            assert (status, served.lines[-1]) == (0, "stopped")
        served.start()
        assert served.ok("GET", f"/models/{id}")["model"] == trained
        assert requests.get(url, timeout=PATIENCE).status_code == 200
    assert not [line for line in served.lines if "Traceback" in line]


def test_a_killed_server_ends_its_jobs_when_it_is_back(root: Path) -> None:
    with serving.process(root) as served:
        ids = [served.create(f"K{number}", 0.1 * (number + 1)) for number in range(5)]
        for id in ids:
            served.ok("PUT", f"/models/{id}/train")
        served.kill()
        served.start()
        assert {served.finished(id)["status"] for id in ids} == {"trained"}


def test_the_log_is_a_line_for_each_request_without_secrets(root: Path) -> None:
    with serving.process(root) as served:
        served.call("GET", "/models", params={"projectId": "p", "secret": "in_query"})
        served.call("GET", "/models/%0a%1b[31mred")
        served.call("POST", "/models", {"name": "in_body"})
    lines = [line for line in served.lines if line.endswith(" ms")]
    assert len(lines) == 3
    assert lines[0].startswith("GET /v1/models 200 ")
    assert lines[1].startswith("GET /v1/models/\\n\\x1b[31mred 404 ")
    assert lines[2].startswith("POST /v1/models 400 ")
    output = "\n".join(served.lines) + served.log.read_text()
    for secret in (served.key, served.secret, "in_query", "in_body", "Basic"):
        assert secret not in output
    assert base64.b64encode(f"{served.key}:{served.secret}".encode()).decode() not in output


def test_fault_injection_is_imported_only_where_it_is_asked_for(root: Path) -> None:
    imported = {}
    for options in ((), ("--fault-log", "faults.jsonl")):
        server = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "composer", "serve", "--port=0", *options],
            cwd=root,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        assert server.stdout.readline().startswith("http://127.0.0.1:")
        server.terminate()
        imported[options] = server.communicate(timeout=PATIENCE)[1]
    without, with_log = imported.values()
    assert "composer.server.running" in without
    assert "composer.server.testing" not in without
    assert "composer.server.testing" in with_log


def test_the_library_is_the_one_that_is_said_or_near(root: Path, tmp_path: Path) -> None:
    write_lora(tmp_path / "other" / "pixel.safetensors", 2, title="Pixel Dust")
    for options, env in (
        ((), {}),
        (("--library", "other"), {}),
        ((), {"COMPOSE_LIBRARY": "other"}),
    ):
        with serving.process(root, *options, env=env) as served:
            (model,) = served.ok("GET", "/models")["models"]
        assert model["name"] == ("Pixel Dust" if options or env else "Ink Lines")
    (root / "recipes").rename(root / "moved")
    (root / "moved" / "loras").rename(root / "loras")
    with serving.process(root) as served:
        assert len(served.loras()) == 1


def test_a_port_that_is_taken_and_options_that_can_t_be_are_said(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = compose("serve", "--port", str(taken.getsockname()[1]), at=root)
    assert (ran.status, "cannot listen on" in ran.err) == (1, True)
    for options, words in (
        (("--library", "nowhere"), "does not exist"),
        (("--host", "0.0.0.0", "--fault-script", "faults.yaml"), "loopback"),
    ):
        (root / "faults.yaml").write_text("[]")
        ran = compose("serve", "--port", "0", *options, at=root)
        assert (ran.status, words in ran.err) == (64, True), ran.err
    ran = compose("serve", "--port", "0", "--host", "nowhere.invalid", at=root)
    assert ran.status == 1
