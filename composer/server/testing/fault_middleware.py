"""The outermost layer: counts and logs every call, and does to it what the fault script says.

A WSGI application around Flask's. What a call did is known here, answered or not.
"""

from __future__ import annotations

import io
import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from composer.server.testing.fault_script import AFTER, BEFORE, Script
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from composer.server.testing.fault_script import Fault
    from composer.server.testing.replica_lag import ReplicaLag
    from composer.targets.local.records import Record

Environ: TypeAlias = "dict[str, Any]"
StartResponse: TypeAlias = "Callable[..., Any]"
App: TypeAlias = "Callable[[Environ, StartResponse], Iterable[bytes]]"

TICK = 0.005  # seconds between two looks for the file that ends a pause
JSON = [("Content-Type", "application/json")]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that was made, and not yet sent."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


class FaultLog:
    """A file of JSON lines: each call (`n`, `method`, `path`, `status`), each fault that fired."""

    def __init__(self, file: Path | None) -> None:
        self._file = file.open("a", encoding="utf-8") if file else None
        self._lock = threading.Lock()

    def write(self, event: str, **fields: object) -> None:
        if self._file:
            with self._lock:
                self._file.write(json.dumps({"event": event, **fields}) + "\n")
                self._file.flush()

    def close(self) -> None:
        if self._file:
            self._file.close()


class FaultMiddleware:
    """Around `app`; `dropped` is the exception that makes the server close a connection."""

    def __init__(
        self,
        app: App,
        *,
        script: Script,
        faults: FaultLog,
        replica_lag: ReplicaLag,
        records: Callable[[], Sequence[Record]],
        log: Callable[[str], None],
        dropped: type[Exception],
    ) -> None:
        self._app = app
        self._script = script
        self._faults = faults
        self._replica_lag = replica_lag
        self._records = records
        self._log = log
        self._dropped = dropped
        self._closing = threading.Event()

    def close(self) -> None:
        """End all pauses."""
        self._closing.set()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        call = _Note(environ)
        call.n, met = self._script.arrive(call.method, call.path.removeprefix("/v1"))
        if met is None:
            return self._app(environ, self._noting(call, start_response))
        fault = self._script.faults[met]
        self._faults.write("fault", fault=met + 1, what=dict(fault.what), **call.fields)
        self._log(f"fault {met + 1} at call {call.n}: {json.dumps(dict(fault.what))}")
        reply = self._suffered(fault, call, environ)
        self._note(call, None if reply is None else int(reply.status[:3]))
        if reply is None:
            raise self._dropped
        start_response(reply.status, reply.headers)
        return self._truncated(reply.body) if fault.mangle == "truncated" else [reply.body]

    # --- notes ---------------------------------------------------------------------------

    def _noting(self, call: _Note, start_response: StartResponse) -> StartResponse:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            self._note(call, int(status[:3]))
            return start_response(status, headers, exc_info)

        return start

    def _note(self, call: _Note, status: int | None) -> None:
        took = (time.monotonic() - call.began) * 1000
        self._faults.write("call", status=status, **call.fields)
        self._log(f"{call.method} {call.path} {status or 'dropped'} {took:.0f} ms")

    # --- faults --------------------------------------------------------------------------

    def _suffered(self, fault: Fault, call: _Note, environ: Environ) -> Reply | None:
        """The answer that is left, None for none."""
        self._closing.wait(fault.delay)
        self._pause(fault, BEFORE, call)
        if fault.drop == BEFORE:
            return None
        if fault.error == BEFORE:
            return _error("before the effect")
        if fault.status is not None:
            headers = dict(JSON) | dict(fault.headers)
            return _reply(f"{fault.status} Scripted", list(headers.items()), fault.body.encode())
        if fault.stale_list:
            self._replica_lag.freeze(self._records(), fault.stale_list)
        reply = self._effect(fault, environ)
        if fault.late_replica:
            self._hide(fault, call, reply)
        self._pause(fault, AFTER, call)
        if fault.drop == AFTER:
            return None
        if fault.error == AFTER:
            return _error("after the effect")
        return _mangled(reply, fault.mangle)

    def _effect(self, fault: Fault, environ: Environ) -> Reply:
        """Let the call take effect, twice if so scripted; the last answer counts."""
        body = environ["wsgi.input"].read()
        reply = None
        for _ in range(2 if fault.duplicate else 1):
            reply = _answered(self._app, {**environ, "wsgi.input": io.BytesIO(body)})
        assert reply is not None
        return reply

    def _hide(self, fault: Fault, call: _Note, reply: Reply) -> None:
        """Hide the model that this call made, if it made one."""
        made = None
        if call.method == "POST" and reply.status.startswith("200"):
            made = json.loads(reply.body).get("model", {}).get("id")
        if made is not None:
            self._replica_lag.hide(made, fault.late_replica)
        self._faults.write("hidden", n=call.n, id=made)

    def _pause(self, fault: Fault, at: str, call: _Note) -> None:
        pause = fault.pause
        if pause is None or pause.at != at:
            return
        self._faults.write("paused", at=at, **call.fields)
        end = time.monotonic() + (3600 if pause.seconds is None else pause.seconds)
        while time.monotonic() < end and not (pause.until and pause.until.exists()):
            if self._closing.wait(TICK):
                break
        self._faults.write("resumed", at=at, **call.fields)

    def _truncated(self, body: bytes) -> Iterator[bytes]:
        """Half of what `Content-Length` promised."""
        yield body[: len(body) // 2]
        raise self._dropped


class _Note:
    """What is written down of a call: no query, no header, and of a link only its job."""

    def __init__(self, environ: Environ) -> None:
        self.n = 0
        self.began = time.monotonic()
        self.method = visible(shorten(str(environ["REQUEST_METHOD"]), 32))
        path = str(environ.get("PATH_INFO", "")).encode("latin-1").decode("utf-8", "replace")
        if path.startswith("/v1/downloads/"):
            path = path.rpartition("/")[0] + "/…"
        self.path = visible(shorten(path, 300))

    @property
    def fields(self) -> dict[str, Any]:
        return {"n": self.n, "method": self.method, "path": self.path}


def _answered(app: App, environ: Environ) -> Reply:
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        started.append((status, headers))

    chunks = app(environ, start)
    try:
        body = b"".join(chunks)
    finally:
        if hasattr(chunks, "close"):
            chunks.close()
    return Reply(*started[-1], body)


def _reply(status: str, headers: list[tuple[str, str]], body: bytes) -> Reply:
    kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
    return Reply(status, [*kept, ("Content-Length", str(len(body)))], body)


def _error(when: str) -> Reply:
    body = json.dumps({"error": f"scripted: an error {when}"}).encode()
    return _reply("500 Scripted", JSON, body)


def _mangled(reply: Reply, how: str | None) -> Reply:
    match how:
        case "malformed":
            return _reply(reply.status, reply.headers, reply.body[: len(reply.body) // 2])
        case "not-json":
            return _reply(
                reply.status, [("Content-Type", "text/html")], b"<html>Bad gateway</html>"
            )
    return reply
