"""GitLab's implementation of `Forge`: merge requests, notes, issues and external statuses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from composer.forge.api import Api, ForgeError
from composer.forge.base import MAX_PLAN, Forge, Status, required_token, to_status, user_name

if TYPE_CHECKING:
    from collections.abc import Mapping


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
