"""One HTTP session to a target: authorization, time limits, rate limits and retries.

A target sends its requests through `Client.call`. A request that may have taken effect is repeated
only where the caller says that doing it twice is the same as once. `Pace` is when the next request
may be sent: shared by all threads and clients of one server.
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Protocol, TypeVar

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from requests.utils import get_environ_proxies
from urllib3.exceptions import HTTPError

from composer.errors import UsageError
from composer.targets.http.error_translation import (
    TRIES_LOST,
    Answer,
    Failed,
    RequestInfo,
    refused,
    server_text,
    unanswered,
)
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from composer.targets.http.address import Address

log = logging.getLogger("composer.targets.http")
T = TypeVar("T")

MAX_BYTES = 8 * 1024 * 1024  # of one answer; an API gateway's own limit is below that
_CHUNK = 64 * 1024
_SLICE = 0.1  # seconds between two looks whether we are asked to stop
_CA_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class Request:
    """What to send.

    `writes`: if the answer is lost, it may have taken effect all the same. `repeat`: doing it twice
    is the same as once.
    """

    method: str
    path: str  # below the base URL
    query: tuple[tuple[str, str], ...] = ()
    body: Mapping[str, object] | None = None
    writes: bool = True
    repeat: bool = True


def get(path: str, *query: tuple[str, str]) -> Request:
    """A request that only reads."""
    return Request("GET", path, query, writes=False)


class Credentials(Protocol):
    """What a target's credentials must offer."""

    @property
    def header(self) -> str:
        """The value of the `Authorization` header."""

    @property
    def hint(self) -> str:
        """What to check if the target refuses them."""

    def hide(self, text: str) -> str:
        """The text without any secret."""


class _Auth(AuthBase):
    """Sends our credentials and no others: an explicit auth object keeps `.netrc` out."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        r.headers["Authorization"] = self._credentials.header
        return r


class _Session(requests.Session):
    """A session without redirects: `requests` would read the next address in any case."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How requests are sent; all times in seconds.

    Up to `connections` are open. `timeouts` are for connecting and for each read, `deadline` is
    for one answer as a whole, whatever the server sends until then. `patience` is how long one
    call may be repeated or wait for its turn. `sleep` may raise, to end a wait when asked to stop.
    `pace` is shared by the whole process for a base URL unless given.
    """

    connections: int = 8
    timeouts: tuple[float, float] = (10.0, 30.0)
    deadline: float = 35.0
    patience: float = 300.0
    sleep: Callable[[float], None] = time.sleep
    pace: Pace | None = None


class Client:
    """Sends requests to one target. Thread-safe: threads share its connections and its pace."""

    def __init__(self, address: Address, credentials: Credentials, options: SessionOptions) -> None:
        self.pace = options.pace or shared(address.base)
        self.sleep = options.sleep
        self._address = address
        self._credentials = credentials
        self._options = options
        self._backoff = 0.05 if address.loopback else 0.5
        self._new_session = partial(new_session, address, credentials, options.connections)
        self._session = self._new_session()

    def call(self, request: Request, read: Callable[[Answer], T]) -> T:
        """What `read` makes of the answer, a 2xx; if it raises `ValueError`, the answer is lost.

        Raises `Ambiguous` for a write and `Unreachable` for a read that got no answer, else the
        error that `error_translation.refused` makes of the answer.
        """
        deadline = self.pace.clock() + self._options.patience
        info = self._info(request)
        tries = 0
        while True:
            self._wait_for_turn(info, deadline)
            tries += 1
            try:
                return self._try(request, info, read)
            except Failed as failed:
                log.debug("%s: try %d failed: %s", info, tries, failed)
                may_repeat = request.repeat or failed.harmless
                if not may_repeat or tries >= failed.tries or self.pace.clock() >= deadline:
                    raise failed.error from failed
                self._prepare_next(failed, tries)

    def back_off(self, tries: int) -> bool:
        """Wait a little before another attempt; False after the last one."""
        if tries >= TRIES_LOST:
            return False
        self.sleep(self.pace.backoff(tries, self._backoff))
        return True

    @property
    def connections(self) -> int:
        """How many requests are sent at the same time."""
        return self._options.connections

    def hide(self, text: str) -> str:
        """The text without our secrets."""
        return self._credentials.hide(text)

    def close(self) -> None:
        self._session.close()

    # --- one try -------------------------------------------------------------------------

    def _info(self, request: Request) -> RequestInfo:
        return RequestInfo(
            request.method,
            request.path,
            self._address.host,
            request.writes,
            self.hide,
            self._credentials.hint,
        )

    def _wait_for_turn(self, info: RequestInfo, deadline: float) -> None:
        """Wait as long as the server asked for; raises `Unreachable` if that is too long."""
        while (left := self.pace.left()) > 0:
            if self.pace.clock() + left > deadline:
                raise info.unsent(f"the server asks to wait {left:.0f} s")
            log.info("%s asks to wait %.1f s", info.host, left)
            self.sleep(left)

    def _prepare_next(self, failed: Failed, tries: int) -> None:
        """Wait: this call alone after a failure, all calls where the server demands it."""
        own = self.pace.backoff(tries, self._backoff)
        if failed.throttled:
            self.pace.hold(failed.wait or own, exact=failed.exact and bool(failed.wait))
        else:
            self.sleep(own)

    def _try(self, request: Request, info: RequestInfo, read: Callable[[Answer], T]) -> T:
        started = self.pace.clock()
        try:
            answer = self._answer(request, info)
        except (requests.RequestException, HTTPError, OSError) as error:
            raise unanswered(info, error) from error
        log.debug("%s: %d in %.2f s", info, answer.status, self.pace.clock() - started)
        if not 200 <= answer.status < 300:
            raise refused(info, answer)
        try:
            return read(answer)
        except ValueError as bad:
            lost = info.lost(f"an answer that can't be read: {server_text(bad, self.hide)}")
            raise Failed(lost, tries=TRIES_LOST) from bad

    def _answer(self, request: Request, info: RequestInfo) -> Answer:
        """The answer. Raises `Failed` at the deadline."""
        look = None if request.writes else partial(self.sleep, 0.0)
        sending = partial(self._send, self._session, request)
        try:
            return in_time(sending, self._options.deadline, look)
        except Late as late:
            self._session = self._new_session()  # the thread keeps the old one's connection
            raise Failed(info.lost(str(late))) from late

    def _send(self, session: requests.Session, request: Request) -> Answer:
        project = self._address.project
        body = request.body
        with session.request(
            request.method,
            self._address.base + request.path,
            params=[*request.query, *([("projectId", project)] if project else [])],
            data=None if body is None else json.dumps(body, allow_nan=False).encode(),
            headers={} if body is None else {"Content-Type": "application/json"},
            timeout=self._options.timeouts,
            allow_redirects=False,
            stream=True,
        ) as response:
            return Answer(response.status_code, response.headers, content(response, MAX_BYTES))


class Late(Exception):
    """An answer is not complete at its deadline."""


def in_time(
    send: Callable[[], Answer], deadline: float, look: Callable[[], None] | None = None
) -> Answer:
    """The answer, which a thread of its own waits for: it can be left at any point.

    Raises `Late` after `deadline` seconds. `look` is called all the time, and may raise to end
    the wait.
    """
    answer: Future[Answer] = Future()
    threading.Thread(target=_fulfil, args=(answer, send), daemon=True).start()
    end = time.monotonic() + deadline
    while not wait_for([answer], timeout=max(0.0, min(_SLICE, end - time.monotonic()))).done:
        if look:
            look()
        if time.monotonic() >= end:
            raise Late(f"the answer was not complete after {deadline:g} s")
    return answer.result()


def _fulfil(answer: Future[Answer], send: Callable[[], Answer]) -> None:
    try:
        answer.set_result(send())
    except BaseException as error:
        answer.set_exception(error)


class TooLarge(OSError):
    """An answer has more bytes than are read."""


def content(response: requests.Response, limit: int) -> bytes:
    """The body, of at most `limit` bytes.

    One that breaks off raises `OSError` or what the HTTP client raises, unless the status is an
    error, which says enough.
    """
    parts, size = [], 0
    try:
        for part in response.iter_content(_CHUNK):
            size += len(part)
            if size > limit:
                raise TooLarge(None, f"the answer is larger than {limit} bytes")
            parts.append(part)
    except (requests.RequestException, HTTPError, OSError):
        if 200 <= response.status_code < 300:
            raise
    return b"".join(parts)


def new_session(
    address: Address, credentials: Credentials | None, connections: int
) -> requests.Session:
    """A session that takes nothing from the environment but proxies and certificates.

    On loopback it uses no proxy either, which would see the credentials.
    """
    session = _Session()
    session.trust_env = False
    session.auth = _Auth(credentials) if credentials else None
    session.verify = _ca_bundle()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = f"lora-compose/{__version__}"
    session.headers["Accept"] = "application/json"
    if not address.loopback:
        session.proxies.update(get_environ_proxies(address.base))
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=connections, pool_block=True)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _ca_bundle() -> str | bool:
    """The certificates that the environment names. Raises `UsageError` if they do not exist."""
    named = [(name, os.environ[name]) for name in _CA_BUNDLES if os.environ.get(name)]
    if not named:
        return True
    name, path = named[0]
    if not os.path.exists(path):
        raise UsageError(
            f"{name} names {path}, which does not exist", hint=f"correct or unset {name}"
        )
    return path


# --- rate limits -------------------------------------------------------------------------


_BACKOFF_CAP = 8.0  # seconds
_SPREAD_CAP = 5.0  # seconds


class Pace:
    """How long all callers must wait because the server asked for it. Thread-safe.

    `clock` counts seconds, and `chance` gives 0..1 for jitter: tests bring their own.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.clock = clock
        self.chance = chance
        self._lock = threading.Lock()
        self._until = float("-inf")
        self._spread = 0.0

    def hold(self, seconds: float, *, exact: bool = False) -> None:
        """Make all callers wait so many seconds; without `exact`, each a random bit longer."""
        until = self.clock() + seconds
        with self._lock:
            if until > self._until:
                self._until = until
                self._spread = 0.0 if exact else min(max(0.1, seconds / 10), _SPREAD_CAP)

    def left(self) -> float:
        """Seconds that this caller has to wait; 0 for none."""
        with self._lock:
            left = self._until - self.clock()
            return 0.0 if left <= 0 else left + self._spread * self.chance()

    def backoff(self, tries: int, first: float) -> float:
        """Seconds to wait after so many failed tries: doubled each time, half of it random."""
        longest = min(first * 2.0 ** min(tries - 1, 30), _BACKOFF_CAP)
        return longest * (0.5 + 0.5 * self.chance())


_paces: dict[str, Pace] = {}
_paces_lock = threading.Lock()


def shared(base: str) -> Pace:
    """The pace that the whole process shares for this base URL."""
    with _paces_lock:
        return _paces.setdefault(base, Pace())
