"""A forge's JSON API over urllib: one call, all pages, one download. Called by the two houses.

The token goes to the API's own address only; a redirect is followed for a download alone, and
without it. A failure is a `ForgeError` in one line.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from texts import shortened, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from http.client import HTTPMessage
    from typing import IO

PER_PAGE, MOST_PAGES = 100, 100
_TIMEOUT = 30.0
_PAUSES = (1.0, 3.0)  # between the tries of a GET
_MOST_JSON = 16 * 1024 * 1024


class ForgeError(Exception):
    """The forge said no, or nothing at all: what was asked, and what it said."""


class Refusal(ForgeError):
    """An answer of 300 or above; `status` and `location` as they came."""

    def __init__(self, message: str, status: int, location: str) -> None:
        super().__init__(message)
        self.status, self.location = status, location


@dataclass(frozen=True, slots=True)
class Api:
    """An API at a base URL, with the headers that carry the token."""

    base: str
    headers: Mapping[str, str]

    def call(self, method: str, path: str, body: object = None, **query: str | int) -> Any:
        """The JSON that a call answers; None for an empty answer. Raises `ForgeError`."""
        raw = self._send(method, path + _query(query), body, _MOST_JSON)
        try:
            return json.loads(raw) if raw else None
        except (ValueError, RecursionError) as bad:
            raise ForgeError(f"{method} {path}: the answer is no JSON") from bad

    def pages(self, path: str, **query: str | int) -> Iterator[dict[str, Any]]:
        """Every item of a listing, page after page."""
        for page in range(1, MOST_PAGES + 1):
            items = self.call("GET", path, per_page=PER_PAGE, page=page, **query)
            yield from items
            if len(items) < PER_PAGE:
                return

    def download(self, path: str, limit: int) -> bytes:
        """A file of at most `limit` bytes, wherever the API sends us for it."""
        try:
            return self._send("GET", path, None, limit)
        except Refusal as refusal:
            if refusal.status not in (301, 302, 303, 307, 308):
                raise
            return _elsewhere(refusal.location, self.base, limit)

    def _send(self, method: str, path: str, body: object, limit: int) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        headers = {**self.headers, "Content-Type": "application/json", "User-Agent": "compose"}
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        for pause in _PAUSES if method == "GET" else ():
            try:
                return _read(request, limit)
            except ForgeError as error:
                if isinstance(error, Refusal) and error.status < 500:
                    raise
                time.sleep(pause)
        return _read(request, limit)


def _query(query: Mapping[str, str | int]) -> str:
    return f"?{urllib.parse.urlencode(query)}" if query else ""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Redirects are the caller's to follow: urllib would take the token along."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        return None


_OPENER = urllib.request.build_opener(_Stay)


def _read(request: urllib.request.Request, limit: int) -> bytes:
    asked = f"{request.get_method()} {urllib.parse.urlsplit(request.full_url).path}"
    try:
        with _OPENER.open(request, timeout=_TIMEOUT) as answer:
            raw: bytes = answer.read(limit + 1)
    except urllib.error.HTTPError as error:
        _refused(asked, error)
    except OSError as error:
        raise ForgeError(f"{asked}: no answer: {error}") from error
    if len(raw) > limit:
        raise ForgeError(f"{asked}: the answer has more than {limit:,} bytes")
    return raw


def _refused(asked: str, error: urllib.error.HTTPError) -> NoReturn:
    with error:
        try:
            said = str(json.loads(error.read(64 * 1024))["message"])
        except (ValueError, RecursionError, KeyError, TypeError, OSError):
            said = str(error.reason)
    words = " ".join(shortened(visible(said), 300).split())
    location = error.headers.get("Location") or ""
    raise Refusal(f"{asked}: {error.code}: {words}", error.code, location) from error


def _elsewhere(location: str, base: str, limit: int) -> bytes:
    """What another address has for us; https, as the API itself."""
    scheme = urllib.parse.urlsplit(base).scheme
    if urllib.parse.urlsplit(location).scheme not in ("https", scheme):
        raise ForgeError("a download is at an address that is not https")
    return _read(urllib.request.Request(location, headers={"User-Agent": "compose"}), limit)
