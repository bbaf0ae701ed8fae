"""Links to the images that the server made: signed, good for a time, and without credentials.

The key lies in the state folder, so that a link outlives a restart of the server.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from filelock import FileLock

from composer.errors import TargetError
from composer.files.atomic import no_link, write_atomically
from composer.server.request_fields import Refusal

if TYPE_CHECKING:
    from pathlib import Path

FILE = "asset-links.key"
LIFE = 7 * 24 * 3600  # seconds


@dataclass(frozen=True, slots=True, repr=False)
class AssetLinks:
    """Makes and checks links with this key; `life` is how long a new one is good, in seconds."""

    key: bytes
    life: float = LIFE

    def query(self, asset: str) -> str:
        """What a link to this image has behind the `?`."""
        expires = int(time.time() + self.life)
        return urlencode({"expires": expires, "signature": self._signature(asset, str(expires))})

    def check(self, asset: str, expires: str | None, signature: str | None) -> None:
        """Raise `Refusal` (403) for a link that this server didn't make, or that has expired."""
        expected = self._signature(asset, expires or "")
        if not hmac.compare_digest((signature or "").encode(), expected.encode()):
            raise Refusal("this link was not made by this server", status=403)
        if time.time() >= int(expires or ""):
            raise Refusal("this link has expired: ask for the asset again", status=403)

    def _signature(self, asset: str, expires: str) -> str:
        message = f"asset {asset} {expires}".encode()
        return hmac.new(self.key, message, hashlib.sha256).hexdigest()


def link_key(state: Path) -> bytes:
    """The key in this state folder, which is made where it is missing. Raises `TargetError`."""
    file = state / FILE
    try:
        with FileLock(state / "serve.lock"):
            if not os.path.lexists(file):
                write_atomically(file, secrets.token_bytes(32), mode=0o600)
            with open(file, "rb", opener=no_link) as opened:
                key = opened.read()
    except OSError as error:
        raise TargetError(
            f"{file} can't be read or written: {error.strerror or error}",
            hint="check the permissions of that folder",
        ) from error
    if len(key) < 32:
        raise TargetError(f"{file} is damaged", hint="remove it to have a new one made")
    return key
