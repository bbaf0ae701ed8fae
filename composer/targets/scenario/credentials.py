"""The credentials of a target: read from the environment, and never shown.

The kind `scenario` makes `Credentials`; the HTTP client puts them into requests and removes them
from every text that a server returns.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from composer.errors import CredentialsError

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY, SECRET, TOKEN = "SCENARIO_SDK_API_KEY", "SCENARIO_SDK_API_SECRET", "SCENARIO_SDK_JWT"


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """An `Authorization` header's value; neither repr nor str show any of it."""

    header: str
    secrets: tuple[str, ...] = field(default=())  # texts that must never be shown, longest first

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Credentials:
        """Key and secret, else a bearer token: the variables of the official client.

        Raises `CredentialsError` with what to set.
        """
        key, secret, token = (_value(env, name) for name in (KEY, SECRET, TOKEN))
        if key and secret:
            return cls.basic(key, secret)
        if token:
            return cls.bearer(token)
        if key or secret:
            given, missing = (KEY, SECRET) if key else (SECRET, KEY)
            raise CredentialsError(
                f"{given} is set, but {missing} is not", hint=f"set {missing}, or {TOKEN} alone"
            )
        raise CredentialsError(
            f"no credentials: {KEY} and {SECRET} not set",
            hint=f"set {KEY} and {SECRET}, or {TOKEN}",
        )

    @classmethod
    def basic(cls, key: str, secret: str) -> Credentials:
        """HTTP Basic, RFC 7617."""
        pair = _base64(f"{key}:{secret}")
        return cls(f"Basic {pair}", _secrets(pair, key, secret, _base64(key), _base64(secret)))

    @classmethod
    def bearer(cls, token: str) -> Credentials:
        """A bearer token, RFC 6750."""
        return cls(f"Bearer {token}", _secrets(token, _base64(token)))

    @property
    def hint(self) -> str:
        """What to check if the target refuses them."""
        return f"check {KEY} and {SECRET} (or {TOKEN}), and the project"

    def hide(self, text: str) -> str:
        """The text without any of the secrets, in case a server returns them."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def __repr__(self) -> str:
        return f"Credentials({self.header.split()[0]} ***)"


def _value(env: Mapping[str, str], name: str) -> str:
    """A variable without white space around it. Raises `CredentialsError`, never showing it."""
    value = env.get(name, "").strip()
    if not all("\x21" <= character <= "\x7e" for character in value):
        raise CredentialsError(
            f"{name} has characters that no credential can have", hint="copy it again"
        )
    if name == KEY and ":" in value:
        raise CredentialsError(f"{name} has a colon, which no key can have", hint="copy it again")
    return value


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


def _secrets(*texts: str) -> tuple[str, ...]:
    """Longest first, so that none is left in part; very short texts are not hidden."""
    return tuple(sorted({text for text in texts if len(text) > 3}, key=len, reverse=True))
