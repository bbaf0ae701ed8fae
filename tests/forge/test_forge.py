"""Workflows and pipelines that the docs ship: their form, their rights, and GitLab's jobs run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.action_runner import Runner, ready_made
from support.cli import REPO, compose, edit, samples
from support.github_api import MERGE
from support.gitlab_api import BOT, GitLabApi
from support.sizes import size

from composer.forge.api import Api, ForgeError
from composer.forge.github import member

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKFLOWS = [*(REPO / "docs/workflows").glob("*.yml"), *(REPO / ".github/workflows").glob("*.yml")]
PIPELINE = REPO / "docs/gitlab-ci.yml"
ROGUE = "recipes/pixel-rogue.yaml"


def read(file: Path) -> dict[str, Any]:
    """YAML 1.1 reads a workflow's `on` as true: never mind, it isn't asked for."""
    parsed: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return parsed


def jobs(file: Path) -> list[dict[str, Any]]:
    return list(read(file)["jobs"].values())


def uses(file: Path, action: str) -> list[dict[str, Any]]:
    steps = [step for job in jobs(file) for step in job["steps"]]
    return [step for step in steps if step.get("uses", "").startswith(action)]


# --- their form ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-actions", [REPO / "action.yml"]),
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.gitlab-ci", [PIPELINE]),
    ],
)
def test_they_are_valid_by_the_published_schemas(schema: str, files: list[Path]) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    ran = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_scripts_hold_no_expression(file: Path) -> None:
    scripts = [step.get("run", "") for job in jobs(file) for step in job["steps"]]
    assert [script for script in scripts if "${{" in script] == []


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_rights_are_given_one_by_one(file: Path) -> None:
    assert read(file)["permissions"] in ({}, {"contents": "read"})
    for checkout in uses(file, "actions/checkout"):
        assert checkout["with"]["persist-credentials"] is False


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_no_workflow_runs_a_strangers_files_with_rights(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert "pull_request_target" not in text
    if "workflow_run:" in text:
        assert "head_repository.full_name" in text


def test_a_fork_has_no_secret_and_writes_nothing() -> None:
    fork = read(REPO / "docs/workflows/plan.yml")["jobs"]["fork"]
    assert fork["permissions"] == {"contents": "read"}
    assert "secrets." not in json.dumps(fork)
    ours = [step for step in fork["steps"] if "compose@" in step["uses"]]
    assert [step["with"]["token"] for step in ours] == ["", ""]
    assert uses(REPO / "docs/workflows/comment.yml", "actions/checkout") == []


def test_dependabot_has_no_secrets_and_takes_the_forks_job(tmp_path: Path) -> None:
    runner, plan = Runner(tmp_path, tmp_path), read(REPO / "docs/workflows/plan.yml")["jobs"]
    for actor, repo, job in (
        ("amy", "studio/models", "plan"),
        ("amy", "stranger/models", "fork"),
        ("dependabot[bot]", "studio/models", "fork"),
    ):
        context = {
            "github.actor": actor,
            "github.repository": "studio/models",
            "github.event.pull_request.head.repo.full_name": repo,
        }
        assert [name for name in plan if runner.job_runs(plan[name], context)] == [job], actor
    assert [s["with"].get("report") for s in plan["fork"]["steps"] if s.get("id")] == ["false"]


def test_a_plans_artifact_has_the_name_that_an_approval_looks_for() -> None:
    uploads = uses(REPO / "docs/workflows/plan.yml", "actions/upload-artifact")
    wanted = "${{ steps.plan.outputs.artifact }}"
    assert [upload["with"]["name"] for upload in uploads] == [wanted, wanted]


def test_an_apply_waits_its_turn_and_leaves_the_lock() -> None:
    apply = read(REPO / "docs/workflows/apply.yml")
    assert apply["concurrency"]["cancel-in-progress"] is False
    (job,) = apply["jobs"].values()
    assert "write" not in job["permissions"].values()
    assert job["steps"][-1]["if"] == "always()"
    assert job["steps"][-1]["with"]["path"] == "compose.lock"


def test_every_workflow_is_in_the_docs() -> None:
    page = (REPO / "docs/gitops.md").read_text(encoding="utf-8")
    shipped = [*(REPO / "docs/workflows").glob("*.yml"), PIPELINE]
    assert [
        file.name for file in shipped if f"]({file.relative_to(REPO / 'docs')})" not in page
    ] == []


# --- GitLab's jobs ------------------------------------------------------------------------


class Pipeline:
    """Runs the script of a job of docs/gitlab-ci.yml where compose is installed already."""

    def __init__(self, at: Path, api: GitLabApi, venv: Path) -> None:
        self.at, self.api, self.python = at, api, str(venv / "bin/python")
        self.env = {
            "PATH": os.pathsep.join([str(venv / "bin"), os.environ["PATH"]]),
            "HOME": os.environ["HOME"],
            "CI_PIPELINE_SOURCE": "push",
            "CI_MERGE_REQUEST_DIFF_BASE_SHA": str(at / "base.lock"),
            **api.env,
        }

    def run(self, job: str, **env: str) -> tuple[int, str]:
        """The exit status and the log."""
        ran = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", "\n".join(read(PIPELINE)[job]["script"])],
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


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    project = samples(tmp_path / "project")
    assert compose("apply", at=project).status == 0
    (project / "base.lock").write_bytes((project / "compose.lock").read_bytes())
    venv = ready_made(tmp_path)
    tool = venv / "bin/compose"
    tool.write_text(f'#!/bin/sh\nexec {venv}/bin/python -I -m composer "$@"\n', encoding="utf-8")
    tool.chmod(0o755)
    with GitLabApi() as api:
        yield Pipeline(project, api, venv)


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
    assert (ran.status, "all 64 hex digits" in ran.err) == (64, True), ran.err


# --- archives that anybody may have made ----------------------------------------------------


def archive(method: int) -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", method) as made:
        made.writestr("plan.md", b"a plan " * 20)
    return into.getvalue()


METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
ARCHIVES = [archive(method) for method in METHODS]


@settings(max_examples=size(500, 10_000), deadline=None)
@given(st.sampled_from(ARCHIVES), st.dictionaries(st.integers(0, 300), st.integers(0, 255)))
def test_a_torn_archive_is_read_or_refused(whole: bytes, changes: dict[int, int]) -> None:
    torn = bytes(changes.get(at, byte) for at, byte in enumerate(whole))
    with contextlib.suppress(ForgeError):
        assert len(member(torn, "plan.md", 1000)) <= 1000


def test_an_answer_that_is_nested_without_end_is_refused() -> None:
    with GitLabApi() as api:
        api.plans[1] = b"[" * 200_000
        with pytest.raises(ForgeError, match="the answer is not JSON"):
            Api(api.url, {}).call("GET", "/projects/7/jobs/1/artifacts/plan.json")
