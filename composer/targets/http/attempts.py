"""What a try at a request comes to: an answer, or a failure in our errors.

`client` raises `Failed` for one try, and decides by it whether there is another one; `unanswered`
and `refused` say what kind of failure it was.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.errors import Ambiguous, TargetError, Unreachable
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TRIES_LOST = 5  # for what got no answer, or a server's failure
TRIES_UNCONNECTED = 3  # where nobody listens, or the name is unknown
TRIES_THROTTLED = 100  # patience, not their number, ends these
_LONGEST = 300  # characters of a server's own words
_LATER = "try again later"


class Refusal(TargetError):
    """A clear no to this one request: 400, 409, 422 and their like; `said` is the server's."""

    def __init__(self, message: str, *, said: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.said = said


class Failed(Exception):
    """One try came to nothing.

    `tries` is how many such tries are worth it, `harmless` that it certainly had no effect,
    `throttled` that everybody should wait, `wait` for how many seconds if the server says so, and
    `exact` that it means just those.
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
class Asked:
    """A request as errors speak of it."""

    method: str
    path: str
    host: str
    writes: bool
    hide: Callable[[str], str]
    credentials_hint: str  # what to check if the credentials are refused

    def __str__(self) -> str:
        return f"{self.method} {self.path} at {self.host}"

    def lost(self, why: str) -> Unreachable:
        """No answer that we could read: a write may have taken effect all the same."""
        kind = Ambiguous if self.writes else Unreachable
        return kind(f"{self}: {why}", hint=_LATER)

    def unsent(self, why: str) -> Unreachable:
        """Nothing was sent, and nothing will be."""
        return Unreachable(f"{self}: {why}", hint=_LATER)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever it is."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> object:
        """The body; raises `ValueError` if it isn't JSON."""
        try:
            return json.loads(self.content)
        except RecursionError as deep:
            raise ValueError("nested too deep") from deep


def told(text: object, hide: Callable[[str], str]) -> str:
    """A text of the server's as we repeat it; of an address only what stands before its query."""
    words = (
        word.partition("?")[0] if "://" in word else word for word in hide(str(text)).split(" ")
    )
    return shorten(visible(" ".join(words)), _LONGEST)
