"""A client of a JSON API, by urllib: calls, listings page by page, downloads.

`github` and `gitlab` use it. The token is sent to the API's own address only; redirects are
followed only for downloads, without the token. A failure is a `ForgeError` in one line.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from composer.errors import ComposeError
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from http.client import HTTPMessage
    from typing import IO

_PER_PAGE, _MAX_PAGES = 100, 100
_TIMEOUT = 30.0  # seconds
_PAUSES = (1.0, 3.0)  # seconds, between the attempts of a GET
_MAX_JSON = 16 * 1024 * 1024  # bytes


class ForgeError(ComposeError):
    """A request to the forge failed, or an input, an answer or an artifact is invalid."""


class Refusal(ForgeError):
    """An answer with a status of 300 or above; `location` is empty unless it is a redirect."""

    def __init__(self, message: str, status: int, location: str) -> None:
        super().__init__(message)
        self.status, self.location = status, location


@dataclass(frozen=True, slots=True)
class Api:
    """An API at a base URL, with the headers that carry the token."""

    base: str
    headers: Mapping[str, str]

    def call(self, method: str, path: str, body: object = None, **query: str | int) -> Any:
        """Send a request; its answer's JSON, None for an empty answer. Raises `ForgeError`."""
        raw = self._send(method, path + _query(query), body, _MAX_JSON)
        try:
            return json.loads(raw) if raw else None
        except (ValueError, RecursionError) as bad:
            raise ForgeError(f"{method} {path}: the answer is not JSON") from bad

    def pages(self, path: str, **query: str | int) -> Iterator[dict[str, Any]]:
        """Every item of a listing, page after page."""
        for page in range(1, _MAX_PAGES + 1):
            items = self.call("GET", path, per_page=_PER_PAGE, page=page, **query)
            yield from items
            if len(items) < _PER_PAGE:
                return

    def download(self, path: str, limit: int) -> bytes:
        """A file of at most `limit` bytes, from where the API redirects to. Raises `ForgeError`."""
        try:
            return self._send("GET", path, None, limit)
        except Refusal as refusal:
            if refusal.status not in (301, 302, 303, 307, 308):
                raise
            return _follow(refusal.location, self.base, limit)

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


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: urllib would send the token along."""

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


_OPENER = urllib.request.build_opener(_NoRedirect)


def _read(request: urllib.request.Request, limit: int) -> bytes:
    line = f"{request.get_method()} {urllib.parse.urlsplit(request.full_url).path}"
    try:
        with _OPENER.open(request, timeout=_TIMEOUT) as answer:
            raw: bytes = answer.read(limit + 1)
    except urllib.error.HTTPError as error:
        _refused(line, error)
    except OSError as error:
        raise ForgeError(f"{line}: no answer: {error}") from error
    if len(raw) > limit:
        raise ForgeError(f"{line}: the answer has more than {limit:,} bytes")
    return raw


def _refused(line: str, error: urllib.error.HTTPError) -> NoReturn:
    with error:
        try:
            message = str(json.loads(error.read(64 * 1024))["message"])
        except (ValueError, RecursionError, KeyError, TypeError, OSError):
            message = str(error.reason)
    message = shorten(visible(" ".join(message.split())), 300)
    location = error.headers.get("Location") or ""
    raise Refusal(f"{line}: {error.code}: {message}", error.code, location) from error


def _follow(location: str, base: str, limit: int) -> bytes:
    """Download from another address: by https, or by the scheme of the API itself."""
    scheme = urllib.parse.urlsplit(base).scheme
    if urllib.parse.urlsplit(location).scheme not in ("https", scheme):
        raise ForgeError("the API redirects a download to an address that is not https")
    return _read(urllib.request.Request(location, headers={"User-Agent": "compose"}), limit)
