"""The action's `previews: true` in a simulated runner: a branch, its own comment, a warning."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.action_runner import Runner, change
from support.git_server import TOKEN, run_git
from support.github_api import AT, BOT, HEAD, REPOSITORY, GitHubApi, pull_request
from support.painter import SMALL_IMAGES

from composer.forge import previews
from composer.forge.clients import GitHub, GitLab
from composer.forge.sheet_branch import BRANCH, Remote

if TYPE_CHECKING:
    from support.git_server import GitServer

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the runner's bash is another on Windows")

PULL = pull_request()
MARK = "<!-- compose:preview: -->"
PAINTED = {"previews": "true", "preview_arguments": "--renderer painter"}


@pytest.fixture
def job(runner: Runner, painting: Path, forge: GitServer) -> Runner:
    (runner.temp / "compose-venv-preview").symlink_to(painting)
    (runner.workspace / "compose.toml").write_text(SMALL_IMAGES, encoding="utf-8")
    runner.env["GITHUB_SERVER_URL"] = forge.url
    return runner


def comments(api: GitHubApi) -> list[str]:
    return [one["body"] for one in api.comments.get(5, []) if one["body"].startswith(MARK)]


def test_sheets_are_pushed_and_shown_then_left_alone_then_patched(
    job: Runner, api: GitHubApi, forge: GitServer
) -> None:
    change(job)
    done = job.use(PULL, command="plan", **PAINTED)
    assert done.ok, done.log
    (body,) = comments(api)
    (sheet,) = forge.branch(BRANCH)
    assert f"({forge.url}/{REPOSITORY}/raw/{BRANCH}/{sheet})" in body
    assert "0.60 -> 0.70" in body
    data = run_git(forge.repository, "cat-file", "-s", f"{BRANCH}:{sheet}")
    folder = Path(done.outputs["previews"])
    assert int(data) == (folder / sheet.partition("/")[2]).stat().st_size
    assert (folder / "index.html").is_file()

    writes, tip = len(api.writes), run_git(forge.repository, "rev-parse", BRANCH)
    assert job.use(PULL, command="plan", **PAINTED).ok
    assert api.writes[writes:] == [f"POST {AT}/statuses/{HEAD}"]
    assert run_git(forge.repository, "rev-parse", BRANCH) == tip

    change(job, "0.7", "0.65")
    assert job.use(PULL, command="plan", **PAINTED).ok
    (patched,) = comments(api)
    assert "0.65" in patched
    assert len(forge.branch(BRANCH)) == 2
    assert TOKEN not in done.log


def test_it_is_a_comment_of_its_own(job: Runner, api: GitHubApi) -> None:
    change(job)
    assert job.use(PULL, command="plan", **PAINTED).ok
    assert [one["body"].split("\n")[0] for one in api.comments[5]] == [
        "<!-- compose:plan: -->",
        MARK,
    ]


def test_a_forks_run_makes_nothing(job: Runner, api: GitHubApi, forge: GitServer) -> None:
    change(job)
    fork = pull_request(fork=True)
    done = job.use(fork, command="plan", report="false", **PAINTED)
    assert done.ok, done.log
    assert "no previews: the run is not of a pull request from this repository" in done.log
    assert (done.outputs["previews"], api.comments, forge.seen) == ("", {}, [])


def test_nothing_to_show_adds_no_comment_and_corrects_one(
    job: Runner, api: GitHubApi, forge: GitServer
) -> None:
    assert job.use(PULL, command="plan", **PAINTED).ok
    assert (comments(api), forge.seen) == ([], [])
    change(job)
    job.use(PULL, command="plan", **PAINTED)
    change(job, "0.7", "0.6")
    assert job.use(PULL, command="plan", **PAINTED).ok
    (body,) = comments(api)
    assert "no recipe changed its mix" in body


def test_a_failure_is_a_warning(job: Runner, api: GitHubApi) -> None:
    change(job)
    more = {"previews": "true", "preview_arguments": "--renderer nobody"}
    done = job.use(PULL, command="plan", **more)
    assert done.ok, done.log
    (warning,) = [line for line in done.commands if line.startswith("::warning")]
    assert "unknown renderer nobody" in warning
    assert comments(api) == []


def test_arguments_that_are_not_quoted_right_are_a_warning(job: Runner) -> None:
    done = job.use(PULL, command="plan", previews="true", preview_arguments="'")
    assert done.ok, done.log
    assert any("preview-arguments: No closing quotation" in line for line in done.commands)


def test_a_branch_that_may_not_be_written_is_a_warning(
    job: Runner, api: GitHubApi, forge: GitServer
) -> None:
    forge.token = "another"
    change(job)
    done = job.use(PULL, command="plan", **PAINTED)
    assert done.ok, done.log
    (warning,) = [line for line in done.commands if line.startswith("::warning")]
    assert "docs/previews.md lists the permissions" in warning
    assert comments(api) == []


def test_somebody_elses_comment_stays(job: Runner, api: GitHubApi) -> None:
    theirs = api.comment(5, "mallory", f"{MARK}\nlook here")
    change(job)
    assert job.use(PULL, command="plan", **PAINTED).ok
    assert theirs["body"] == f"{MARK}\nlook here"
    assert api.comments[5][-1]["user"]["login"] == BOT


def test_only_contact_sheets_are_pushed(tmp_path: Path, api: GitHubApi, forge: GitServer) -> None:
    """Whatever else lies in the folder, and a link above all."""
    secret = tmp_path / "secret"
    secret.write_text("secret", encoding="utf-8")
    out = tmp_path / "previews"
    out.mkdir()
    (out / "link.webp").symlink_to(secret)
    for name in ("fox.webp", "fox.png", "UP.webp", "a b.webp", "index.html", "preview.md"):
        (out / name).write_text(name, encoding="utf-8")
    (out / "previews.json").write_text(json.dumps({"recipes": [1]}), encoding="utf-8")
    client = GitHub.from_env({**api.env, "TOKEN": TOKEN, "GITHUB_SERVER_URL": forge.url})
    remote = Remote(f"{client.web}.git", TOKEN)
    said = list(previews.show(client, remote, 5, "", out))
    assert said == [f"pushed the contact sheets on {BRANCH}", "added a comment"]
    assert [path.partition("/")[2] for path in forge.branch(BRANCH)] == ["fox.webp"]


def test_addresses_of_both_forges() -> None:
    hub = previews.folder_url(GitHub, "https://github.test/a/b", "12")
    lab = previews.folder_url(GitLab, "https://gitlab.test/a/b", "12")
    assert hub == "https://github.test/a/b/raw/compose-previews/12/"
    assert lab == "https://gitlab.test/a/b/-/raw/compose-previews/12/"
