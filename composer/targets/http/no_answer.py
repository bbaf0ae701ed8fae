"""Why a request got no answer, out of what three libraries raise: was anything sent at all?

Used by the client.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import requests
from urllib3.exceptions import ConnectTimeoutError

from composer.errors import Unreachable
from composer.targets.http.attempts import TRIES_LOST, TRIES_UNCONNECTED, Asked, Failed
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator


def unanswered(asked: Asked, error: Exception) -> Failed:
    """The error of a request that got no answer."""
    links = list(_links(error))
    why = _why(links)
    if any(isinstance(link, _NEVER) for link in links):
        return Failed(Unreachable(f"{asked.host} can't be reached: {why}"), harmless=True)
    if any(isinstance(link, _UNCONNECTED) for link in links):
        unconnected = Unreachable(
            f"{asked.host} can't be reached: {why}",
            hint="check the network, and the target's address",
        )
        return Failed(unconnected, tries=TRIES_UNCONNECTED, harmless=True)
    return Failed(asked.lost(why), tries=TRIES_LOST)


# Both mean that nothing was sent: another try can't help, or may.
_NEVER = (
    ssl.SSLCertVerificationError,
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
)
_UNCONNECTED = (ConnectTimeoutError, socket.gaierror, requests.exceptions.ProxyError)


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


def _why(links: list[BaseException]) -> str:
    for link in links:
        if isinstance(link, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {visible(link.verify_message)}"
        if isinstance(link, socket.gaierror):
            return "its name is not known"
        if isinstance(link, requests.exceptions.ProxyError):
            return "the proxy gives no connection"
        if isinstance(link, requests.exceptions.Timeout | TimeoutError):
            return "no answer in time"
    said = (link.strerror for link in links if isinstance(link, OSError) and link.strerror)
    return visible(next(said, "the connection broke"))
