"""GitLab's implementation of `Forge`: merge requests, notes, issues and external statuses."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from composer.forge.api import Api, ForgeError
from composer.forge.base import MAX_PLAN, Note, Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class GitLab:
    """One project, by its number; `web` is the URL of its pages."""

    api: Api
    project: str
    web: str

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> GitLab:
        """The project that a job's environment names. Raises `ForgeError` without a token."""
        token = env.get("COMPOSE_GITLAB_TOKEN")
        if not token:
            raise ForgeError("there is no token: set the variable COMPOSE_GITLAB_TOKEN")
        api = Api(env["CI_API_V4_URL"], {"PRIVATE-TOKEN": token})
        return cls(api, env["CI_PROJECT_ID"], env["CI_PROJECT_URL"])

    def _at(self, path: str) -> str:
        return f"/projects/{self.project}{path}"

    def me(self) -> str:
        return str(self.api.call("GET", "/user")["username"])

    def comments(self, number: int) -> Iterator[Note]:
        path = self._at(f"/merge_requests/{number}/notes")
        for item in self.api.pages(path, sort="asc", order_by="created_at"):
            yield Note(int(item["id"]), _author(item), item["body"])

    def add_comment(self, number: int, body: str) -> None:
        self.api.call("POST", self._at(f"/merge_requests/{number}/notes"), {"body": body})

    def edit_comment(self, number: int, id: int, body: str) -> None:
        self.api.call("PUT", self._at(f"/merge_requests/{number}/notes/{id}"), {"body": body})

    def issues(self) -> Iterator[Note]:
        for item in self.api.pages(self._at("/issues"), state="opened", author_username=self.me()):
            yield Note(int(item["iid"]), _author(item), item.get("description") or "")

    def add_issue(self, title: str, body: str) -> None:
        self.api.call("POST", self._at("/issues"), {"title": title, "description": body})

    def edit_issue(self, id: int, body: str, *, close: bool = False) -> None:
        closed = {"state_event": "close"} if close else {}
        self.api.call("PUT", self._at(f"/issues/{id}"), {"description": body, **closed})

    def set_status(self, commit: str, name: str, status: Status) -> None:
        body = {
            "name": name,
            "state": "success" if status.ok else "failed",
            "description": status.description,
            "target_url": status.url,
        }
        self.api.call("POST", self._at(f"/statuses/{commit}"), body)

    def status(self, commit: str, name: str) -> Status | None:
        path, me = self._at(f"/repository/commits/{commit}/statuses"), self.me()
        ours = [i for i in self.api.pages(path, name=name, all="true") if _author(i) == me]
        if not ours:
            return None
        last = max(ours, key=lambda item: int(item["id"]))
        description, url = last.get("description") or "", last.get("target_url") or ""
        return Status(last["status"] == "success", description, url)

    def reviewed(self, commit: str) -> str | None:
        for item in self.api.pages(self._at(f"/repository/commits/{commit}/merge_requests")):
            commits = (item.get("merge_commit_sha"), item.get("squash_commit_sha"), item["sha"])
            if item["state"] == "merged" and commit in commits:
                return str(item["sha"])
        return None

    def plan(self, status: Status, name: str) -> bytes:
        job = re.fullmatch(rf"{re.escape(self.web)}/-/jobs/(\d+)", status.url)
        if job is None:
            raise ForgeError("the status does not link to a job of this project")
        return self.api.download(self._at(f"/jobs/{job[1]}/artifacts/plan.json"), MAX_PLAN)


def _author(item: Mapping[str, Any]) -> str:
    return str((item.get("author") or {}).get("username") or "")
