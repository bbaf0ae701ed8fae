"""Waitress behind the socket: how HTTP is read, and how much of it at a time.

`running` listens with it. What is beyond a limit is not left waiting: a thread of its own answers
it at once with 429 and `Retry-After`, before the app, so it has had no effect.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from waitress.channel import HTTPChannel  # type: ignore[import-untyped]
from waitress.server import create_server  # type: ignore[import-untyped]
from waitress.task import ErrorTask, ThreadedTaskDispatcher  # type: ignore[import-untyped]
from waitress.utilities import Error  # type: ignore[import-untyped]

from composer.server.app import LARGEST_BODY

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

HEADERS = 64 * 1024  # bytes
# A body that is somewhat too large is read all the same: a client that still sends reads no answer.
LARGEST_READ = 8 * LARGEST_BODY
IDLE = 120  # seconds after which a connection without requests is closed
SURPLUS = 50  # connections beyond the limit that are accepted, to be told so
SURPLUS_IDLE = 10  # seconds after which one of those is closed if it sends nothing
CHECK_INTERVAL = 5  # seconds between two looks for idle connections
FILES = 64  # open files that the rest of the program may need


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a server does at a time.

    One client has one request at a time on each connection, so only more than `threads + waiting`
    busy clients are asked to wait.
    """

    threads: int = 16
    waiting: int = 256  # requests that wait for a thread
    connections: int = 400  # as far as the process may open so many files
    retry_after: int = 1  # seconds

    @property
    def most_connections(self) -> int:
        """The connections that are served: each is an open file."""
        if sys.platform == "win32":
            return self.connections
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if files == resource.RLIM_INFINITY:
            return self.connections
        return max(1, min(self.connections, files - FILES - SURPLUS))


class _TooMany(Error):  # type: ignore[misc]
    code = 429
    reason = "Too Many Requests"


class _Refusal(ErrorTask):  # type: ignore[misc]
    """A request that is not HTTP, too large, or one too many: answered as all refusals are."""

    def execute(self) -> None:
        error = self.request.error
        code = 400 if error.code == 501 else error.code  # an encoding that we don't read
        words = f"{error.reason}: {error.body}"
        body = json.dumps({"reason": words, "error": words}).encode()
        self.status = f"{code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        if code == _TooMany.code:
            self._ask_to_wait()
        else:
            self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)

    def _ask_to_wait(self) -> None:
        server, request = self.channel.server, self.request
        self.response_headers.append(("Retry-After", str(server.limits.retry_after)))
        if self.channel.is_surplus:
            self.set_close_on_finish()
        server.note_refused({"REQUEST_METHOD": request.command, "PATH_INFO": request.path})


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection; `is_surplus`: it is beyond the limit, and only told so."""

    error_task_class = _Refusal

    def __init__(self, server: Any, *args: Any, **more: Any) -> None:
        super().__init__(server, *args, **more)
        self.is_surplus = len(server.active_channels) > server.limits.most_connections
        if self.is_surplus:
            self.last_activity = time.time() - IDLE + SURPLUS_IDLE


class _Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]
    """Gives requests to threads; those that there is no room for, to one that refuses them."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._limits = limits
        self._refusing = ThreadedTaskDispatcher()
        self._refusing.set_thread_count(1)
        self.set_thread_count(limits.threads)

    def add_task(self, channel: Any) -> None:
        request = channel.requests[0]
        if channel.is_surplus:
            request.error = request.error or _TooMany("this server has no more connections")
        elif len(self.queue) >= self._limits.waiting:
            request.error = request.error or _TooMany("this server is busy; try again later")
        if request.error and not channel.total_outbufs_len:  # it waits for nothing
            self._refusing.add_task(channel)
        else:
            super().add_task(channel)

    def shutdown(self, cancel_pending: bool = True, timeout: int = 5) -> bool:
        self._refusing.shutdown(cancel_pending, timeout)
        return bool(super().shutdown(cancel_pending, timeout))


def listen(
    app: Callable[..., Any],
    bound: socket.socket,
    map: dict[int, Any],
    limits: Limits,
    note_refused: Callable[[dict[str, Any]], None],
) -> Any:
    """Waitress on this socket; `note_refused` is given each request that is told to wait."""
    # Its own messages are about sockets; those of the app are about requests.
    for name in ("waitress", "waitress.queue"):
        logging.getLogger(name).setLevel(logging.ERROR)
    server = create_server(
        app,
        map=map,
        _dispatcher=_Dispatcher(limits),
        sockets=[bound],
        ident="compose",
        max_request_body_size=LARGEST_READ,
        max_request_header_size=HEADERS,
        connection_limit=limits.most_connections + SURPLUS,
        channel_timeout=IDLE,
        cleanup_interval=CHECK_INTERVAL,
        log_socket_errors=False,
    )
    server.channel_class = _Channel
    server.limits, server.note_refused = limits, note_refused
    return server
