"""The JSON API client, against a real socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.api_server import ApiServer, ErrorAnswer, Request, on, page

from composer.forge import api as client
from composer.forge.api import Api, ForgeError, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = {"Authorization": "Bearer secret"}


class Server(ApiServer):
    """Answers with what the test puts into `answers` and `failures`."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[ErrorAnswer] = []
        self.answer_of_thing: Any = {"value": 1}

    @on("GET", "/thing")
    def get(self, request: Request) -> Any:
        if self.failures:
            raise self.failures.pop(0)
        return self.answer_of_thing

    @on("POST", "/thing")
    def post(self, request: Request) -> Any:
        return self.get(request)

    @on("GET", "/list")
    def listing(self, request: Request) -> Any:
        return page([{"n": n} for n in range(230)], request)

    @on("GET", "/file")
    def file(self, request: Request) -> Any:
        raise ErrorAnswer(302, location=f"{self.url}/elsewhere")

    @on("GET", "/unsafe")
    def unsafe(self, request: Request) -> Any:
        raise ErrorAnswer(302, location="file:///etc/passwd")

    @on("GET", "/elsewhere")
    def elsewhere(self, request: Request) -> Any:
        return b"x" * 100


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(client, "_PAUSES", (0.0, 0.0))
    with Server() as running:
        yield running


@pytest.fixture
def api(server: Server) -> Api:
    return Api(server.url, TOKEN)


def test_a_call_sends_the_token_the_query_and_the_body(server: Server, api: Api) -> None:
    assert api.call("POST", "/thing", {"a": 1}, q="x&y") == {"value": 1}
    (request,) = server.seen
    assert (request.token, request.query, request.body) == ("Bearer secret", {"q": "x&y"}, {"a": 1})


def test_a_listing_is_read_page_by_page(server: Server, api: Api) -> None:
    assert [item["n"] for item in api.pages("/list")] == [*range(230)]
    assert len(server.seen) == 3


def test_a_read_is_tried_three_times_and_a_write_once(server: Server, api: Api) -> None:
    server.failures = [ErrorAnswer(502), ErrorAnswer(503)]
    assert api.call("GET", "/thing") == {"value": 1}
    server.failures = [ErrorAnswer(502), ErrorAnswer(503)]
    with pytest.raises(Refusal, match="POST /thing: 502"):
        api.call("POST", "/thing")
    assert len(server.seen) == 4


def test_a_refusal_is_not_tried_again_and_is_safe_to_print(server: Server, api: Api) -> None:
    server.failures = [ErrorAnswer(403, "no\x1b[31m\n::error::x" + "y" * 1000)]
    with pytest.raises(Refusal) as caught:
        api.call("GET", "/thing")
    message = str(caught.value)
    assert message.startswith("GET /thing: 403: no\\x1b[31m ::error::x")
    assert (len(message) < 400, len(server.seen)) == (True, 1)


def test_a_server_that_is_gone_is_one_line(server: Server) -> None:
    nobody = Api("http://127.0.0.1:1", {})
    with pytest.raises(ForgeError, match="GET /thing: no answer: "):
        nobody.call("GET", "/thing")


def test_only_a_download_follows_a_redirect_and_without_the_token(server: Server, api: Api) -> None:
    with pytest.raises(Refusal, match="GET /file: 302"):
        api.call("GET", "/file")
    assert api.download("/file", 100) == b"x" * 100
    assert [request.token for request in server.seen] == ["Bearer secret", "Bearer secret", ""]
    with pytest.raises(ForgeError, match="more than 99 bytes"):
        api.download("/file", 99)
    with pytest.raises(ForgeError, match="not https"):
        api.download("/unsafe", 99)


def test_an_answer_that_is_nested_without_end_is_refused(server: Server, api: Api) -> None:
    server.answer_of_thing = b"[" * 200_000
    with pytest.raises(ForgeError, match="the answer is not JSON"):
        api.call("GET", "/thing")
