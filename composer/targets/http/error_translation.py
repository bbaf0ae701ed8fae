"""What one try at a request comes to: an answer, or a failure as one of our errors.

`session` raises `Failed` for a try that failed, and decides by it whether there is another one.
`unanswered` translates what three libraries raise when no answer came, `refused` an answer that is
not a success. No format of error bodies is documented, so they are read leniently.
"""

from __future__ import annotations

import json
import math
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import ConnectTimeoutError

from composer.errors import (
    Ambiguous,
    CeilingReached,
    CredentialsError,
    NotFound,
    TargetError,
    Unreachable,
)
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

TRIES_LOST = 5  # without an answer, or after an error of the server
TRIES_UNCONNECTED = 3  # where nobody listens, or the name is unknown
TRIES_THROTTLED = 100  # `patience` ends these, not their number
MAX_PARTS = 500_000  # objects and lists in one answer: in memory each takes up to 240 bytes
_LONGEST = 300  # characters of a server's own words
_LATER = "try again later"
_RESTRICTED = "ModelAccessRestricted"
# Nothing was sent: with the first kind another try cannot help, with the second it may.
_NEVER = (
    ssl.SSLCertVerificationError,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
)
_UNCONNECTED = (ConnectTimeoutError, socket.gaierror, requests.exceptions.ProxyError)


class Refusal(TargetError):
    """The server refuses this request for good: 400, 409, 422 and the like."""

    def __init__(self, message: str, *, server_message: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.server_message = server_message


class Failed(Exception):
    """One try failed.

    `tries` is how many such tries to make at most. `harmless`: it certainly had no effect.
    `throttled`: all requests to the server should wait, `wait` seconds if the server says how
    long, and with `exact` no longer than that.
    """

    def __init__(
        self,
        error: TargetError,
        *,
        tries: int = 1,
        harmless: bool = False,
        throttled: bool = False,
        wait: float | None = None,
        exact: bool = False,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.tries = tries
        self.harmless = harmless
        self.throttled = throttled or bool(wait)
        self.wait = wait
        self.exact = exact


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """A request as error messages name it; `hide` removes secrets from a text."""

    method: str
    path: str
    host: str
    writes: bool
    hide: Callable[[str], str]
    credentials_hint: str  # what to check if the credentials are refused

    def __str__(self) -> str:
        return f"{self.method} {self.path} at {self.host}"

    def lost(self, why: str) -> Unreachable:
        """The error for no readable answer: a write may have taken effect all the same."""
        kind = Ambiguous if self.writes else Unreachable
        return kind(f"{self}: {why}", hint=_LATER)

    def unsent(self, why: str) -> Unreachable:
        """The error for a request that was not sent."""
        return Unreachable(f"{self}: {why}", hint=_LATER)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of any status; `content` is the body as bytes."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> object:
        """The body; raises `ValueError` if it isn't JSON, or would take too much memory."""
        if self.content.count(b"[") + self.content.count(b"{") > MAX_PARTS:
            raise ValueError(f"more than {MAX_PARTS} objects and lists")
        try:
            return json.loads(self.content)
        except RecursionError as deep:
            raise ValueError("nested too deeply") from deep


def server_text(text: object, hide: Callable[[str], str]) -> str:
    """A text of the server's, safe to print: no secrets, and URLs without their query."""
    some = hide(str(text))[: 10 * _LONGEST]
    words = (word.partition("?")[0] if "://" in word else word for word in some.split(" "))
    return shorten(visible(" ".join(words)), _LONGEST)


# --- no answer ---------------------------------------------------------------------------


def unanswered(info: RequestInfo, error: Exception) -> Failed:
    """The error of a request that got no answer."""
    links = list(_links(error))
    why = _why(links)
    if any(isinstance(link, _NEVER) for link in links):
        never = Unreachable(f"{info.host} can't be reached: {why}", hint=_certificate_hint(links))
        return Failed(never, harmless=True)
    if any(isinstance(link, _UNCONNECTED) for link in links):
        denied = why == _PROXY_DENIES
        unconnected = Unreachable(
            f"{info.host} can't be reached: {why}",
            hint=_PROXY_HINT if denied else "check the network, and the target's address",
        )
        return Failed(unconnected, tries=1 if denied else TRIES_UNCONNECTED, harmless=True)
    return Failed(info.lost(why), tries=TRIES_LOST)


def _links(error: BaseException) -> Iterator[BaseException]:
    """The error and all that led to it; each library hides it in another place."""
    todo, seen = [error], set()
    while todo:
        link = todo.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        near = (getattr(link, "reason", None), *link.args, link.__cause__, link.__context__)
        todo += [other for other in near if isinstance(other, BaseException)]


_PROXY_DENIES = "the proxy asks for a user and a password (407)"
_PROXY_HINT = "set HTTPS_PROXY to http://USER:PASSWORD@HOST:PORT, with the proxy's own user"
# How OpenSSL numbers a certificate that is not valid yet, or no longer, or of another host.
_NOT_YET, _EXPIRED = 9, 10
_OTHER_HOSTS = {62, 64}  # a name, an address


def _certificate_hint(links: list[BaseException]) -> str | None:
    """What to do about a certificate that is not trusted; None where there is none."""
    codes = {link.verify_code for link in links if isinstance(link, ssl.SSLCertVerificationError)}
    if codes & {_NOT_YET, _EXPIRED}:
        return "check this machine's clock; if it is right, the server needs a new certificate"
    if codes & _OTHER_HOSTS:
        return "check the target's address: the certificate is for another host"
    if codes:
        return "if you trust it, set REQUESTS_CA_BUNDLE to a file with the certificate of its CA"
    return None


def _why(links: list[BaseException]) -> str:
    for link in links:
        if isinstance(link, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {visible(link.verify_message)}"
        if isinstance(link, socket.gaierror):
            return "unknown host name"
        if isinstance(link, requests.exceptions.ProxyError):
            denied = any(
                "failed: 407" in str(other) for other in links if isinstance(other, OSError)
            )
            return _PROXY_DENIES if denied else "the proxy refuses the connection"
        if isinstance(link, requests.exceptions.Timeout | TimeoutError):
            return "no answer in time"
    reasons = (link.strerror for link in links if isinstance(link, OSError) and link.strerror)
    return visible(next(reasons, "the connection was lost"))


# --- an answer that is not a success -----------------------------------------------------


def refused(info: RequestInfo, answer: Answer) -> Failed:
    """The error of an answer that is not 2xx."""
    body = _body(answer)
    message = _server_message(info, body)
    status = answer.status
    summary = f"{status}, {message}" if message else str(status)
    if status >= 500 or status == 408:
        lost = info.lost(f"the server failed: {summary}")
        return Failed(lost, tries=TRIES_LOST, wait=wait_demanded(answer.headers))
    if status == 429:
        return _too_many(info, answer, body, summary)
    if 300 <= status < 400:
        return Failed(_redirected(info, answer), harmless=True)
    return Failed(_final(info, status, body, message), harmless=True)


def _final(info: RequestInfo, status: int, body: object, message: str) -> TargetError:
    summary = f"{status}, {message}" if message else str(status)
    plan = _find(body, "requiredPlan")
    if status == 403 and (plan is not None or _RESTRICTED in message):
        model = _find(body, "modelId") or "one of its models"
        needs = server_text(
            f"{model} needs {f'the plan {plan}' if plan else 'a larger plan'}", info.hide
        )
        return TargetError(
            f"{info}: {needs}",
            hint="choose another LoRA, or another plan",
        )
    if status in (401, 403):
        return CredentialsError(
            f"{info.host} rejects these credentials: {info.method} {info.path}: {summary}",
            hint=info.credentials_hint,
        )
    if status == 404:
        return NotFound(
            f"{info}: {summary}", hint="check the id, the project and the target's address"
        )
    advice = _find(body, "hint")
    hint = server_text(advice, info.hide) if advice else None
    return Refusal(f"{info}: {summary}", server_message=message, hint=hint)


def _redirected(info: RequestInfo, answer: Answer) -> TargetError:
    """A redirect: nothing is sent to the other host, and the message names only the host."""
    try:
        place = urlsplit(answer.headers.get("Location", "")).hostname or info.host
    except ValueError:
        place = "nowhere"
    return TargetError(
        f"{info}: redirected to {shorten(visible(place), 100)}, which is not followed",
        hint="use the target's own address",
    )


def _too_many(info: RequestInfo, answer: Answer, body: object, summary: str) -> Failed:
    """429 means one of three things: a cooldown, a limit of the plan, or a rate limit."""
    cooldown = _seconds(_find(body, "remainingSeconds"))
    ceiling = _find(body, "actionName"), _find(body, "actionLimit")
    if cooldown is None and ceiling != (None, None):
        return Failed(_limit_reached(info, *ceiling), harmless=True)
    return Failed(
        info.unsent(summary),
        tries=TRIES_THROTTLED,
        harmless=True,
        throttled=True,
        wait=wait_demanded(answer.headers) if cooldown is None else cooldown,
        exact=cooldown is not None,
    )


def _limit_reached(info: RequestInfo, action: object, limit: object) -> CeilingReached:
    name = server_text(action or "this", info.hide)
    most = "" if limit is None else f" (at most {server_text(limit, info.hide)})"
    return CeilingReached(
        f"{info}: the plan's limit for {name} is reached{most}",
        hint="wait until running jobs have ended, or ask for a larger plan",
        action=name,
    )


def wait_demanded(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, by `retry-after-ms` or `Retry-After` (seconds, or a date: RFC 9110)."""
    if (ms := _seconds(headers.get("retry-after-ms"))) is not None:
        return ms / 1000
    after = headers.get("Retry-After")
    if (seconds := _seconds(after)) is not None:
        return seconds
    until, now = _date(after), _date(headers.get("Date"))  # both by the server's own clock
    return None if until is None or now is None else max(until - now, 0.0)


def _date(text: str | None) -> float | None:
    try:
        date = parsedate_to_datetime(text or "")
        return date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _seconds(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return None
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        return None
    return max(value, 0.0) if math.isfinite(value) else None


def _body(answer: Answer) -> object:
    try:
        return answer.json()
    except ValueError:
        return None


def _objects(body: object, depth: int = 3) -> Iterator[dict[str, object]]:
    """The objects that may hold details of an error: the body, its `details`, its `error`, ..."""
    if isinstance(body, dict) and depth:
        yield body
        for name in ("details", "error"):
            yield from _objects(body.get(name), depth - 1)


def _find(body: object, name: str) -> object:
    return next((place[name] for place in _objects(body) if place.get(name) is not None), None)


def _server_message(info: RequestInfo, body: object) -> str:
    """The server's own message, safe to print; empty if there is none."""
    messages = (
        place[name]
        for name in ("message", "reason", "error", "name")
        for place in _objects(body)
        if isinstance(place.get(name), str) and place[name]
    )
    return server_text(next(messages, ""), info.hide)
