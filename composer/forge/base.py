"""What compose needs of a forge, and the values that go in and out.

`github.GitHub` and `gitlab.GitLab` implement `Forge`; `review` and `fork` use it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from composer.forge.api import ForgeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_PLAN = 64 * 1024 * 1024  # bytes of a plan's JSON; `compose apply --expect` reads as many


def plan_name(given: str) -> str:
    """A plan's name as files, markers, statuses and artifacts contain it: exactly as given.

    Nothing is replaced, so two names never become one. Raises `ForgeError`.
    """
    if not re.fullmatch("[A-Za-z0-9-]{0,60}", given):
        raise ForgeError(f"name: {given!r} is not at most 60 letters, digits and hyphens")
    return given


def artifact_name(name: str) -> str:
    """The name of the artifact that holds the plan of this name."""
    return f"compose-plan-{name}" if name else "compose-plan"


def read_plan(file: Path) -> dict[str, Any] | None:
    """A plan's JSON; None if there is no such file. Raises `ForgeError`."""
    if not file.is_file():
        return None
    if file.stat().st_size > MAX_PLAN:
        raise ForgeError(f"{file.name} is too large to be a plan")
    try:
        parsed = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as bad:
        raise ForgeError(f"{file.name} does not contain the JSON of a plan") from bad
    if not isinstance(parsed, dict):
        raise ForgeError(f"{file.name} does not contain the JSON of a plan")
    return parsed


def drifted(plan: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The actions of a plan whose models have drifted."""
    return [action for action in (plan or {}).get("actions", []) if action.get("drift")]


@dataclass(frozen=True, slots=True)
class Note:
    """A comment or an issue: its number in the forge, its author's name, and its text."""

    id: int
    author: str
    body: str


@dataclass(frozen=True, slots=True)
class Status:
    """A commit's status: `description` has the plan's digest, `url` is that of the run or job."""

    ok: bool
    description: str
    url: str


class Forge(Protocol):
    """Comments, issues, statuses and artifacts of one repository. All raise `ForgeError`."""

    def me(self) -> str:
        """The user name of the token: the author of what compose writes."""

    def comments(self, number: int) -> Iterator[Note]:
        """The comments of a pull request, the oldest first."""

    def add_comment(self, number: int, body: str) -> None: ...

    def edit_comment(self, number: int, id: int, body: str) -> None: ...

    def issues(self) -> Iterator[Note]:
        """The open issues that this token opened."""

    def add_issue(self, title: str, body: str) -> None: ...

    def edit_issue(self, id: int, body: str, *, close: bool = False) -> None: ...

    def set_status(self, commit: str, name: str, status: Status) -> None: ...

    def status(self, commit: str, name: str) -> Status | None:
        """The last status of this name that this token set."""

    def reviewed(self, commit: str) -> str | None:
        """The head commit of the pull request whose merge made this commit."""

    def plan(self, status: Status, name: str) -> bytes:
        """The plan's JSON, from the artifact of the run that set the status."""
