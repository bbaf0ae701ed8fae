"""The socket, and waitress behind it: the only place that knows how HTTP is read.

`compose serve` makes a `Server`, runs it and closes it; tests do so in a thread.
"""

from __future__ import annotations

import json
import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from waitress import wasyncore  # type: ignore[import-untyped]
from waitress.channel import ClientDisconnected, HTTPChannel  # type: ignore[import-untyped]
from waitress.server import create_server  # type: ignore[import-untyped]
from waitress.task import ErrorTask  # type: ignore[import-untyped]

from composer.errors import TargetError, UsageError
from composer.server.app import LARGEST_BODY, create_app
from composer.server.auth import is_loopback
from composer.server.testing.fault_middleware import FaultLog, FaultMiddleware
from composer.server.testing.fault_script import Script
from composer.server.testing.replica_lag import ReplicaLag

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from composer.server.auth import Credentials
    from composer.targets.local.service import Engine

THREADS = 16
HEADERS = 64 * 1024  # bytes
# What is somewhat too large is read all the same, since who still sends hears no answer.
LARGEST_READ = 8 * LARGEST_BODY
BEAT = 0.5  # seconds


class _Refusal(ErrorTask):  # type: ignore[misc]
    """A request that is no HTTP, or too large: answered as all refusals are."""

    def execute(self) -> None:
        error = self.request.error
        code = 400 if error.code == 501 else error.code  # an encoding that we don't speak
        body = json.dumps({"error": f"{error.reason}: {error.body}"}).encode()
        self.status = f"{code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):  # type: ignore[misc]
    """A connection."""

    error_task_class = _Refusal


class Server:
    """The door of one engine, bound to a port. Run it in one thread, stop it from any."""

    def __init__(
        self,
        engine: Engine,
        credentials: Credentials,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        script: Script | None = None,
        fault_log: Path | None = None,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Bind; port 0 takes any that is free. `log` is given a line for each call.

        Raises `UsageError` for a fault script on an address that others reach, `TargetError` if
        the address can't be bound or the fault log not be written.
        """
        if script is not None and not is_loopback(host):
            raise UsageError("--fault-script works on loopback addresses only", hint="drop --host")
        self._socket = _bind(host, port)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self._faults = _fault_log(fault_log)
        replica_lag = ReplicaLag()
        self._middleware = FaultMiddleware(
            create_app(engine, credentials, host=host, replica_lag=replica_lag, log=log),
            script=script or Script(),
            faults=self._faults,
            replica_lag=replica_lag,
            records=engine.store.records,
            log=log,
            dropped=ClientDisconnected,
        )
        self._map: dict[int, Any] = {}
        self._server = _listen(self._middleware, self._socket, self._map)
        self._stopping = False

    @property
    def url(self) -> str:
        """The base URL, with `/v1`; for a server bound to all addresses, the local one."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"

    @property
    def is_private(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)

    def run(self) -> None:
        """Serve until `stop` is called, or an interrupt is raised in this thread."""
        try:
            while not self._stopping:
                wasyncore.loop(timeout=BEAT, map=self._map, count=1)
        finally:
            self._close()

    def stop(self) -> None:
        """Let `run` end soon."""
        self._stopping = True
        with suppress(OSError):  # it may have ended already
            self._server.pull_trigger()

    def _close(self) -> None:
        """Stop listening, let running calls end (up to 5 s), and close the connections."""
        self._middleware.close()
        self._server.task_dispatcher.shutdown()
        self._server.close()
        wasyncore.close_all(self._map)
        self._faults.close()


def _listen(middleware: FaultMiddleware, bound: socket.socket, map: dict[int, Any]) -> Any:
    # Its own words are about sockets; ours, and the call log, are about calls.
    for name in ("waitress", "waitress.queue"):
        logging.getLogger(name).setLevel(logging.ERROR)
    server = create_server(
        middleware,
        map=map,
        sockets=[bound],
        threads=THREADS,
        ident="compose",
        max_request_body_size=LARGEST_READ,
        max_request_header_size=HEADERS,
        connection_limit=500,
        log_socket_errors=False,
    )
    server.channel_class = _Channel
    return server


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise TargetError(f"there is no address {host}: {error.strerror or error}") from error
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows: else two could share the port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(1024)
    except OSError as error:
        bound.close()
        raise TargetError(
            f"{host}:{port} can't be bound: {error.strerror or error}",
            hint="another program may have that port: give another --port",
        ) from error
    return bound


def _fault_log(file: Path | None) -> FaultLog:
    try:
        return FaultLog(file)
    except OSError as error:
        raise TargetError(f"{file} can't be written: {error.strerror or error}") from error
