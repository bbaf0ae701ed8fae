"""Comments, issues, statuses and approvals: the same tests for GitHub and for GitLab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.cli import REPO
from support.github_api import HEAD, MERGE, GitHubApi, zipped
from support.gitlab_api import GitLabApi

from composer.forge import __main__ as commands
from composer.forge import review
from composer.forge.api import ForgeError
from composer.forge.base import Status, plan_name, read_plan
from composer.forge.clients import GitHub, GitLab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from composer.forge.base import Forge

MARK = review.marker("plan", "")
PLAN = {
    "actions": [],
    "digest": "d" * 64,
    "guards": [],
    "hasChanges": True,
    "lockEdits": [],
    "summary": "1 recipe: 1 to create.",
}
RAW = json.dumps(PLAN).encode()


@pytest.fixture(params=["github", "gitlab"])
def forge(request: pytest.FixtureRequest) -> Iterator[Forge]:
    """A client of a server that has the plan's artifact and the merged pull request 5."""
    if request.param == "github":
        with GitHubApi() as github:
            github.was_merged()
            github.artifacts[42] = {"compose-plan": zipped({"plan.json": RAW})}
            yield GitHub.from_env({**github.env, "TOKEN": "t"})
    else:
        with GitLabApi() as gitlab:
            gitlab.plans[42] = RAW
            yield GitLab.from_env(gitlab.env)


def run_url(forge: Forge) -> str:
    """The page of run 42."""
    assert isinstance(forge, GitHub | GitLab)
    return f"{forge.web}/{'actions/runs' if isinstance(forge, GitHub) else '-/jobs'}/42"


def write(folder: Path, **changes: Any) -> tuple[Path, Path]:
    """A plan's JSON and its document."""
    plan, document = folder / "plan.json", folder / "plan.md"
    plan.write_text(json.dumps(PLAN | changes), encoding="utf-8")
    document.write_text("## the plan\n", encoding="utf-8")
    return plan, document


def test_one_comment_is_added_kept_and_updated(forge: Forge) -> None:
    def keep(body: str, *, quiet: bool = False) -> str:
        return review.keep_comment(forge, 5, MARK, body, quiet=quiet)

    assert keep("one", quiet=True) == "no comment: nothing to report"
    assert keep("one") == "added a comment"
    assert keep("one") == "the comment is up to date"
    assert keep("two", quiet=True) == "updated the comment"
    (comment,) = forge.comments(5)
    assert (comment.author, comment.body.splitlines()) == (forge.me(), [MARK, "two"])


def test_one_issue_is_opened_kept_updated_and_closed(forge: Forge) -> None:
    def keep(body: str | None) -> str:
        return review.keep_issue(forge, MARK, "Drift", body)

    assert keep(None) == "no issue is open"
    assert keep("one") == "opened an issue"
    assert keep("one") == "the issue is up to date"
    assert keep("two") == "updated the issue"
    (issue,) = forge.issues()
    assert issue.body == f"{MARK}\ntwo"
    assert keep(None) == "closed the issue"
    assert list(forge.issues()) == []


def test_the_last_status_counts(forge: Forge) -> None:
    assert forge.status(HEAD, "compose/plan") is None
    for description in ("first", "last"):
        forge.set_status(HEAD, "compose/plan", Status(True, description, "https://a.test"))
    forge.set_status(HEAD, "compose/plan/staging", Status(False, "other", "https://b.test"))
    assert forge.status(HEAD, "compose/plan") == Status(True, "last", "https://a.test")
    assert forge.status(HEAD, "compose/plan/staging") == Status(False, "other", "https://b.test")


def test_a_plan_of_another_site_is_refused(forge: Forge) -> None:
    with pytest.raises(ForgeError, match="does not link to a"):
        forge.plan(Status(True, "", "https://evil.test/actions/runs/42"), "")


def test_an_attested_plan_is_approved(forge: Forge, tmp_path: Path) -> None:
    plan, _ = write(tmp_path)
    into = tmp_path / "approved.json"
    assert "set the commit's status" in attest(forge, plan)
    digest, why = review.approved(forge, MERGE, "", into)
    assert (digest, into.read_bytes()) == ("d" * 64, RAW), why


@pytest.mark.parametrize(
    ("changes", "ok", "why"),
    [
        ({}, False, "failed, or would be refused"),
        ({"guards": [{}]}, True, "failed, or would be refused"),
        ({"digest": None}, True, "has no status compose/plan"),
    ],
)
def test_other_plans_are_not(
    changes: dict[str, Any], ok: bool, why: str, forge: Forge, tmp_path: Path
) -> None:
    plan, _ = write(tmp_path, **changes)
    attest(forge, plan, ok=ok)
    digest, explanation = review.approved(forge, MERGE, "", tmp_path / "approved.json")
    assert (digest, why in explanation) == ("", True), explanation
    assert json.loads((tmp_path / "approved.json").read_text()) == {"changeDigests": []}


def attest(forge: Forge, plan: Path, *, ok: bool = True) -> str:
    return review.attest(forge, HEAD, "", plan, ok=ok, url=run_url(forge))


def test_a_long_summary_fits_into_a_status(forge: Forge, tmp_path: Path) -> None:
    plan, _ = write(tmp_path, summary="s" * 500)
    attest(forge, plan)
    status = forge.status(HEAD, "compose/plan")
    assert status is not None
    assert (len(status.description), status.description[-1]) == (140, "…")


def test_a_plan_without_changes_adds_no_comment(forge: Forge, tmp_path: Path) -> None:
    plan, document = write(tmp_path, hasChanges=False)
    assert "nothing to report" in review.comment(forge, 5, "", plan, document)
    for loud in ({"guards": [{}]}, {"lockEdits": [{}]}, {"actions": [{"action": "blocked"}]}):
        plan, document = write(tmp_path, hasChanges=False, **loud)
        assert "nothing to report" not in review.comment(forge, 5, "", plan, document), loud


def test_drift_is_an_issue_until_a_good_plan_shows_none(forge: Forge, tmp_path: Path) -> None:
    def check(*, ok: bool, drift: str) -> str:
        plan, document = write(tmp_path, actions=[{"action": "keep", "drift": drift}])
        return review.drift(forge, "", plan, document, ok=ok)

    assert "the check for drift failed" in check(ok=False, drift="")
    assert check(ok=False, drift="renamed") == "opened an issue"
    assert "the check for drift failed" in check(ok=False, drift="")
    assert check(ok=True, drift="") == "closed the issue"


@pytest.mark.parametrize("name", ["a_b", "a b", "a>b", "é", "x" * 61])
def test_a_name_with_other_characters_is_refused(name: str) -> None:
    with pytest.raises(ForgeError, match="letters, digits and hyphens"):
        plan_name(name)


@pytest.mark.parametrize("text", ["", "[]", "[" * 200_000, "no JSON"])
def test_a_file_that_is_no_plan_is_refused(text: str, tmp_path: Path) -> None:
    assert read_plan(tmp_path / "plan.json") is None
    (tmp_path / "plan.json").write_text(text, encoding="utf-8")
    with pytest.raises(ForgeError, match=r"plan\.json does not contain the JSON of a plan"):
        read_plan(tmp_path / "plan.json")


def test_a_command_without_its_token_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.delenv("COMPOSE_GITLAB_TOKEN", raising=False)
    assert commands.main(["gitlab-report"]) == 1
    assert capsys.readouterr().err == "there is no token: set the variable COMPOSE_GITLAB_TOKEN\n"
    assert commands.main(["frobnicate"]) == 64
    assert "usage: python -I -m composer.forge run|approve" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "given", "missing"),
    [
        ("run", {}, "INPUT_COMMAND"),
        ("run", {"INPUT_COMMAND": "plan", "RUNNER_TEMP": "temp"}, "GITHUB_OUTPUT"),
        ("approve", {}, "RUNNER_TEMP"),
        ("report", {}, "RUNNER_TEMP"),
        ("comment", {}, "GITHUB_EVENT_PATH"),
        ("gitlab-report", {"COMPOSE_GITLAB_TOKEN": "t"}, "CI_API_V4_URL"),
        ("gitlab-approve", {"COMPOSE_GITLAB_TOKEN": "t"}, "CI_API_V4_URL"),
        ("gitlab-drift", {"COMPOSE_GITLAB_TOKEN": "t"}, "CI_API_V4_URL"),
    ],
)
def test_a_command_started_by_hand_names_the_missing_variable(
    command: str, given: dict[str, str], missing: str, tmp_path: Path
) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "composer.forge", command],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPO), "PATH": os.environ["PATH"], **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (64, "")
    assert ran.stderr.startswith(f"{missing} is not set (") and ran.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
