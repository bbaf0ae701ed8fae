"""A tiny real HTTP server for tests of the client: real sockets, scripted answers.

A test says what comes next (`say`), or gives a function (`answer`), and looks at what was asked.
`Clock` is time for a client that must not really wait.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from support.model_types import COMPOSITION

from composer.targets.http.session import Pace, SessionOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from email.message import Message


@dataclass(frozen=True)
class Seen:
    """A request as it came over the wire."""

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    raw: bytes
    client: tuple[str, int]

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


@dataclass(frozen=True)
class Reply:
    """An answer: a body as JSON, or as the bytes given.

    `drop`: break the connection `before` any answer, or in the middle of the `body`. `drip`: send
    the first of these as it is, then the second every 20 ms, for as long as somebody reads.
    """

    body: object = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: str = ""
    delay: float = 0.0
    drip: tuple[bytes, bytes] | None = None

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def raw(id: str, **more: object) -> dict[str, Any]:
    """A model as the vendor's strict client demands it, and then some."""
    return {
        "id": id,
        "type": COMPOSITION,
        "status": "trained",
        "name": id,
        "createdAt": "2026-01-01T00:00:00.000Z",
        "updatedAt": "2026-01-01T00:00:00.000Z",
        "privacy": "private",
        "tags": [],
        "source": "scenario",
        "custom": True,
        **more,
    }


def listed(*raws: dict[str, Any], token: str | None = None) -> Reply:
    """A page of models."""
    return Reply({"models": list(raws)} | ({"nextPaginationToken": token} if token else {}))


class Clock:
    """Time that passes only while somebody sleeps; `chance` is how the dice fall."""

    def __init__(self, chance: float = 0.0) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []
        self.pace = Pace(clock=lambda: self.now, chance=lambda: chance)

    @property
    def options(self) -> SessionOptions:
        return SessionOptions(sleep=self.sleep, pace=self.pace)

    def sleep(self, seconds: float) -> None:
        if seconds:  # none: only to look whether to stop
            self.slept.append(round(seconds, 6))
            self.now += seconds


NOTHING = Reply({"message": "nothing was scripted for this"}, 418)


class WireServer:
    """Answers in the order of the script; beyond its end with 418. Use it with `with`."""

    def __init__(self, *script: Reply) -> None:
        self.script = list(script)
        self.seen: list[Seen] = []
        self.answer: Callable[[Seen], Reply] = lambda seen: self._next()
        self._lock = threading.Lock()
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.wire = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))

    def say(self, *replies: Reply) -> None:
        self.script += replies

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def lines(self) -> list[str]:
        """What was asked: `GET /v1/models`, ..."""
        return [seen.line for seen in self.seen]

    def reply(self, seen: Seen) -> Reply:
        with self._lock:
            self.seen.append(seen)
        return self.answer(seen)

    def _next(self) -> Reply:
        with self._lock:
            return self.script.pop(0) if self.script else NOTHING

    def __enter__(self) -> WireServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    wire: WireServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    timeout = 5
    wbufsize = -1  # one packet an answer: two would wait for each other

    def _any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        reply = self.server.wire.reply(
            Seen(self.command, parts.path, query, self.headers, raw, self.client_address)
        )
        time.sleep(reply.delay)
        if reply.drop == "before":
            self.close_connection = True
            return
        if reply.drip:
            self._drip(*reply.drip)
            return
        self._send(reply)

    def _drip(self, first: bytes, then: bytes) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.sendall(first)
            while True:
                time.sleep(0.02)
                self.connection.sendall(then)

    do_GET = do_POST = do_PUT = do_DELETE = do_CONNECT = _any

    def _send(self, reply: Reply) -> None:
        content = reply.content
        self.send_response_only(reply.status, "Said")
        always = {"Content-Length": str(len(content)), "Date": self.date_time_string()}
        for name, value in {**always, **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if reply.drop == "body":
            content, self.close_connection = content[: len(content) // 2], True
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Tests look at `seen`, not at stderr."""
