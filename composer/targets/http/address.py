"""The base URL of a target, checked and normalised to the form that the lock keeps.

Used to name a target in the lock and to call it; the module does without `requests`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from composer.errors import UsageError
from composer.model import is_id
from composer.text import shorten, visible

if TYPE_CHECKING:
    from urllib.parse import SplitResult

_HINT = "write it like https://api.cloud.scenario.com/v1"
_WHOLE = re.compile(r"[\x21-\x7e]+")  # urlsplit quietly drops tabs and line ends
_HOST = re.compile(r"(?!.{254})[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*")
_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Address:
    """A target's base URL, normalised: no trailing slash, no default port."""

    base: str
    host: str  # with its port, if that isn't the default one: for messages
    loopback: bool
    project: str | None = None

    @property
    def key(self) -> str:
        """The target's name in the lock."""
        return f"{self.base}#{self.project}" if self.project else self.base


def address(url: str, project: str | None = None) -> Address:
    """The address that a flag or the environment gives.

    Raises `UsageError` for anything but a plain https URL (http on loopback). A URL with a user, a
    query or a fragment is not repeated in the message, since it may hold a secret.
    """
    parts = _parts(url)
    scheme, host, port = parts.scheme.lower(), _host(parts), _port(parts)
    path = parts.path.rstrip("/")
    if scheme not in _PORTS or not host or not _PATH.fullmatch(path):
        raise UsageError(f"{_quoted(url)} is not the URL of a target", hint=_HINT)
    loopback = _is_loopback(host)
    if scheme == "http" and not loopback:
        raise UsageError(
            f"{_quoted(url)} would send the credentials unencrypted", hint="write https://"
        )
    if project is not None and not is_id(project):
        raise UsageError(f"{_quoted(project)} is not a project id", hint="copy it from Scenario")
    place = _in_url(host, None if port == _PORTS[scheme] else port)
    return Address(f"{scheme}://{place}{path}", place, loopback, project)


def _in_url(host: str, port: int | None) -> str:
    return (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if "@" in url or "?" in url or "#" in url:
        raise UsageError(
            "the target's URL has a user, a query or a fragment",
            hint=f"credentials and project are set separately; {_HINT}",
        )
    if not _WHOLE.fullmatch(url) or not parts.netloc:
        raise UsageError(f"{_quoted(url)} is not the URL of a target", hint=_HINT)
    return parts


def _host(parts: SplitResult) -> str:
    """The host in lower case, IPv6 in its short form; empty if it is not a host."""
    host = parts.hostname or ""
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host)) if "%" not in host else ""
        except ValueError:
            return ""
    return host if _HOST.fullmatch(host) else ""


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError as bad:
        raise UsageError("the port of the target's URL is not valid", hint=_HINT) from bad


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _quoted(text: str) -> str:
    return shorten(visible(text), 100)
