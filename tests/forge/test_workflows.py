"""Workflows and pipelines that the docs ship: their schema and their permissions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.action_runner import Runner
from support.cli import REPO

if TYPE_CHECKING:
    from pathlib import Path

OWN = [*(REPO / ".github/workflows").glob("*.yml")]
WORKFLOWS = [*(REPO / "docs/workflows").glob("*.yml"), *OWN]
PINNED = r"[\w-]+/[\w./-]+@[0-9a-f]{40}  # v[0-9.]+"
PIPELINE = REPO / "docs/gitlab-ci.yml"
PLANS = [REPO / "docs/workflows/plan.yml", REPO / "docs/workflows/previews.yml"]
each_plan = pytest.mark.parametrize("file", PLANS, ids=lambda file: file.name)


def read(file: Path) -> dict[str, Any]:
    """YAML 1.1 reads a workflow's `on` as true: never mind, it isn't asked for."""
    parsed: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return parsed


def jobs(file: Path) -> list[dict[str, Any]]:
    return list(read(file)["jobs"].values())


def uses(file: Path, action: str) -> list[dict[str, Any]]:
    steps = [step for job in jobs(file) for step in job["steps"]]
    return [step for step in steps if step.get("uses", "").startswith(action)]


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-actions", [REPO / "action.yml"]),
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.gitlab-ci", [PIPELINE]),
        ("vendor.dependabot", [REPO / ".github/dependabot.yml"]),
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


@each_plan
def test_a_fork_has_no_secret_and_writes_nothing(file: Path) -> None:
    fork = read(file)["jobs"]["fork"]
    assert fork["permissions"] == {"contents": "read"}
    assert "secrets." not in json.dumps(fork)
    assert "previews" not in json.dumps(fork)
    ours = [step for step in fork["steps"] if "compose@" in step["uses"]]
    assert [step["with"]["token"] for step in ours] == ["", ""]
    assert uses(REPO / "docs/workflows/comment.yml", "actions/checkout") == []


@each_plan
def test_dependabot_has_no_secrets_and_takes_the_forks_job(file: Path, tmp_path: Path) -> None:
    runner, plan = Runner(tmp_path, tmp_path), read(file)["jobs"]
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


@each_plan
def test_a_plans_artifact_has_the_name_that_an_approval_looks_for(file: Path) -> None:
    uploads = uses(file, "actions/upload-artifact")
    names = [upload["with"]["name"] for upload in uploads if "previews" not in str(upload)]
    wanted = "${{ steps.plan.outputs.artifact }}"
    assert names == [wanted, wanted]


def test_images_that_were_paid_for_are_kept_after_a_failure_too() -> None:
    steps = read(REPO / "docs/workflows/previews.yml")["jobs"]["plan"]["steps"]
    (state,) = {step["env"]["COMPOSE_STATE_DIR"] for step in steps if "env" in step}
    restored, saved = (s for s in steps if s.get("uses", "").startswith("actions/cache/"))
    assert {restored["with"]["path"], saved["with"]["path"]} == {state}
    assert restored["with"]["key"] == saved["with"]["key"]
    assert saved["if"] == "always()"


@pytest.mark.parametrize(
    ("ref", "runs"),
    [
        ("refs/heads/main", True),
        ("refs/tags/main", False),
        ("refs/heads/topic", False),
        ("refs/pull/3/main", False),
        ("refs/tags/heads/main", False),
    ],
)
def test_a_tag_named_as_the_default_branch_applies_nothing(
    ref: str, runs: bool, tmp_path: Path
) -> None:
    (job,) = jobs(REPO / "docs/workflows/apply.yml")
    context = {
        "github.ref": ref,
        "github.ref_name": ref.split("/", 2)[2],
        "github.event.repository.default_branch": "main",
    }
    assert Runner(tmp_path, tmp_path).job_runs(job, context) == runs


@pytest.mark.parametrize("file", OWN, ids=lambda file: file.name)
def test_the_repositorys_own_workflows_pin_their_actions(file: Path) -> None:
    """As docs/gitops.md advises: a full commit, with the version beside it for readers."""
    used = [line.split("uses: ")[1] for line in file.read_text().splitlines() if "uses: " in line]
    foreign = [action for action in used if not action.startswith("./")]
    assert len(used) == sum("uses" in step for step in uses(file, ""))
    assert [one for one in foreign if not re.fullmatch(PINNED, one)] == []


def test_pins_are_kept_up_to_date() -> None:
    updates = read(REPO / ".github/dependabot.yml")["updates"]
    assert "github-actions" in [update["package-ecosystem"] for update in updates]


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
