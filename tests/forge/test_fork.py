"""Pull requests of forks: plans without secrets, and comments that trust nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from support.action_runner import Runner, change, failed
from support.documents import rendered
from support.github_api import AT, HEAD, GitHubApi, pull_request, workflow_run, zipped

if TYPE_CHECKING:
    from support.action_runner import Done

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the runner's bash is another on Windows")

MARK = "<!-- compose:plan: -->"


def test_a_fork_gets_a_plan_without_any_secret(runner: Runner, api: GitHubApi) -> None:
    change(runner)
    env = {name: value for name, value in runner.env.items() if name.startswith("GITHUB_")}
    assert not [name for name in env if "TOKEN" in name or "SCENARIO" in name]
    fork = pull_request(fork=True)
    job = Runner(runner.workspace, runner.temp, env=env)
    done = job.use(fork, command="plan", offline="true", token="")
    assert (done.ok, api.seen) == (True, []), done.log
    assert (done.outputs["digest"], done.outputs["exit-code"]) == ("", "2")
    assert "Offline" in done.summary
    assert job.use(fork, command="validate", token="").ok


def test_a_read_only_token_writes_nothing_on_a_fork(runner: Runner, api: GitHubApi) -> None:
    change(runner)
    assert runner.use(pull_request(fork=True), command="plan", offline="true").ok
    assert api.seen == []


def stranger(runner: Runner, api: GitHubApi, archive: bytes, **event: Any) -> Done:
    """Use `command: comment` after a run of a fork that left this artifact."""
    api.artifacts[99] = {"compose-plan": archive}
    branch, repo = "stranger:topic&state=all", {"id": 8}
    api.pulls = [
        {"number": 6, "head": {"label": branch, "sha": HEAD, "repo": repo}},
        {"number": 7, "head": {"label": branch, "sha": "f" * 40, "repo": repo}},
        {"number": 8, "head": {"label": branch, "sha": HEAD, "repo": {"id": 9}}},
    ]
    return runner.use(workflow_run(**event), command="comment")


def test_the_second_workflow_comments_on_the_pull_request_of_the_event(
    runner: Runner, api: GitHubApi
) -> None:
    said = "## compose plan: 1 change\n\n5 is the number\n"
    archive = zipped({"plan.md": said.encode(), "number": b"5", "plan.json": b"{}"})
    done = stranger(runner, api, archive)
    assert done.ok, done.log
    assert [*api.comments] == [6]
    assert said in api.comments[6][0]["body"]
    assert "nobody verified it" in api.comments[6][0]["body"]
    assert done.logs.keys() == {"install", "comment"}, "nothing is composed"
    site = next((runner.temp / "compose-venv-comment").glob("lib/python*/site-packages"))
    assert [file.name for file in site.iterdir()] == ["compose.pth"], "nothing is installed"
    assert stranger(runner, api, archive).ok
    assert api.writes == [f"POST {AT}/issues/6/comments"]


def test_a_fork_cannot_hide_its_pull_request_by_claiming_no_changes(
    runner: Runner, api: GitHubApi
) -> None:
    archive = zipped({"plan.md": b"## compose plan: no changes\n\nall as it was\n"})
    assert stranger(runner, api, archive).ok
    assert "nobody verified it" in api.comments[6][0]["body"]


def test_a_run_that_left_no_artifact_is_a_notice(runner: Runner, api: GitHubApi) -> None:
    stranger(runner, api, zipped({"plan.md": b"x"}))
    done = runner.use(workflow_run(), command="comment", name="staging")
    assert done.ok, done.log
    (notice,) = done.commands
    assert notice.startswith("::notice ")
    assert "no artifact compose-plan-staging" in notice


@pytest.mark.parametrize("event", [{"repository": 7}, {"event": "push"}])
def test_other_runs_are_none_of_a_fork(
    event: dict[str, Any], runner: Runner, api: GitHubApi
) -> None:
    assert stranger(runner, api, zipped({"plan.md": b"x"}), **event).ok
    assert api.seen == []


HOSTILE_TEXTS = {
    "markdown": "# @everyone\n\n[click](https://evil.test) <img src=x onerror=y> #1 GH-1",
    "the end of the block": "```\n@everyone [click](https://evil.test)\n```",
    "a long fence": "`````````\n@everyone\n~~~~~~\n@everyone",
    "our marker": f"{MARK}\nplan sha256:{'0' * 64}",
    "a comment that hides ours": "<!-- \n",
    "control characters": "\x1b[31mred\x00\x08 \u202egnp.exe\u200b \x85 \u2028 ::error::x",
    "line ends": "a\r\nb\rc",
    "an order to the runner": "::set-output name=x::y\n##[add-mask]x",
    "a quick action": "/close\n/merge",
    "too long": "x" * 200_000,
    "many lines": "@everyone\n" * 20_000,
}


@pytest.mark.parametrize("text", HOSTILE_TEXTS.values(), ids=[*HOSTILE_TEXTS])
def test_a_hostile_text_is_shown_as_text(text: str, runner: Runner, api: GitHubApi) -> None:
    done = stranger(runner, api, zipped({"plan.md": text.encode()}))
    assert done.ok, done.log
    assert done.commands == []
    (comment,) = api.comments[6]
    assert len(comment["body"]) <= 60_000
    document = rendered(comment["body"])
    assert [odd.split()[0] for odd in document.odd] == ["html_block", "fence", repr(HEAD)]
    assert not any(ord(c) < 32 and c != "\n" for c in comment["body"])
    assert not set("\u202e\u200b\x85\u2028") & set(comment["body"])


def bomb() -> bytes:
    return zipped({"plan.md": b"\0" * 300_000_000})


HOSTILE_ARCHIVES = {
    "no archive": b"<html>",
    "nothing": b"",
    "another file": zipped({"../plan.md": b"x", "/plan.md": b"x", "plan.md/x": b"x"}),
    "not UTF-8": zipped({"plan.md": b"\xff\xfe"}),
    "cut off": zipped({"plan.md": b"x" * 1000})[:-30],
    "torn": zipped({"plan.md": os.urandom(1000)}).replace(b"plan.md", b"plan.nd", 1),
    "nothing but backticks": zipped({"plan.md": b"`" * 50_000}),
    "too large": zipped({"plan.md": os.urandom(600_000)}),
}


@pytest.mark.parametrize("archive", [*HOSTILE_ARCHIVES.values()], ids=[*HOSTILE_ARCHIVES])
def test_a_hostile_archive_is_refused(archive: bytes, runner: Runner, api: GitHubApi) -> None:
    done = stranger(runner, api, archive)
    assert "Traceback" not in failed(done)
    assert len(done.commands) == 1
    assert api.writes == []


def test_a_bomb_is_read_no_further_than_allowed(runner: Runner, api: GitHubApi) -> None:
    assert "more than 262,144 bytes" in failed(stranger(runner, api, bomb()))
