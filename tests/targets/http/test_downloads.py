"""Files from signed URLs, on a real socket: no credentials, few retries, limits, and no trace."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

import pytest
from support.wire_server import Reply, WireServer

from composer.errors import TargetError, Unreachable
from composer.targets.http.address import address
from composer.targets.http.downloads import Downloads, Expired, SignedUrl
from composer.targets.http.session import SessionOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "Signature=c2VjcmV0"


@pytest.fixture
def server() -> Iterator[WireServer]:
    with WireServer() as server:
        yield server


@pytest.fixture
def downloads(server: WireServer) -> Iterator[Downloads]:
    made = Downloads(address(server.url), SessionOptions(deadline=1.0))
    yield made
    made.close()


def signed(server: WireServer, path: str = "/image.png") -> SignedUrl:
    return SignedUrl(f"{server.url}{path}?{SECRET}")


def test_a_file_is_fetched_without_credentials(server: WireServer, downloads: Downloads) -> None:
    server.say(Reply(b"\x89PNG", headers={"Set-Cookie": "a=b"}), Reply(b"again"))
    assert downloads.fetch(signed(server), limit=10) == b"\x89PNG"
    assert downloads.fetch(signed(server), limit=10) == b"again"
    for seen in server.seen:
        assert "Authorization" not in seen.headers and "Cookie" not in seen.headers
        assert f"{seen.query}" == "{'Signature': 'c2VjcmV0'}"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"", 500),
        Reply(b"", 503, {"Retry-After": "0"}),
        Reply(b"", 429),
        Reply(b"", 408),
        Reply(b"file", drop="before"),
        Reply(b"file", drop="body"),
        Reply(b"file", delay=1.3),
    ],
)
def test_what_may_pass_is_tried_again(
    server: WireServer, downloads: Downloads, reply: Reply
) -> None:
    server.say(reply, Reply(b"file"))
    assert downloads.fetch(signed(server), limit=10) == b"file"
    assert len(server.seen) == 2


def test_not_for_ever(server: WireServer, downloads: Downloads) -> None:
    server.say(*[Reply(b"", 500)] * 20)
    with pytest.raises(Unreachable, match=r"the download at 127.0.0.1:.*the server failed: 500"):
        downloads.fetch(signed(server), limit=10)
    assert len(server.seen) == 5


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_expired_url_is_an_error_of_its_own(
    server: WireServer, downloads: Downloads, status: int
) -> None:
    server.say(Reply(b"", status))
    with pytest.raises(Expired, match=f"{status}, its address is no longer valid"):
        downloads.fetch(signed(server), limit=10)
    assert len(server.seen) == 1


def test_more_bytes_than_the_limit_are_not_read(server: WireServer, downloads: Downloads) -> None:
    server.say(Reply(b"x" * 100_001), Reply(b"x" * 100_000))
    with pytest.raises(TargetError, match="it has more than 100,000 bytes"):
        downloads.fetch(signed(server), limit=100_000)
    assert len(downloads.fetch(signed(server), limit=100_000)) == 100_000


def test_an_endless_file_ends_at_the_deadline(server: WireServer, downloads: Downloads) -> None:
    endless = Reply(drip=(b"HTTP/1.1 200 OK\r\n\r\n", b"x"))
    server.say(endless, Reply(b"file"))
    assert downloads.fetch(signed(server), limit=10**6) == b"file"


def test_redirects_are_followed_a_few_times(server: WireServer, downloads: Downloads) -> None:
    onward = Reply(b"", 302, {"Location": f"/v1/next.png?{SECRET}"})
    server.say(onward, onward, Reply(b"file"))
    assert downloads.fetch(signed(server), limit=10) == b"file"
    assert server.lines[-1] == "GET /v1/next.png"
    server.say(*[onward] * 9)
    with pytest.raises(TargetError, match="redirected more than 3 times"):
        downloads.fetch(signed(server), limit=10)


def test_http_is_for_a_target_on_this_machine_alone(server: WireServer) -> None:
    remote = Downloads(address("https://example.com/v1"), SessionOptions())
    with pytest.raises(TargetError, match="offered without https: not downloaded"):
        remote.fetch(signed(server), limit=10)
    assert server.seen == []


def test_the_url_is_in_no_error_and_no_log(
    server: WireServer, downloads: Downloads, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in what led to an error either, nor in the HTTP client's log."""
    caplog.set_level(logging.DEBUG)
    server.say(Reply(b"", 403), *[Reply(b"", drop="before")] * 5, Reply(b"", 418))
    url, shown = signed(server), []
    for _ in range(3):
        with pytest.raises(TargetError) as told:
            downloads.fetch(url, limit=10)
        shown += ["".join(traceback.format_exception(told.value)), repr(told.value)]
    with WireServer() as gone:
        nowhere = signed(gone)
    with pytest.raises(TargetError) as told:
        downloads.fetch(nowhere, limit=10)
    shown += ["".join(traceback.format_exception(told.value)), caplog.text, repr(url), str(url)]
    for text in shown:
        assert "c2VjcmV0" not in text and "image.png" not in text
    logging.getLogger("urllib3.connectionpool").debug("others are still logged")
    assert "others are still logged" in caplog.text
