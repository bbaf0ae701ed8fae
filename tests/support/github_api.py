"""GitHub's API as far as the action uses it, in memory, and the events of a runner."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from support.api_server import ApiServer, Asked, Denied, on, page

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
    """The event of a run that ended; one of a fork names no pull request."""
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
    """One repository; a test fills its dictionaries, or looks into them."""

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
        """What a runner says of itself and of where the API is."""
        return {
            "GITHUB_API_URL": self.url,
            "GITHUB_GRAPHQL_URL": f"{self.url}/graphql",
            "GITHUB_SERVER_URL": "https://github.test",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_RUN_ID": "42",
            "GITHUB_SHA": MERGE,
        }

    def comment(self, number: int, author: str, body: str) -> dict[str, Any]:
        """Put a comment there."""
        id = 1000 + sum(map(len, self.comments.values()))
        made = {"id": id, "user": {"login": author}, "body": body}
        self.comments.setdefault(number, []).append(made)
        return made

    def was_merged(self) -> None:
        """The pull request of the runner's commit is merged."""
        head = {"sha": HEAD}
        self.merged = [
            {"merged_at": None, "merge_commit_sha": MERGE, "head": {"sha": "d" * 40}},
            {"merged_at": "now", "merge_commit_sha": MERGE, "head": head},
        ]

    @on("POST", "/graphql")
    def viewer(self, asked: Asked) -> Any:
        assert asked.body == {"query": "{viewer{login}}"}
        return {"data": {"viewer": {"login": BOT}}}

    @on("GET", rf"{AT}/issues/(\d+)/comments")
    def list_comments(self, asked: Asked) -> Any:
        return page(self.comments.get(int(asked.caught[0]), []), asked)

    @on("POST", rf"{AT}/issues/(\d+)/comments")
    def add_comment(self, asked: Asked) -> Any:
        return self.comment(int(asked.caught[0]), BOT, asked.body["body"])

    @on("PATCH", rf"{AT}/issues/comments/(\d+)")
    def edit_comment(self, asked: Asked) -> Any:
        everyone = [comment for listed in self.comments.values() for comment in listed]
        found = next(comment for comment in everyone if comment["id"] == int(asked.caught[0]))
        if found["user"]["login"] != BOT:
            raise Denied(403, "not yours")
        found["body"] = asked.body["body"].replace("\n", "\r\n")  # as the forge stores it
        return found

    @on("GET", f"{AT}/issues")
    def list_issues(self, asked: Asked) -> Any:
        state, author = asked.query["state"], asked.query["creator"]
        of_state = [issue for issue in self.all_issues if issue["state"] == state]
        return page([issue for issue in of_state if issue["user"]["login"] == author], asked)

    @on("POST", f"{AT}/issues")
    def add_issue(self, asked: Asked) -> Any:
        number = len(self.all_issues) + 1
        made = {"number": number, "state": "open", "user": {"login": BOT}, **asked.body}
        self.all_issues.append(made)
        return made

    @on("PATCH", rf"{AT}/issues/(\d+)")
    def edit_issue(self, asked: Asked) -> Any:
        self.all_issues[int(asked.caught[0]) - 1].update(asked.body)
        return {}

    @on("POST", rf"{AT}/statuses/(\w+)")
    def set_status(self, asked: Asked) -> Any:
        assert len(asked.body["description"]) <= 140
        status = {**asked.body, "creator": {"login": BOT}}
        self.statuses.setdefault(asked.caught[0], []).insert(0, status)
        return status

    @on("GET", rf"{AT}/commits/(\w+)/statuses")
    def list_statuses(self, asked: Asked) -> Any:
        return page(self.statuses.get(asked.caught[0], []), asked)

    @on("GET", rf"{AT}/commits/(\w+)/pulls")
    def list_merged(self, asked: Asked) -> Any:
        return page(self.merged if asked.caught[0] == MERGE else [], asked)

    @on("GET", f"{AT}/pulls")
    def list_pulls(self, asked: Asked) -> Any:
        assert asked.query["state"] == "open"
        return page([p for p in self.pulls if asked.query["head"] == p["head"]["label"]], asked)

    @on("GET", rf"{AT}/actions/runs/(\d+)/artifacts")
    def list_artifacts(self, asked: Asked) -> Any:
        held = self.artifacts.get(int(asked.caught[0]), {})
        run = int(asked.caught[0])
        listed = [{"id": run * 10, "name": n, "expired": False} for n in held]
        return {"artifacts": [item for item in listed if item["name"] == asked.query["name"]]}

    @on("GET", rf"{AT}/actions/artifacts/(\d+)/zip")
    def where_artifact_is(self, asked: Asked) -> Any:
        raise Denied(302, location=f"{self.url}/storage/{asked.caught[0]}")

    @on("GET", r"/storage/(\d+)")
    def artifact(self, asked: Asked) -> Any:
        if asked.token:
            raise Denied(400, "a signed address takes no token")
        (held,) = self.artifacts[int(asked.caught[0]) // 10].values()
        return held
