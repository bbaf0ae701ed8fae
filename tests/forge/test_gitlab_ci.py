"""The jobs of docs/gitlab-ci.yml, run against a server that plays GitLab's API."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.cli import REPO, compose, edit, samples
from support.git_server import TOKEN, run_git
from support.github_api import MERGE, REPOSITORY
from support.gitlab_api import BOT, GitLabApi
from support.painter import SMALL_IMAGES
from support.state import copy_project

from composer.files.state import VARIABLE
from composer.forge.sheet_branch import BRANCH

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.git_server import GitServer

ROGUE = "recipes/pixel-rogue.yaml"


def script(job: str) -> str:
    """The script of a job of the pipeline."""
    text = (REPO / "docs/gitlab-ci.yml").read_text(encoding="utf-8")
    described: dict[str, Any] = yaml.safe_load(text)[job]
    return "\n".join(described["script"])


class Pipeline:
    """Runs the script of a job of docs/gitlab-ci.yml where compose is installed already."""

    def __init__(self, at: Path, api: GitLabApi, venv: Path) -> None:
        self.at, self.api, self.python = at, api, str(venv / "bin/python")
        self.env = {
            "PATH": os.pathsep.join([str(venv / "bin"), os.environ["PATH"]]),
            "HOME": os.environ["HOME"],
            VARIABLE: os.environ[VARIABLE],
            "CI_PIPELINE_SOURCE": "push",
            "CI_MERGE_REQUEST_DIFF_BASE_SHA": str(at / "base.lock"),
            **api.env,
        }

    def run(self, job: str, **env: str) -> tuple[int, str]:
        """The exit status and the log."""
        ran = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script(job)],
            cwd=self.at,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return ran.returncode, ran.stdout

    def uploaded(self) -> None:
        """The runner keeps the artifact of the job that ran."""
        self.api.plans[42] = (self.at / "plan.json").read_bytes()


@pytest.fixture(scope="module")
def tool(venv: Path) -> Path:
    """The virtual environment, with `compose` as a program."""
    program = venv / "bin/compose"
    text = f'#!/bin/sh\nexec {venv}/bin/python -I -m composer "$@"\n'
    program.write_text(text, encoding="utf-8")
    program.chmod(0o755)
    return venv


@pytest.fixture
def pipeline(tmp_path: Path, applied_once: Path, tool: Path) -> Iterator[Pipeline]:
    project = copy_project(applied_once, tmp_path / "project")
    (project / "base.lock").write_bytes((project / "compose.lock").read_bytes())
    with GitLabApi() as api:
        yield Pipeline(project, api, tool)


@pytest.mark.skipif(os.name == "nt", reason="GitLab's jobs run in bash")
def test_a_merge_request_has_one_note_and_the_merge_applies_its_plan(pipeline: Pipeline) -> None:
    api = pipeline.api
    status, log = pipeline.run("compose-plan")
    assert (status, api.notes) == (0, []), log
    api.notes.append({"id": 1, "author": {"username": "mallory"}, "body": "<!-- compose:plan: -->"})
    edit(pipeline.at / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    status, log = pipeline.run("compose-plan")
    assert status == 0, log
    assert [note["author"]["username"] for note in api.notes] == ["mallory", BOT]
    edit(pipeline.at / ROGUE, "scale: 0.7\n", "scale: 0.75\n")
    status, log = pipeline.run("compose-plan")
    assert (status, "**0.75**" in api.notes[1]["body"]) == (0, True), log
    assert "up to date" in pipeline.run("compose-plan")[1]
    pipeline.uploaded()
    status, log = pipeline.run("compose-apply", CI_COMMIT_SHA=MERGE)
    assert (status, "replaced  Pixel Rogue" in log) == (0, True), log


@pytest.mark.skipif(os.name == "nt", reason="GitLab's jobs run in bash")
def test_a_merge_applies_nothing_else(pipeline: Pipeline) -> None:
    edit(pipeline.at / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert pipeline.run("compose-plan")[0] == 0
    pipeline.uploaded()
    edit(pipeline.at / ROGUE, "scale: 0.7\n", "scale: 0.9\n")
    status, log = pipeline.run("compose-apply", CI_COMMIT_SHA=MERGE)
    assert (status, "not in approved.json" in log) == (3, True), log
    forged = json.loads(pipeline.api.plans[42])
    forged["changeDigests"] = ["0" * 64]
    pipeline.api.plans[42] = json.dumps(forged).encode()
    status, log = pipeline.run("compose-apply", CI_COMMIT_SHA=MERGE)
    assert (status, "are not those of sha256:" in log) == (3, True), log


@pytest.mark.skipif(os.name == "nt", reason="GitLab's jobs run in bash")
def test_a_pipeline_by_hand_applies_the_digest_it_was_given(pipeline: Pipeline) -> None:
    edit(pipeline.at / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    assert pipeline.run("compose-plan")[0] == 0
    digest = json.loads((pipeline.at / "plan.json").read_bytes())["digest"]
    by_hand = {"CI_PIPELINE_SOURCE": "web", "CI_COMMIT_SHA": MERGE}
    for wrong, refused in (("plan.json", 64), (digest[:12], 64), ("0" * 64, 3)):
        assert pipeline.run("compose-apply", DIGEST=wrong, **by_hand)[0] == refused
    status, log = pipeline.run("compose-apply", DIGEST=digest, **by_hand)
    assert (status, "replaced  Pixel Rogue" in log) == (0, True), log


@pytest.mark.skipif(os.name == "nt", reason="GitLab's jobs run in bash")
def test_no_job_writes_through_a_link_of_the_branch(pipeline: Pipeline) -> None:
    victim = pipeline.at / "victim"
    victim.write_text("mine", encoding="utf-8")
    for name in ("plan.json", "plan.md", "approved.json"):
        (pipeline.at / name).symlink_to(victim)
    assert pipeline.run("compose-plan")[0] == 0
    pipeline.run("compose-apply", CI_COMMIT_SHA=MERGE)
    for name in ("plan.json", "plan.md"):
        (pipeline.at / name).unlink()
        (pipeline.at / name).symlink_to(victim)
    assert pipeline.run("compose-drift")[0] == 0
    assert victim.read_text(encoding="utf-8") == "mine"


@pytest.mark.skipif(os.name == "nt", reason="GitLab's jobs run in bash")
def test_a_plan_that_is_nested_without_end_is_refused(pipeline: Pipeline) -> None:
    (pipeline.at / "plan.json").write_text("[" * 200_000, encoding="utf-8")
    forge = [pipeline.python, "-I", "-m", "composer.forge", "gitlab-report"]
    ran = subprocess.run(
        forge, cwd=pipeline.at, env=pipeline.env, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (1, "plan.json does not contain the JSON of a plan\n")


@pytest.mark.skipif(os.name == "nt", reason="GitLab's jobs run in bash")
def test_a_plan_that_fails_fails_its_job(pipeline: Pipeline) -> None:
    edit(pipeline.at / ROGUE, "scale: 0.6\n", "scale: 1.7\n")
    status, log = pipeline.run("compose-plan")
    assert status == 1, log
    assert ROGUE in pipeline.api.notes[0]["body"]
    assert pipeline.api.statuses == []


@pytest.mark.skipif(os.name == "nt", reason="GitLab's jobs run in bash")
def test_a_forks_job_needs_no_variable(pipeline: Pipeline) -> None:
    pipeline.env = {k: v for k, v in pipeline.env.items() if "TOKEN" not in k}
    status, log = pipeline.run("compose-fork")
    assert (status, "not asked: --offline" in log) == (0, True), log
    assert pipeline.api.seen == []


@pytest.mark.skipif(os.name == "nt", reason="GitLab's jobs run in bash")
def test_an_issue_is_closed_when_the_drift_is_gone(pipeline: Pipeline) -> None:
    mine = {
        "author": {"username": BOT},
        "state": "opened",
        "description": "<!-- compose:drift: -->",
    }
    pipeline.api.all_issues.append({"iid": 1, **mine})
    status, log = pipeline.run("compose-drift")
    assert (status, pipeline.api.all_issues[0]["state"]) == (0, "closed"), log


@pytest.mark.parametrize("digest", ["0" * 63, "sha256:" + "0" * 64, "0" * 64])
def test_a_digest_is_whole_and_belongs_to_a_file(digest: str, tmp_path: Path) -> None:
    expect = [] if len(digest) == 64 else ["--expect", "plan.json"]
    ran = compose("apply", *expect, "--digest", digest, at=samples(tmp_path))
    assert (ran.status, "takes 64 hex digits" in ran.err) == (64, True), ran.err


@pytest.mark.skipif(os.name == "nt", reason="GitLab's jobs run in bash")
def test_a_merge_request_shows_what_it_changes_in_pictures(
    pipeline: Pipeline, painting: Path, forge: GitServer
) -> None:
    (pipeline.at / "compose.toml").write_text(SMALL_IMAGES, encoding="utf-8")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "before"]):
        run_git(pipeline.at, "-c", "user.name=a", "-c", "user.email=a@b", *command)
    edit(pipeline.at / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    job = {
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": "HEAD",
        "CI_PROJECT_URL": f"{forge.url}/{REPOSITORY}",
        "COMPOSE_GITLAB_TOKEN": TOKEN,
        "COMPOSE_PREVIEW_ARGUMENTS": "--renderer painter",
    }
    status, log = pipeline.run("compose-preview", **job)
    assert status == 0, log
    (sheet,) = forge.branch(BRANCH)
    (note,) = pipeline.api.notes
    assert note["body"].startswith("<!-- compose:preview: -->\n## compose preview: 1 recipe")
    assert f"({job['CI_PROJECT_URL']}/-/raw/{BRANCH}/{sheet})" in note["body"]
    assert (pipeline.at / "previews/index.html").is_file()
    assert "the comment is up to date" in pipeline.run("compose-preview", **job)[1]
    status, log = pipeline.run("compose-preview", **{**job, "COMPOSE_PREVIEW_ARGUMENTS": "--nope"})
    assert (status, "No such option '--nope'" in log) == (1, True), log
