"""A forge's API on a real socket, for tests: `GitHubApi` in `github_api`, `GitLabApi` beside it.

A subclass answers by methods with `@on("GET", pattern)`; what was asked is in `seen`.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Asked:
    """A request: its query, its body, its token, and what its path's pattern caught."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    token: str
    caught: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


class Denied(Exception):
    """An answer that is no 200."""

    def __init__(self, status: int, message: str = "", location: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.location = status, message, location


def on(method: str, pattern: str) -> Callable[[Any], Any]:
    """Mark a method as the answer to requests whose whole path matches."""

    def mark(function: Any) -> Any:
        function.answers = (method, re.compile(pattern))
        return function

    return mark


class ApiServer:
    """Use it with `with`; `url` is its base."""

    def __init__(self) -> None:
        self.seen: list[Asked] = []
        self.forbidden: set[str] = set()  # methods that the token may not use
        self._answers = [
            (*attribute.answers, getattr(self, name))
            for name, attribute in vars(type(self)).items()
            if hasattr(attribute, "answers")
        ]
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.api = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def writes(self) -> list[str]:
        """What was asked to be changed: `POST /repos/...`, ..."""
        return [a.line for a in self.seen if a.method != "GET" and a.path != "/graphql"]

    def answer(self, asked: Asked) -> Any:
        self.seen.append(asked)
        if asked.method in self.forbidden and asked.path != "/graphql":
            raise Denied(403, "Resource not accessible by integration")
        for method, pattern, function in self._answers:
            match = pattern.fullmatch(asked.path)
            if method == asked.method and match:
                groups = match.groups()
                return function(Asked(**{**vars(asked), "caught": groups}))
        raise Denied(404, "Not Found")

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def page(items: Sequence[Any], asked: Asked) -> list[Any]:
    """The page that was asked for, at most a hundred items."""
    size, number = (int(asked.query.get(key, d)) for key, d in (("per_page", 30), ("page", 1)))
    size = min(size, 100)
    return list(items[(number - 1) * size : number * size])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    api: ApiServer


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _any(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        token = self.headers.get("Authorization") or self.headers.get("PRIVATE-TOKEN") or ""
        body = json.loads(raw) if raw else None
        query = dict(parse_qsl(parts.query))
        try:
            answer = self.server.api.answer(Asked(self.command, parts.path, query, body, token))
        except Denied as denied:
            self._send(denied.status, {"message": denied.message}, denied.location)
        else:
            self._send(200, answer)

    do_GET = do_POST = do_PUT = do_PATCH = _any

    def _send(self, status: int, answer: Any, location: str = "") -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Tests look at `seen`, not at stderr."""
