"""The server: the socket, the app behind it, and its log.

`compose serve` makes a `Server` and runs it; tests do so in a thread.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from waitress import wasyncore  # type: ignore[import-untyped]
from waitress.channel import ClientDisconnected  # type: ignore[import-untyped]

from composer.errors import TargetError
from composer.server.app import Backend, create_app
from composer.server.asset_links import LIFE, AssetLinks, link_key
from composer.server.auth import is_loopback
from composer.server.calls import Visibility
from composer.server.connections import Limits, listen
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from composer.server.auth import Credentials
    from composer.server.calls import ImageWorker
    from composer.targets.local.service import Engine

Environ: TypeAlias = "dict[str, Any]"
StartResponse: TypeAlias = "Callable[..., Any]"
App: TypeAlias = "Callable[[Environ, StartResponse], Iterable[bytes]]"

WAKE_INTERVAL = 0.5  # seconds
DEFAULT_LIMITS = Limits()


class Faults(Protocol):
    """What `server.testing` adds to a server: a layer around the app, and reads that lag."""

    @property
    def visibility(self) -> Visibility:
        """Which compositions reads may see."""

    def wrap(self, app: App, engine: Engine, log: Callable[[str], None]) -> App:
        """The app with faults; raises `TargetError` if the fault log can't be written."""

    def end_pauses(self) -> None:
        """Let all requests go on that a fault holds; called when the server stops."""


class Gallery(Protocol):
    """What `page` adds to a server: pages beside the API."""

    def before(self, app: App, *, host: str, log: Callable[[str], None]) -> App:
        """The app with the pages; `log` gets unexpected errors."""


@dataclass(frozen=True, slots=True)
class Additions:
    """What a server has beside the API of its engine.

    Without `images` clients can have none made; links to those that were are good for `link_life`
    seconds. A `gallery`, which needs a loopback address, has its pages at `/`. `faults` are for
    tests.
    """

    images: ImageWorker | None = None
    gallery: Gallery | None = None
    faults: Faults | None = None
    link_life: float = LIFE


NO_ADDITIONS = Additions()


class Server:
    """The server of one engine, bound to a port. Run it in one thread, stop it from any."""

    def __init__(
        self,
        engine: Engine,
        credentials: Credentials,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        additions: Additions = NO_ADDITIONS,
        limits: Limits = DEFAULT_LIMITS,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Bind; port 0 takes any that is free. `log` is given a line for each request.

        Raises `TargetError` if the address can't be bound or the fault log can't be written.
        """
        self._socket = _bind(host, port)
        self.host, self.port = host, int(self._socket.getsockname()[1])
        self._faults = faults = additions.faults
        visibility = faults.visibility if faults else Visibility()
        links = AssetLinks(link_key(engine.folder.root), additions.link_life)
        backend = Backend(engine, credentials, links, visibility, additions.images)
        app: App = create_app(backend, host=host, log=log)
        if faults:
            app = faults.wrap(app, engine, log)
        if additions.gallery:
            app = additions.gallery.before(app, host=host, log=log)
        self._map: dict[int, Any] = {}
        note_refused = partial(_note_refused, log)
        self._server = listen(logged(app, log), self._socket, self._map, limits, note_refused)
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
                wasyncore.loop(timeout=WAKE_INTERVAL, use_poll=True, map=self._map, count=1)
        finally:
            self._close()

    def stop(self) -> None:
        """Let `run` end soon."""
        self._stopping = True
        with suppress(OSError):  # it may have ended already
            self._server.pull_trigger()

    def _close(self) -> None:
        """Stop listening, let running requests end (up to 5 s), and close the connections."""
        if self._faults:
            self._faults.end_pauses()
        self._server.task_dispatcher.shutdown()
        self._server.close()
        wasyncore.close_all(self._map)


def logged(app: App, log: Callable[[str], None]) -> App:
    """The app with a line in the log for each request, answered or not."""

    def run(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        method, path = method_and_path(environ)
        began = time.monotonic()

        def note(status: str) -> None:
            log(f"{method} {path} {status} {(time.monotonic() - began) * 1000:.0f} ms")

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            note(status[:3])
            return start_response(status, headers, exc_info)

        try:
            return app(environ, start)
        except ClientDisconnected:
            note("dropped")
            raise

    return run


def _note_refused(log: Callable[[str], None], environ: Environ) -> None:
    method, path = method_and_path(environ)
    log(f"{method} {path} 429 0 ms")


def method_and_path(environ: Environ) -> tuple[str, str]:
    """What a log may tell of a request: no query, no header, and of a link only its job."""
    path = str(environ.get("PATH_INFO", "")).encode("latin-1").decode("utf-8", "replace")
    if path.startswith("/v1/downloads/"):
        path = path.rpartition("/")[0] + "/…"
    return visible(shorten(str(environ["REQUEST_METHOD"]), 32)), visible(shorten(path, 300))


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise TargetError(
            f"--host: no such address: {host}: {error.strerror or error}",
            hint="write an address of this machine, such as 127.0.0.1",
        ) from error
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
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            hint="another program may use that port; choose another with --port",
        ) from error
    return bound
