"""Anything at all, sent to the served engine: no 5xx, no traceback, nothing outside the store."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import serving
from support.engine_files import PATIENCE, write_lora
from support.painter import Painter
from support.serving import BASE_MODEL
from support.shapes import check_answer, check_refusal
from support.sizes import size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.serving import Served

SETTINGS = settings(
    max_examples=size(150, 5000), deadline=None, suppress_health_check=list(HealthCheck)
)
TITLES = ("Ink Lines", "Pixel Dust")
LORA, OTHER = "model_OcPgWlOGDvBYHzuzxPA9gB", "model_Xuo32qTY015gSQeVur_lKS"


class Place:
    """A server with some models, and what lies beside its store."""

    def __init__(self, served: Served, root: Path) -> None:
        self.served = served
        self._root = root
        self._before = self._beside()
        assert served.loras() == [LORA, OTHER]

    def _beside(self) -> dict[str, bytes]:
        ours = (self._root / "state", self.served.log)
        return {
            path.relative_to(self._root).as_posix(): path.read_bytes()
            for path in self._root.rglob("*")
            if path.is_file() and not any(path.is_relative_to(own) for own in ours)
        }

    def check(self) -> None:
        assert self._beside() == self._before
        said = "\n".join(self.served.lines)
        self.served.lines.clear()
        assert "Traceback" not in said

    def send(
        self, method: bytes, target: bytes, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        """The status and JSON of one request, sent as these bytes."""
        host, _, port = self.served.url[7:-3].partition(":")
        head = b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
            client.sendall(method + b" " + target + b" HTTP/1.1\r\n" + head + b"\r\n" + body)
            answer = http.client.HTTPResponse(client, method=method.decode("ascii", "replace"))
            answer.begin()
            raw = answer.read()
            answer.close()
        return answer.status, json.loads(raw) if raw else {}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("fuzz")
    for seed in (1, 2):
        write_lora(root / "loras" / f"{seed}.safetensors", seed, title=TITLES[seed - 1])
    (root / "secret.txt").write_text("outside")
    with serving.thread(root, root / "loras", renderer=Painter()) as served:
        place = Place(served, root)
        yield place
        place.check()


def judge(place: Place, method: str, status: int, body: dict[str, Any]) -> None:
    """An answer of any kind is one that a client can read."""
    assert status < 500, body
    if method == "HEAD":
        return
    if status >= 400:
        check_refusal(body)
    else:
        check_answer(body)
    place.check()


# --- what is sent ------------------------------------------------------------------------

TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"])
PARTS = st.sampled_from(
    [
        "models",
        "jobs",
        "teams",
        "downloads",
        "assets",
        "content",
        "generate",
        "custom",
        BASE_MODEL,
        "get-bulk",
        "train",
        "action",
        "tags",
        "download",
        "limits",
        "..",
        ".",
        "",
        "team_compose",
        LORA,
        "model_x",
        "%2e%2e",
        "%00",
        "secret.txt",
    ]
) | TEXT.map(lambda text: quote(text.encode("utf-8", "surrogatepass"), safe=""))
PATHS = st.lists(PARTS, max_size=5).map(lambda parts: "/v1/" + "/".join(parts))
NAMES = st.sampled_from(
    [
        "type",
        "types",
        "status",
        "privacy",
        "pageSize",
        "paginationToken",
        "sortBy",
        "dryRun",
        "sortDirection",
        "createdAfter",
        "createdBefore",
        "collectionId",
        "projectId",
    ]
)
VALUES = TEXT | st.sampled_from(
    [
        "flux.1-lora",
        "trained",
        "deleted",
        "private",
        "public",
        "1",
        "500",
        "createdAt",
        "score",
        "asc",
        "desc",
        "2020-01-01T00:00:00.000Z",
        "p",
        "true",
        "api",
        "W1tdLFtdXQ",
        "-1",
        "1e3",
    ]
)
QUERIES = st.lists(st.tuples(NAMES | TEXT, VALUES), max_size=4).map(
    lambda pairs: urlencode(
        [(k.encode("utf-8", "replace"), v.encode("utf-8", "replace")) for k, v in pairs]
    )
)
IDS = st.sampled_from([LORA, OTHER, "model_x", "../x", ""])
SCALES = st.floats(-2.5, 2.5) | st.integers(-3, 3) | JSON
CONCEPTS = st.lists(
    st.fixed_dictionaries({"modelId": IDS, "scale": SCALES}, optional={"modelEpoch": JSON}),
    max_size=6,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "name": TEXT | JSON,
    "type": st.just("flux.1-composition") | JSON,
    "concepts": CONCEPTS | JSON,
    "shortDescription": TEXT | JSON,
    "collectionIds": st.lists(TEXT, max_size=1) | JSON,
    "parameters": st.dictionaries(st.sampled_from(["rank", "seed", "x"]) | TEXT, JSON, max_size=3)
    | JSON,
    "prompt": TEXT | JSON,
    "modelId": IDS | JSON,
    "loras": st.lists(IDS, max_size=8) | JSON,
    "lorasScale": st.lists(SCALES, max_size=4) | JSON,
    "numOutputs": st.integers(-1, 6) | JSON,
    "seed": st.integers() | JSON,
    "numInferenceSteps": st.integers(0, 51) | JSON,
    "guidance": st.floats(-1, 11) | JSON,
    "width": st.just(128) | JSON,
    "height": st.just(128) | JSON,
    "assetIds": st.lists(IDS | TEXT, max_size=4) | JSON,
    "modelIds": st.lists(IDS | TEXT, max_size=4) | JSON,
    "minimal": st.booleans() | JSON,
    "add": st.lists(TEXT, max_size=3) | JSON,
    "delete": st.lists(TEXT, max_size=3) | JSON,
    "strict": st.booleans() | JSON,
    "action": st.just("cancel") | JSON,
    "modelEpoch": JSON,
}
BODIES = (
    st.fixed_dictionaries({}, optional=FIELDS).map(lambda body: json.dumps(body).encode())
    | JSON.map(lambda body: json.dumps(body).encode())
    | st.binary(max_size=60)
)


@SETTINGS
@given(method=METHODS, path=PATHS, query=QUERIES, body=BODIES, typed=st.booleans())
def test_any_call_gets_an_answer_that_can_be_read(
    place: Place, method: str, path: str, query: str, body: bytes, typed: bool
) -> None:
    headers = _headers(place, body, "application/json" if typed else "text/plain")
    status, answer = place.send(method.encode(), f"{path}?{query}".encode(), body, headers)
    judge(place, method, status, answer)


@SETTINGS
@given(
    route=st.sampled_from(
        [
            "POST /models",
            "PUT /models/{}",
            "PUT /models/{}/tags",
            "PUT /models/{}/train",
            "POST /models/{}/train/action",
            "POST /models/{}/download",
            "POST /models/get-bulk",
            "GET /models/{}",
            "DELETE /models/{}",
            "GET /models",
            "GET /jobs",
            f"POST /generate/custom/{BASE_MODEL}",
            "POST /generate/custom/{}",
            "POST /jobs/{}/action",
            "POST /assets/get-bulk",
            "GET /assets/{}",
            "GET /assets/{}/content",
        ]
    ),
    query=QUERIES,
    body=st.fixed_dictionaries({}, optional=FIELDS),
    fresh=st.booleans(),
)
def test_any_body_on_a_composition_that_is_there(
    place: Place, route: str, query: str, body: dict[str, Any], fresh: bool
) -> None:
    method, _, path = route.partition(" ")
    id = place.served.create("K", 0.5) if fresh and "{}" in path else LORA
    data = json.dumps(body).encode()
    headers = _headers(place, data, "application/json")
    target = f"/v1{path.format(id)}?{query}".encode()
    judge(place, method, *place.send(method.encode(), target, data, headers))
    if id != LORA:
        place.served.call("DELETE", f"/models/{id}")


@SETTINGS
@given(
    method=st.binary(max_size=10).filter(lambda raw: not set(raw) & set(b"\r\n")),
    target=st.binary(max_size=40).filter(lambda raw: not set(raw) & set(b"\r\n")),
    name=st.sampled_from(["Host", "Authorization", "Content-Type", "Range", "X-A"]),
    value=TEXT.filter(lambda text: not set(text) & set("\r\n") and text.isascii()),
)
def test_any_bytes_in_place_of_a_request(
    place: Place, method: bytes, target: bytes, name: str, value: str
) -> None:
    headers = {**_headers(place, b"", "application/json"), name: value}
    status, answer = place.send(method, target, b"", headers)
    judge(place, "HEAD" if not answer else "GET", status, answer)


def _headers(place: Place, body: bytes, kind: str) -> dict[str, str]:
    pair = f"{place.served.key}:{place.served.secret}".encode()
    return {
        "Host": "localhost",
        "Authorization": "Basic " + base64.b64encode(pair).decode(),
        "Content-Type": kind,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
