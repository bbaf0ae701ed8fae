"""What we want of a forge, and the values that go in and out; `github` and `gitlab` are two."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from api import ForgeError

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_PLAN = 64 * 1024 * 1024  # bytes of a plan's JSON, as `compose apply --expect` reads


def plan_name(given: str) -> str:
    """A plan's name as it stands in files, markers, statuses and artifacts: as it was given.

    Nothing is translated, so two names are never one. Raises `ForgeError`.
    """
    if not re.fullmatch("[A-Za-z0-9-]{0,60}", given):
        raise ForgeError(f"name: {given!r} is not at most 60 letters, digits and hyphens")
    return given


def artifact_name(name: str) -> str:
    """Of the artifact that holds the plan of this name."""
    return f"compose-plan-{name}" if name else "compose-plan"


@dataclass(frozen=True, slots=True)
class Note:
    """A comment or an issue: its number in the forge, who wrote it, and what it says."""

    id: int
    author: str
    body: str


@dataclass(frozen=True, slots=True)
class Status:
    """A commit's status: `description` has the plan's digest, `url` is of the run or job."""

    ok: bool
    description: str
    url: str


class Forge(Protocol):
    """Comments, issues, statuses and artifacts of one repository. All raise `ForgeError`."""

    def me(self) -> str:
        """Who we are: the author of what we write."""

    def comments(self, number: int) -> Iterator[Note]:
        """Of a pull request, the oldest first."""

    def add_comment(self, number: int, body: str) -> None: ...

    def edit_comment(self, number: int, id: int, body: str) -> None: ...

    def issues(self) -> Iterator[Note]:
        """The open ones that we wrote."""

    def add_issue(self, title: str, body: str) -> None: ...

    def edit_issue(self, id: int, body: str, *, close: bool = False) -> None: ...

    def set_status(self, commit: str, name: str, status: Status) -> None: ...

    def status(self, commit: str, name: str) -> Status | None:
        """The last one of this name that we set."""

    def reviewed(self, commit: str) -> str | None:
        """The head of the pull request whose merge made this commit."""

    def plan(self, status: Status, name: str) -> bytes:
        """The plan's JSON that the run behind a status left as an artifact."""
