"""What the clients of GitHub and GitLab share, and the values that go in and out.

`github.GitHub` and `gitlab.GitLab` are a `Forge`; `review` and `fork` use it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from composer.errors import ExitStatus
from composer.forge.api import Api, ForgeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_PLAN = 64 * 1024 * 1024  # bytes of a plan's JSON; `compose apply --expect` reads as many


class MissingVariable(ForgeError):
    """The environment is not that of a pipeline."""

    exit_status = ExitStatus.USAGE


class Environment(dict[str, str]):
    """The environment's variables; to read one that is not set raises `MissingVariable`."""

    def __missing__(self, name: str) -> str:
        raise MissingVariable(
            f"{name} is not set",
            hint="this command runs in the pipelines of action.yml and docs/gitlab-ci.yml",
        )


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
    return read_json(file, "a plan")


def read_json(file: Path, what: str) -> dict[str, Any] | None:
    """The JSON of `what` in a file; None if there is no such file. Raises `ForgeError`."""
    if not file.is_file():
        return None
    if file.stat().st_size > MAX_PLAN:
        raise ForgeError(f"{file.name} is too large to be {what}")
    try:
        parsed = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as bad:
        raise ForgeError(f"{file.name} does not contain the JSON of {what}") from bad
    if not isinstance(parsed, dict):
        raise ForgeError(f"{file.name} does not contain the JSON of {what}")
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


@dataclass(frozen=True, slots=True)
class Forge:
    """Comments, issues, statuses and artifacts of one repository. All raise `ForgeError`.

    `root` is the path of the repository in the API, `web` the URL of its pages. A subclass says how
    its API names things; a path may contain `{number}` (of the pull request) and `{id}`.
    """

    api: Api
    root: str
    web: str

    comments_path: ClassVar[str]
    comment_path: ClassVar[str]
    oldest_first: ClassVar[Mapping[str, str]]  # parameters for a listing of comments
    edit_method: ClassVar[str]
    author_fields: ClassVar[tuple[str, str]]  # of a comment or an issue, and of that author
    issue_fields: ClassVar[tuple[str, str]]  # the number and the text of an issue
    open_state: ClassVar[str]
    creator_parameter: ClassVar[str]
    closing: ClassVar[Mapping[str, str]]  # what closes an issue
    status_name_field: ClassVar[str]
    failure_state: ClassVar[str]
    raw_path: ClassVar[str]  # from `web` to a file of a branch, before the branch's name

    def me(self) -> str:
        """The user name of the token: the author of what compose writes."""
        raise NotImplementedError

    def comments(self, number: int) -> Iterator[Note]:
        """The comments of a pull request, the oldest first."""
        path = self.root + self.comments_path.format(number=number)
        for item in self.api.pages(path, **self.oldest_first):
            yield self._note(item, "id", "body")

    def add_comment(self, number: int, body: str) -> None:
        path = self.root + self.comments_path.format(number=number)
        self.api.call("POST", path, {"body": body})

    def edit_comment(self, number: int, id: int, body: str) -> None:
        path = self.root + self.comment_path.format(number=number, id=id)
        self.api.call(self.edit_method, path, {"body": body})

    def issues(self) -> Iterator[Note]:
        """The open issues that this token opened."""
        query = {"state": self.open_state, self.creator_parameter: self.me()}
        for item in self.api.pages(f"{self.root}/issues", **query):
            if "pull_request" not in item:  # GitHub lists those too
                yield self._note(item, *self.issue_fields)

    def add_issue(self, title: str, body: str) -> None:
        text = {self.issue_fields[1]: body}
        self.api.call("POST", f"{self.root}/issues", {"title": title, **text})

    def edit_issue(self, id: int, body: str, *, close: bool = False) -> None:
        text = {self.issue_fields[1]: body}
        closing = self.closing if close else {}
        self.api.call(self.edit_method, f"{self.root}/issues/{id}", {**text, **closing})

    def set_status(self, commit: str, name: str, status: Status) -> None:
        body = {
            self.status_name_field: name,
            "state": "success" if status.ok else self.failure_state,
            "description": status.description,
            "target_url": status.url,
        }
        self.api.call("POST", f"{self.root}/statuses/{commit}", body)

    def status(self, commit: str, name: str) -> Status | None:
        """The last status of this name that this token set."""
        raise NotImplementedError

    def reviewed(self, commit: str) -> str | None:
        """The head commit of the pull request whose merge made this commit."""
        raise NotImplementedError

    def plan(self, status: Status, name: str) -> bytes:
        """The plan's JSON, from the artifact of the run that set the status."""
        raise NotImplementedError

    def _note(self, item: Mapping[str, Any], id_field: str, text_field: str) -> Note:
        author = user_name(item, *self.author_fields)
        return Note(int(item[id_field]), author, item.get(text_field) or "")


def user_name(item: Mapping[str, Any], user_field: str, name_field: str) -> str:
    """The name of a user in an item of the API; empty if it names none."""
    return str((item.get(user_field) or {}).get(name_field) or "")


def to_status(item: Mapping[str, Any], state_field: str) -> Status:
    """A commit's status, as the API answers it."""
    description, url = item.get("description") or "", item.get("target_url") or ""
    return Status(item[state_field] == "success", description, url)


def required_token(env: Mapping[str, str], variable: str, what: str) -> str:
    """The token in this variable; raises `ForgeError` without one."""
    token = env.get(variable)
    if not token:
        raise ForgeError(f"there is no token: set {what}")
    return token
