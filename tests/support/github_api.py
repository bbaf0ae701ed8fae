"""The part of GitHub's API that the action uses, in memory, and a runner's events."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from support.api_server import ApiServer, ErrorAnswer, Request, on, page

BOT = "github-actions[bot]"
REPOSITORY, ID, FORK = "studio/models", 7, 8
HEAD, MERGE = "a" * 40, "b" * 40
AT = f"/repos/{REPOSITORY}"


def zipped(files: dict[str, bytes]) -> bytes:
    """An artifact's archive."""
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return into.getvalue()


def pull_request(number: int = 5, *, fork: bool = False) -> dict[str, Any]:
    """The event of a pull request."""
    head = {"sha": HEAD, "ref": "topic", "repo": {"id": FORK if fork else ID}}
    base = {"sha": "c" * 40, "repo": {"id": ID}}
    return {"pull_request": {"number": number, "head": head, "base": base}}


def workflow_run(*, repository: int = FORK, event: str = "pull_request") -> dict[str, Any]:
    """The event of a completed run; that of a fork's run names no pull request."""
    run = {
        "id": 99,
        "event": event,
        "head_sha": HEAD,
        "head_branch": "topic&state=all",
        "head_repository": {"id": repository, "owner": {"login": "stranger"}},
        "pull_requests": [],
    }
    return {"workflow_run": run, "repository": {"id": ID}}


class GitHubApi(ApiServer):
    """One repository; tests fill and read its dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.comments: dict[int, list[dict[str, Any]]] = {}
        self.all_issues: list[dict[str, Any]] = []
        self.statuses: dict[str, list[dict[str, Any]]] = {}
        self.merged: list[dict[str, Any]] = []
        self.pulls: list[dict[str, Any]] = []
        self.artifacts: dict[int, dict[str, bytes]] = {}

    @property
    def env(self) -> dict[str, str]:
        """The runner's variables, with the URL of this API."""
        return {
            "GITHUB_API_URL": self.url,
            "GITHUB_GRAPHQL_URL": f"{self.url}/graphql",
            "GITHUB_SERVER_URL": "https://github.test",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_RUN_ID": "42",
            "GITHUB_SHA": MERGE,
        }

    def comment(self, number: int, author: str, body: str) -> dict[str, Any]:
        """Add a comment; returns it."""
        id = 1000 + sum(map(len, self.comments.values()))
        made = {"id": id, "user": {"login": author}, "body": body}
        self.comments.setdefault(number, []).append(made)
        return made

    def was_merged(self) -> None:
        """Merge the pull request whose merge commit the runner is on."""
        head = {"sha": HEAD}
        self.merged = [
            {"merged_at": None, "merge_commit_sha": MERGE, "head": {"sha": "d" * 40}},
            {"merged_at": "now", "merge_commit_sha": MERGE, "head": head},
        ]

    @on("POST", "/graphql")
    def viewer(self, request: Request) -> Any:
        assert request.body == {"query": "{viewer{login}}"}
        return {"data": {"viewer": {"login": BOT}}}

    @on("GET", rf"{AT}/issues/(\d+)/comments")
    def list_comments(self, request: Request) -> Any:
        return page(self.comments.get(int(request.groups[0]), []), request)

    @on("POST", rf"{AT}/issues/(\d+)/comments")
    def add_comment(self, request: Request) -> Any:
        return self.comment(int(request.groups[0]), BOT, request.body["body"])

    @on("PATCH", rf"{AT}/issues/comments/(\d+)")
    def edit_comment(self, request: Request) -> Any:
        everyone = [comment for listed in self.comments.values() for comment in listed]
        edited = next(comment for comment in everyone if comment["id"] == int(request.groups[0]))
        if edited["user"]["login"] != BOT:
            raise ErrorAnswer(403, "another author's comment")
        edited["body"] = request.body["body"].replace("\n", "\r\n")  # as GitHub stores it
        return edited

    @on("GET", f"{AT}/issues")
    def list_issues(self, request: Request) -> Any:
        state, author = request.query["state"], request.query["creator"]
        of_state = [issue for issue in self.all_issues if issue["state"] == state]
        return page([issue for issue in of_state if issue["user"]["login"] == author], request)

    @on("POST", f"{AT}/issues")
    def add_issue(self, request: Request) -> Any:
        number = len(self.all_issues) + 1
        made = {"number": number, "state": "open", "user": {"login": BOT}, **request.body}
        self.all_issues.append(made)
        return made

    @on("PATCH", rf"{AT}/issues/(\d+)")
    def edit_issue(self, request: Request) -> Any:
        self.all_issues[int(request.groups[0]) - 1].update(request.body)
        return {}

    @on("POST", rf"{AT}/statuses/(\w+)")
    def set_status(self, request: Request) -> Any:
        assert len(request.body["description"]) <= 140
        status = {**request.body, "creator": {"login": BOT}}
        self.statuses.setdefault(request.groups[0], []).insert(0, status)
        return status

    @on("GET", rf"{AT}/commits/(\w+)/statuses")
    def list_statuses(self, request: Request) -> Any:
        return page(self.statuses.get(request.groups[0], []), request)

    @on("GET", rf"{AT}/commits/(\w+)/pulls")
    def list_merged(self, request: Request) -> Any:
        return page(self.merged if request.groups[0] == MERGE else [], request)

    @on("GET", f"{AT}/pulls")
    def list_pulls(self, request: Request) -> Any:
        assert request.query["state"] == "open"
        return page([p for p in self.pulls if request.query["head"] == p["head"]["label"]], request)

    @on("GET", rf"{AT}/actions/runs/(\d+)/artifacts")
    def list_artifacts(self, request: Request) -> Any:
        run, name = int(request.groups[0]), request.query["name"]
        names = [name] if name in self.artifacts.get(run, {}) else []
        return {"artifacts": [{"id": run * 10, "name": n, "expired": False} for n in names]}

    @on("GET", rf"{AT}/actions/artifacts/(\d+)/zip")
    def where_artifact_is(self, request: Request) -> Any:
        raise ErrorAnswer(302, location=f"{self.url}/storage/{request.groups[0]}")

    @on("GET", r"/storage/(\d+)")
    def artifact(self, request: Request) -> Any:
        if request.token:
            raise ErrorAnswer(400, "a signed address takes no token")
        (archive,) = self.artifacts[int(request.groups[0]) // 10].values()
        return archive
