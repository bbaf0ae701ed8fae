"""Files from signed URLs: without credentials, within limits, and the URL shown nowhere.

Whoever has a signed URL has the file, so it is treated like a secret: messages name its host alone,
no error carries the HTTP client's own, which holds the URL, and that client logs nothing meanwhile.
"""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import requests
from requests.utils import get_environ_proxies
from urllib3.exceptions import HTTPError

from composer.errors import TargetError, UsageError
from composer.targets.http.address import address
from composer.targets.http.error_translation import (
    TRIES_LOST,
    Answer,
    Failed,
    RequestInfo,
    unanswered,
    wait_demanded,
)
from composer.targets.http.session import Late, Pace, TooLarge, content, in_time, new_session

if TYPE_CHECKING:
    from composer.targets.http.address import Address
    from composer.targets.http.session import SessionOptions

_REDIRECTS = 3
_LONGEST_URL = 8192
_LONGEST_WAIT = 60.0  # seconds that a server may ask for
_PLAIN = re.compile(r"[\x21-\x7e]+")
_EXPIRED = frozenset({401, 403, 404, 410})
_ACCEPT = {"Accept": "image/png, image/jpeg, image/webp, */*;q=0.5"}


class SignedUrl:
    """A URL that is as good as the file behind it; neither repr nor str show it."""

    __slots__ = ("secret",)

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __repr__(self) -> str:
        return "SignedUrl(***)"


class Expired(TargetError):
    """The server no longer gives the file for this URL; a fresh one may."""


class Downloads:
    """Fetches files for one target, on connections of their own. Thread-safe."""

    def __init__(self, place: Address, options: SessionOptions) -> None:
        self._loopback = place.loopback
        self._options = options
        self._pace = options.pace or Pace()
        self._backoff = 0.05 if place.loopback else 0.5
        self._new_session = partial(_session, place, options.connections)
        self._session = self._new_session()

    def fetch(self, url: SignedUrl, *, limit: int) -> bytes:
        """The file, of at most `limit` bytes. Raises `Expired`, `Unreachable`, `TargetError`."""
        tries = 0
        while True:
            tries += 1
            try:
                return self._follow(url.secret, limit)
            except Failed as failed:
                if tries >= failed.tries:
                    raise failed.error from None
                wait = min(failed.wait or 0.0, _LONGEST_WAIT)
            self._options.sleep(max(wait, self._pace.backoff(tries, self._backoff)))

    def close(self) -> None:
        self._session.close()

    def _follow(self, url: str, limit: int) -> bytes:
        """The file, through a few redirects."""
        for _ in range(1 + _REDIRECTS):
            info = self._checked(url)
            answer = self._answer(url, info, limit)
            if not 300 <= answer.status < 400:
                return _file(answer, info)
            url = urljoin(url, answer.headers.get("Location", ""))
        raise TargetError(f"{info}: redirected more than {_REDIRECTS} times")

    def _checked(self, url: str) -> RequestInfo:
        """How messages name it. Raises `TargetError` for a URL that nothing is sent to."""
        try:
            if len(url) > _LONGEST_URL or not _PLAIN.fullmatch(url) or "@" in urlsplit(url).netloc:
                raise ValueError
            parts = urlsplit(url)
            place = address(f"{parts.scheme}://{parts.netloc}")
        except (ValueError, UsageError):
            raise TargetError("an image's address is not an https URL: not downloaded") from None
        if parts.scheme.lower() == "http" and not self._loopback:
            raise TargetError(f"the image at {place.host} is offered without https: not downloaded")
        return RequestInfo("the", "download", place.host, False, str, "")

    def _answer(self, url: str, info: RequestInfo, limit: int) -> Answer:
        look = partial(self._options.sleep, 0.0)
        try:
            sending = partial(self._send, self._session, url, limit)
            return in_time(sending, self._options.deadline, look)
        except Late as late:
            self._session = self._new_session()  # the thread keeps the old one's connection
            raise Failed(info.lost(str(late)), tries=TRIES_LOST) from None
        except TooLarge:
            raise TargetError(f"{info}: it has more than {limit:,} bytes") from None
        except (requests.RequestException, HTTPError, OSError) as error:
            raise unanswered(info, error) from None

    def _send(self, session: requests.Session, url: str, limit: int) -> Answer:
        _is_quiet.set(True)  # of this thread, which does nothing else
        proxies = {} if self._loopback else get_environ_proxies(url)
        with session.get(
            url,
            headers=_ACCEPT,
            proxies=proxies,
            timeout=self._options.timeouts,
            allow_redirects=False,
            stream=True,
        ) as response:
            return Answer(response.status_code, response.headers, content(response, limit))


def _session(place: Address, connections: int) -> requests.Session:
    session = new_session(place, None, connections)
    session.proxies.clear()  # each URL has its own
    return session


def _file(answer: Answer, info: RequestInfo) -> bytes:
    if 200 <= answer.status < 300:
        return answer.content
    if answer.status in _EXPIRED:
        raise Expired(f"{info}: {answer.status}, its address is no longer valid")
    if answer.status >= 500 or answer.status in (408, 429):
        lost = info.lost(f"the server failed: {answer.status}")
        raise Failed(lost, tries=TRIES_LOST, wait=wait_demanded(answer.headers))
    raise TargetError(f"{info}: {answer.status}")


# --- the HTTP client's log -------------------------------------------------------------------

_is_quiet: ContextVar[bool] = ContextVar("_is_quiet", default=False)


def _may_log(record: logging.LogRecord) -> bool:
    return not _is_quiet.get()


logging.getLogger("urllib3.connectionpool").addFilter(_may_log)  # it logs whole URLs
