"""A forge's API on a real socket: the base of `GitHubApi` and `GitLabApi`.

A subclass answers in methods marked with `@on("GET", pattern)`. `seen` has every request.
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
class Request:
    """A request; `groups` are those of the pattern that its path matched."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    token: str
    groups: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


class ErrorAnswer(Exception):
    """Raise this to answer with another status than 200."""

    def __init__(self, status: int, message: str = "", location: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.location = status, message, location


def on(method: str, pattern: str) -> Callable[[Any], Any]:
    """Let a method answer the requests whose whole path matches the pattern."""

    def mark(function: Any) -> Any:
        function.answers = (method, re.compile(pattern))
        return function

    return mark


class ApiServer:
    """Use it with `with`; `url` is its base."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.forbidden: set[str] = set()  # HTTP methods to answer with 403
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
        """The requests that change something: `POST /repos/...`, ..."""
        return [a.line for a in self.seen if a.method != "GET" and a.path != "/graphql"]

    def answer(self, request: Request) -> Any:
        self.seen.append(request)
        if request.method in self.forbidden and request.path != "/graphql":
            raise ErrorAnswer(403, "Resource not accessible by integration")
        for method, pattern, function in self._answers:
            match = pattern.fullmatch(request.path)
            if method == request.method and match:
                groups = match.groups()
                return function(Request(**{**vars(request), "groups": groups}))
        raise ErrorAnswer(404, "Not Found")

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def page(items: Sequence[Any], request: Request) -> list[Any]:
    """The page that the request asks for, at most a hundred items."""
    size, number = (int(request.query.get(key, d)) for key, d in (("per_page", 30), ("page", 1)))
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
            answer = self.server.api.answer(Request(self.command, parts.path, query, body, token))
        except ErrorAnswer as error:
            self._send(error.status, {"message": error.message}, error.location)
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
        """Print nothing: tests look at `seen`."""
