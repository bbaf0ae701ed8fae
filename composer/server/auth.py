"""Who may call: the key and the secret, HTTP Basic, the `Host` header, and links to results.

`compose serve` gets its credentials from `credentials`; `app` checks each request.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import os
import secrets
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock

from composer.errors import CredentialsError, TargetError
from composer.files.atomic import write_atomically
from composer.server.request_fields import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KEY, SECRET = "SCENARIO_SDK_API_KEY", "SCENARIO_SDK_API_SECRET"
FILE = "serve.json"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
ANYWHERE = frozenset({"0.0.0.0", "::"})
LINK_LIFE = 3600  # seconds for which the link to a result is good


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """The one key and secret of this server. `made`: by this start; `file`: where they are kept."""

    key: str
    secret: str
    file: Path | None = None
    made: bool = False


def credentials(env: Mapping[str, str], state: Path) -> Credentials:
    """Those of the environment, else those in `serve.json`, which is made where it is missing.

    Raises `CredentialsError` if the environment has only one of the two, `TargetError` if the
    file can't be used.
    """
    key, secret = env.get(KEY), env.get(SECRET)
    if key and secret:
        return Credentials(key, secret)
    if key or secret:
        raise CredentialsError(f"only one of {KEY} and {SECRET} is set", hint="set both, or none")
    file = state / FILE
    with FileLock(state / "serve.lock"):
        try:
            return _read_file(file) if os.path.lexists(file) else _make_file(file)
        except OSError as error:
            raise TargetError(
                f"{file} can't be read or written: {error.strerror or error}",
                hint=f"check the permissions of that folder, or set {KEY} and {SECRET}",
            ) from error


def _read_file(file: Path) -> Credentials:
    if file.is_symlink() or not file.is_file():
        raise TargetError(
            f"{file} is a link or not a file", hint="remove it to have a new one made"
        )
    if os.name == "posix":
        file.chmod(0o600)
    try:
        stored = json.loads(file.read_bytes())
        key, secret = stored["key"], stored["secret"]
        if not (key and secret and isinstance(key, str) and isinstance(secret, str)):
            raise ValueError("the file has no key and secret")
        return Credentials(key, secret, file)
    except (ValueError, KeyError, TypeError) as error:
        raise TargetError(f"{file} is damaged", hint="remove it to have a new one made") from error


def _make_file(file: Path) -> Credentials:
    made = Credentials("key_" + secrets.token_urlsafe(16), secrets.token_urlsafe(32), file, True)
    body = json.dumps({"key": made.key, "secret": made.secret}) + "\n"
    write_atomically(file, body.encode(), mode=0o600)
    return made


def check_basic(header: str | None, expected: Credentials) -> None:
    """Raise `Refusal` (401) unless this `Authorization` is the server's key and secret."""
    scheme, _, rest = (header or "").partition(" ")
    if scheme.lower() == "bearer":
        raise Refusal(
            "this server takes a key and a secret (HTTP Basic), not a bearer token", status=401
        )
    given = _pair(rest) if scheme.lower() == "basic" else b""
    if not hmac.compare_digest(given, f"{expected.key}:{expected.secret}".encode()):
        raise Refusal("the key or the secret is missing or wrong", status=401)


def _pair(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except ValueError:
        return b""


def check_host(header: str | None, bound: str) -> None:
    """Raise `Refusal` (421) unless this `Host` is the server's.

    A web page can make a name of its own lead here (DNS rebinding), but can't forge the header.
    """
    name = host_name(header or "")
    if name in LOOPBACK or name == bound.lower():
        return
    if bound in ANYWHERE and (_is_address(name) or name == socket.gethostname().lower()):
        return
    raise Refusal("this server does not answer requests for that Host", status=421)


def host_name(header: str) -> str:
    """The name or address in a `Host` header, without port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower().rstrip(".")


def is_loopback(host: str) -> bool:
    """Whether this is an address that only this machine reaches."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def link_token(job: str, credentials: Credentials) -> str:
    """What makes the link to a result unguessable: only the holder of the secret can make it."""
    mac = hmac.new(credentials.secret.encode(), f"download {job}".encode(), hashlib.sha256)
    return mac.hexdigest()


def check_link(job: str, token: str, credentials: Credentials) -> None:
    """Raise `Refusal` (403) for a link that this server didn't make."""
    if not hmac.compare_digest(token.encode(), link_token(job, credentials).encode()):
        raise Refusal("this link was not made by this server", status=403)
