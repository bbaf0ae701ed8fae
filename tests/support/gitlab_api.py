"""GitLab's API as far as docs/gitlab-ci.yml uses it, in memory."""

from __future__ import annotations

from typing import Any

from support.api_server import ApiServer, Asked, on, page
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
        """What a job knows of its project."""
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
    def user(self, asked: Asked) -> Any:
        return {"username": BOT}

    @on("GET", f"{AT}/merge_requests/5/notes")
    def list_notes(self, asked: Asked) -> Any:
        return page(self.notes, asked)

    @on("POST", f"{AT}/merge_requests/5/notes")
    def add_note(self, asked: Asked) -> Any:
        made = {"id": len(self.notes) + 1, "author": {"username": BOT}, **asked.body}
        self.notes.append(made)
        return made

    @on("PUT", rf"{AT}/merge_requests/5/notes/(\d+)")
    def edit_note(self, asked: Asked) -> Any:
        self.notes[int(asked.caught[0]) - 1].update(asked.body)
        return {}

    @on("GET", f"{AT}/issues")
    def list_issues(self, asked: Asked) -> Any:
        assert (asked.query["state"], asked.query["author_username"]) == ("opened", BOT)
        return page([issue for issue in self.all_issues if issue["state"] == "opened"], asked)

    @on("POST", f"{AT}/issues")
    def add_issue(self, asked: Asked) -> Any:
        number = len(self.all_issues) + 1
        made = {"iid": number, "state": "opened", "author": {"username": BOT}, **asked.body}
        self.all_issues.append(made)
        return made

    @on("PUT", rf"{AT}/issues/(\d+)")
    def edit_issue(self, asked: Asked) -> Any:
        issue = self.all_issues[int(asked.caught[0]) - 1]
        issue.update(asked.body)
        if asked.body.get("state_event") == "close":
            issue["state"] = "closed"
        return issue

    @on("POST", rf"{AT}/statuses/{HEAD}")
    def set_status(self, asked: Asked) -> Any:
        said = {**asked.body, "status": asked.body["state"]}
        self.statuses.append({"id": len(self.statuses), "author": {"username": BOT}, **said})
        return {}

    @on("GET", rf"{AT}/repository/commits/{HEAD}/statuses")
    def list_statuses(self, asked: Asked) -> Any:
        return page([s for s in self.statuses if s["name"] == asked.query["name"]], asked)

    @on("GET", rf"{AT}/repository/commits/{MERGE}/merge_requests")
    def list_merged(self, asked: Asked) -> Any:
        return [{"state": "merged", "sha": HEAD, "merge_commit_sha": MERGE}]

    @on("GET", rf"{AT}/jobs/(\d+)/artifacts/plan\.json")
    def plan(self, asked: Asked) -> Any:
        return self.plans[int(asked.caught[0])]
