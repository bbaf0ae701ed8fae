"""Fault injection: a layer around the app that does to requests what the fault script says.

`compose serve --fault-script` and `--fault-log` make a `FaultInjection`. It numbers all requests,
carries faults out, writes both to the fault log, and lets reads lag where the script says so.
"""

from __future__ import annotations

import io
import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from waitress.channel import ClientDisconnected  # type: ignore[import-untyped]

from composer.errors import TargetError
from composer.server.calls import Visibility
from composer.server.running import method_and_path
from composer.server.testing.fault_script import AFTER, BEFORE, Script
from composer.targets.local.records import now_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from composer.server.running import App, Environ, StartResponse
    from composer.server.testing.fault_script import Fault
    from composer.targets.local.records import Record
    from composer.targets.local.service import Engine

TICK = 0.005  # seconds between two looks for the file that ends a pause
JSON = [("Content-Type", "application/json")]


class FaultInjection:
    """The faults of one server: its script, its fault log, and what reads may see."""

    def __init__(self, script: Script | None = None, log_file: Path | None = None) -> None:
        """Raises `TargetError` if the fault log can't be written."""
        self.script = script or Script()
        self.fault_log = FaultLog(log_file)
        self.visibility = ReplicaLag()
        self.stopping = threading.Event()

    def wrap(self, app: App, engine: Engine, log: Callable[[str], None]) -> App:
        """The app with these faults; `log` is given a line for each that fires."""
        return FaultMiddleware(app, self, engine.store.records, log)

    def end_pauses(self) -> None:
        """Let all requests go on that a fault holds."""
        self.stopping.set()


class FaultLog:
    """A file of JSON lines: each call (`n`, `method`, `path`, `status`), each fault that fired."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        try:
            self._append("")
        except OSError as error:
            raise TargetError(f"cannot write {file}: {error.strerror or error}") from error

    def write(self, event: str, **fields: object) -> None:
        self._append(json.dumps({"event": event, **fields}) + "\n")

    def _append(self, line: str) -> None:
        if self._file:
            with self._lock, self._file.open("a", encoding="utf-8") as file:
                file.write(line)


@dataclass(frozen=True, slots=True)
class _Frozen:
    """All compositions as they were; `until` and `span` in milliseconds."""

    records: Sequence[Record]
    until: int
    span: int


class ReplicaLag(Visibility):
    """Reads that lag on purpose: stale lists and late replicas, for a while. Thread-safe."""

    def __init__(self) -> None:
        self._frozen: _Frozen | None = None
        self._hidden: dict[str, int] = {}  # id -> when it appears, in milliseconds
        self._lock = threading.Lock()

    def freeze(self, records: Sequence[Record], seconds: float) -> None:
        """For so many seconds, lists answer with these, but for those younger than that."""
        span = round(seconds * 1000)
        with self._lock:
            self._frozen = _Frozen(records, now_ms() + span, span)

    def hide(self, id: str, seconds: float) -> None:
        """For so many seconds, reads do not see this model or job."""
        with self._lock:
            self._hidden[id] = now_ms() + round(seconds * 1000)

    def hides(self, id: str) -> bool:
        with self._lock:
            until = self._hidden.get(id)
            if until is not None and until <= now_ms():
                del self._hidden[id]
                return False
            return until is not None

    def listed(
        self, records: Iterable[Record], project: str, *, newest_first: bool
    ) -> Iterator[Record]:
        with self._lock:
            frozen = self._frozen
        if frozen is None or frozen.until <= now_ms():
            listed = records
        else:
            old = now_ms() - frozen.span
            ordered = sorted(frozen.records, key=lambda r: r.created_at, reverse=newest_first)
            listed = (r for r in ordered if r.project == project and r.created_at <= old)
        return (record for record in listed if not self.hides(record.id))


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that was made, and not yet sent."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


class FaultMiddleware:
    """A WSGI application around another one; `records` are all compositions there are."""

    def __init__(
        self,
        app: App,
        injection: FaultInjection,
        records: Callable[[], Sequence[Record]],
        log: Callable[[str], None],
    ) -> None:
        self._app = app
        self._script = injection.script
        self._fault_log = injection.fault_log
        self._visibility = injection.visibility
        self._stopping = injection.stopping
        self._records = records
        self._log = log

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method, path = method_and_path(environ)
        number, index = self._script.arrive(method, path.removeprefix("/v1"))
        call = {"n": number, "method": method, "path": path}
        if index is None:
            return self._app(environ, self._noting(call, start_response))
        fault = self._script.faults[index]
        self._fault_log.write("fault", fault=index + 1, what=dict(fault.what), **call)
        self._log(f"fault {index + 1} at call {number}: {json.dumps(dict(fault.what))}")
        reply = self._suffered(fault, call, environ)
        self._note(call, None if reply is None else int(reply.status[:3]))
        if reply is None:
            raise ClientDisconnected  # the server closes the connection
        start_response(reply.status, reply.headers)
        return _truncated(reply.body) if fault.mangle == "truncated" else [reply.body]

    def _noting(self, call: Mapping[str, Any], start_response: StartResponse) -> StartResponse:
        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            self._note(call, int(status[:3]))
            return start_response(status, headers, exc_info)

        return start

    def _note(self, call: Mapping[str, Any], status: int | None) -> None:
        self._fault_log.write("call", status=status, **call)

    def _suffered(self, fault: Fault, call: Mapping[str, Any], environ: Environ) -> Reply | None:
        """The answer after the fault, None for none: the connection is to be dropped."""
        self._stopping.wait(fault.delay)
        self._pause(fault, BEFORE, call)
        if fault.drop == BEFORE:
            return None
        if fault.error == BEFORE:
            return _error("before the effect")
        if fault.status is not None:
            headers = dict(JSON) | dict(fault.headers)
            return _reply(f"{fault.status} Scripted", list(headers.items()), fault.body.encode())
        if fault.stale_list:
            self._visibility.freeze(self._records(), fault.stale_list)
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
        """Let the call take effect, twice if the script says so; the last answer counts."""
        body = environ["wsgi.input"].read()
        reply = None
        for _ in range(2 if fault.duplicate else 1):
            reply = _answered(self._app, {**environ, "wsgi.input": io.BytesIO(body)})
        assert reply is not None
        return reply

    def _hide(self, fault: Fault, call: Mapping[str, Any], reply: Reply) -> None:
        """Hide the model that this call made, or the job that makes images, if it made one."""
        made = None
        if call["method"] == "POST" and reply.status.startswith("200"):
            answer = json.loads(reply.body)
            made = answer.get("model", {}).get("id") or answer.get("job", {}).get("jobId")
        if made is not None:
            self._visibility.hide(made, fault.late_replica)
        self._fault_log.write("hidden", n=call["n"], id=made)

    def _pause(self, fault: Fault, at: str, call: Mapping[str, Any]) -> None:
        pause = fault.pause
        if pause is None or pause.at != at:
            return
        self._fault_log.write("paused", at=at, **call)
        end = time.monotonic() + (3600 if pause.seconds is None else pause.seconds)
        while time.monotonic() < end and not (pause.until and pause.until.exists()):
            if self._stopping.wait(TICK):
                break
        self._fault_log.write("resumed", at=at, **call)


def _truncated(body: bytes) -> Iterator[bytes]:
    """Half of what `Content-Length` promised."""
    yield body[: len(body) // 2]
    raise ClientDisconnected


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
