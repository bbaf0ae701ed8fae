"""The part of GitLab's API that docs/gitlab-ci.yml uses, in memory."""

from __future__ import annotations

from typing import Any

from support.api_server import ApiServer, Request, on, page
from support.github_api import HEAD, MERGE

BOT = "project_7_bot"
AT = "/projects/7"


class GitLabApi(ApiServer):
    """One project with one merge request, number 5."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[dict[str, Any]] = []
        self.all_issues: list[dict[str, Any]] = []
        self.statuses: list[dict[str, Any]] = []
        self.plans: dict[int, bytes] = {}

    @property
    def env(self) -> dict[str, str]:
        """The variables of a job."""
        return {
            "CI_API_V4_URL": self.url,
            "CI_PROJECT_ID": "7",
            "CI_PROJECT_URL": "https://gitlab.test/studio/models",
            "CI_MERGE_REQUEST_IID": "5",
            "CI_COMMIT_SHA": HEAD,
            "CI_JOB_URL": "https://gitlab.test/studio/models/-/jobs/42",
            "COMPOSE_GITLAB_TOKEN": "the-projects-token",
        }

    @on("GET", "/user")
    def user(self, request: Request) -> Any:
        return {"username": BOT}

    @on("GET", f"{AT}/merge_requests/5/notes")
    def list_notes(self, request: Request) -> Any:
        return page(self.notes, request)

    @on("POST", f"{AT}/merge_requests/5/notes")
    def add_note(self, request: Request) -> Any:
        made = {"id": len(self.notes) + 1, "author": {"username": BOT}, **request.body}
        self.notes.append(made)
        return made

    @on("PUT", rf"{AT}/merge_requests/5/notes/(\d+)")
    def edit_note(self, request: Request) -> Any:
        self.notes[int(request.groups[0]) - 1].update(request.body)
        return {}

    @on("GET", f"{AT}/issues")
    def list_issues(self, request: Request) -> Any:
        assert (request.query["state"], request.query["author_username"]) == ("opened", BOT)
        return page([issue for issue in self.all_issues if issue["state"] == "opened"], request)

    @on("POST", f"{AT}/issues")
    def add_issue(self, request: Request) -> Any:
        number = len(self.all_issues) + 1
        made = {"iid": number, "state": "opened", "author": {"username": BOT}, **request.body}
        self.all_issues.append(made)
        return made

    @on("PUT", rf"{AT}/issues/(\d+)")
    def edit_issue(self, request: Request) -> Any:
        issue = self.all_issues[int(request.groups[0]) - 1]
        issue.update(request.body)
        if request.body.get("state_event") == "close":
            issue["state"] = "closed"
        return issue

    @on("POST", rf"{AT}/statuses/{HEAD}")
    def set_status(self, request: Request) -> Any:
        status = {**request.body, "status": request.body["state"], "author": {"username": BOT}}
        self.statuses.append({"id": len(self.statuses), **status})
        return {}

    @on("GET", rf"{AT}/repository/commits/{HEAD}/statuses")
    def list_statuses(self, request: Request) -> Any:
        return page([s for s in self.statuses if s["name"] == request.query["name"]], request)

    @on("GET", rf"{AT}/repository/commits/{MERGE}/merge_requests")
    def list_merged(self, request: Request) -> Any:
        return [{"state": "merged", "sha": HEAD, "merge_commit_sha": MERGE}]

    @on("GET", rf"{AT}/jobs/(\d+)/artifacts/plan\.json")
    def plan(self, request: Request) -> Any:
        return self.plans[int(request.groups[0])]
