"""The implementations of `Forge`: GitHub and GitLab, both by REST.

GitHub tells the name of a token's user by GraphQL alone.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from composer.forge.api import Api, ForgeError
from composer.forge.base import (
    MAX_PLAN,
    Forge,
    Status,
    artifact_name,
    required_token,
    to_status,
    user_name,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


_MAX_ARCHIVE = 16 * 1024 * 1024


class NoArtifact(ForgeError):
    """The run has no artifact of this name, or it has expired."""


@dataclass(frozen=True, slots=True)
class GitHub(Forge):
    """One repository on GitHub."""

    graphql: Api

    comments_path = "/issues/{number}/comments"
    comment_path = "/issues/comments/{id}"
    oldest_first: ClassVar[Mapping[str, str]] = {}
    edit_method = "PATCH"
    author_fields = ("user", "login")
    issue_fields = ("number", "body")
    open_state = "open"
    creator_parameter = "creator"
    closing: ClassVar[Mapping[str, str]] = {"state": "closed", "state_reason": "completed"}
    status_name_field = "context"
    failure_state = "failure"
    raw_path = "/raw"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> GitHub:
        """The repository that a runner's environment names. Raises `ForgeError` without a token."""
        token = required_token(env, "TOKEN", "the action's input `token`")
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        repository = env["GITHUB_REPOSITORY"]
        web = f"{env['GITHUB_SERVER_URL']}/{repository}"
        api, graphql = (Api(env[f"GITHUB_{kind}_URL"], headers) for kind in ("API", "GRAPHQL"))
        return cls(api, f"/repos/{repository}", web, graphql)

    def me(self) -> str:
        """`github-actions[bot]`, an app's `name[bot]`, or a person; REST knows only people."""
        answer = self.graphql.call("POST", "", {"query": "{viewer{login}}"})
        try:
            return str(answer["data"]["viewer"]["login"])
        except (KeyError, TypeError) as bad:
            raise ForgeError("the API does not say whom the token belongs to") from bad

    # --- what was planned, and approved --------------------------------------------------

    def status(self, commit: str, name: str) -> Status | None:
        me = self.me()
        for item in self.api.pages(f"{self.root}/commits/{commit}/statuses"):  # the newest first
            if item["context"] == name and user_name(item, "creator", "login") == me:
                return to_status(item, "state")
        return None

    def reviewed(self, commit: str) -> str | None:
        for item in self.api.pages(f"{self.root}/commits/{commit}/pulls"):
            if item.get("merged_at") and item.get("merge_commit_sha") == commit:
                return str(item["head"]["sha"])
        return None

    def plan(self, status: Status, name: str) -> bytes:
        run = re.fullmatch(rf"{re.escape(self.web)}/actions/runs/(\d+)", status.url)
        if run is None:
            raise ForgeError("the status does not link to a run of this repository")
        return self.artifact(int(run[1]), artifact_name(name), "plan.json", MAX_PLAN)

    def artifact(self, run: int, name: str, file: str, limit: int) -> bytes:
        """One file of a run's newest artifact of this name, read in memory.

        Nothing of the archive is written to the disk, so its paths and links do no harm. Raises
        `NoArtifact` if there is none.
        """
        answer = self.api.call("GET", f"{self.root}/actions/runs/{run}/artifacts", name=name)
        artifacts = [item for item in answer["artifacts"] if item["name"] == name]
        newest = max(artifacts, key=lambda item: int(item["id"]), default=None)
        if newest is None or newest.get("expired"):
            raise NoArtifact(f"run {run} has no artifact {name}")
        path = f"{self.root}/actions/artifacts/{int(newest['id'])}/zip"
        return member(self.api.download(path, min(limit, _MAX_ARCHIVE)), file, limit)

    # --- pull requests of forks ----------------------------------------------------------

    def pull_requests(self, run: Mapping[str, Any]) -> list[int]:
        """The numbers of the open pull requests that a fork's workflow run belongs to.

        The event of such a run names none. They are those from the run's branch whose head is
        still the commit of the run.
        """
        owner = run["head_repository"]["owner"]["login"]
        listed = self.api.pages(
            f"{self.root}/pulls", state="open", head=f"{owner}:{run['head_branch']}"
        )
        return [
            int(item["number"])
            for item in listed
            if item["head"]["sha"] == run["head_sha"]
            and (item["head"].get("repo") or {}).get("id") == run["head_repository"]["id"]
        ]


def event(env: Mapping[str, str]) -> dict[str, Any]:
    """The event that started the workflow."""
    parsed = json.loads(Path(env["GITHUB_EVENT_PATH"]).read_text(encoding="utf-8"))
    assert isinstance(parsed, dict)
    return parsed


def own_pull_request(trigger: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The pull request of an event; None for a fork's, where the token may not write."""
    pull: Mapping[str, Any] | None = trigger.get("pull_request")
    if pull is None:
        return None
    head, base = pull["head"].get("repo"), pull["base"]["repo"]
    return pull if head and head["id"] == base["id"] else None


def member(archive: bytes, name: str, limit: int) -> bytes:
    """A file of an untrusted ZIP archive. Raises `ForgeError`."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            if opened.getinfo(name).compress_type not in _LIMITED:
                raise ForgeError(f"{name} in the artifact uses an unsupported compression")
            with opened.open(name) as file:
                raw = file.read(limit + 1)
    except _DAMAGED as bad:
        raise ForgeError(f"the artifact has no readable {name}") from bad
    if len(raw) > limit:
        raise ForgeError(f"{name} in the artifact has more than {limit:,} bytes")
    return raw


# `zipfile` decompresses the others without a limit.
_LIMITED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    KeyError,
    ValueError,
    RuntimeError,
    OSError,
    EOFError,
)


@dataclass(frozen=True, slots=True)
class GitLab(Forge):
    """One project on GitLab."""

    comments_path = "/merge_requests/{number}/notes"
    comment_path = "/merge_requests/{number}/notes/{id}"
    oldest_first: ClassVar[Mapping[str, str]] = {"sort": "asc", "order_by": "created_at"}
    edit_method = "PUT"
    author_fields = ("author", "username")
    issue_fields = ("iid", "description")
    open_state = "opened"
    creator_parameter = "author_username"
    closing: ClassVar[Mapping[str, str]] = {"state_event": "close"}
    status_name_field = "name"
    failure_state = "failed"
    raw_path = "/-/raw"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> GitLab:
        """The project that a job's environment names. Raises `ForgeError` without a token."""
        variable = "COMPOSE_GITLAB_TOKEN"
        token = required_token(env, variable, f"the variable {variable}")
        api = Api(env["CI_API_V4_URL"], {"PRIVATE-TOKEN": token})
        return cls(api, f"/projects/{env['CI_PROJECT_ID']}", env["CI_PROJECT_URL"])

    def me(self) -> str:
        return str(self.api.call("GET", "/user")["username"])

    def status(self, commit: str, name: str) -> Status | None:
        path, me = f"{self.root}/repository/commits/{commit}/statuses", self.me()
        listed = self.api.pages(path, name=name, all="true")
        ours = [item for item in listed if user_name(item, *self.author_fields) == me]
        last = max(ours, key=lambda item: int(item["id"]), default=None)
        return None if last is None else to_status(last, "status")

    def reviewed(self, commit: str) -> str | None:
        for item in self.api.pages(f"{self.root}/repository/commits/{commit}/merge_requests"):
            commits = (item.get("merge_commit_sha"), item.get("squash_commit_sha"), item["sha"])
            if item["state"] == "merged" and commit in commits:
                return str(item["sha"])
        return None

    def plan(self, status: Status, name: str) -> bytes:
        job = re.fullmatch(rf"{re.escape(self.web)}/-/jobs/(\d+)", status.url)
        if job is None:
            raise ForgeError("the status does not link to a job of this project")
        return self.api.download(f"{self.root}/jobs/{job[1]}/artifacts/plan.json", MAX_PLAN)
