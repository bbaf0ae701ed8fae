"""Packages that only some commands need: they come with an extra, which may not be installed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from composer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def needing(words: str, extras: str) -> Iterator[None]:
    """Around imports: raise `UsageError` for a package of these extras that is missing.

    `words` begin the message, as `the server needs`.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        hint = f"pip install 'lora-compose[{extras}]'"
        raise UsageError(f"{words} {missing.name}", hint=hint) from missing
