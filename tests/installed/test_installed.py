"""What others install from this repository: the action's environment and the pre-commit hooks.

Slow, and pip has to find the packages; asked for by name: pytest tests/installed
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.action_runner import Runner
from support.cli import REPO, edit, samples

if TYPE_CHECKING:
    from pathlib import Path

HOME = os.environ.get("HOME", "")  # where pip's settings are; a test has another one
PIP = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
SHIPPED = ("pyproject.toml", "README.md", "LICENSE", ".pre-commit-hooks.yaml")
FOLDERS = ("composer", "schemas", ".ci")
ROGUE = "recipes/pixel-rogue.yaml"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the runner's bash is another on Windows")


def git(at: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *arguments], cwd=at, check=True, capture_output=True)


def committed(at: Path) -> Path:
    git(at, "init", "--quiet", "--initial-branch", "main")
    git(at, "add", "--all")
    git(at, "commit", "--quiet", "--message", "as it is")
    return at


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of what this one ships, as it is in the working tree."""
    root = tmp_path_factory.mktemp("source")
    for name in SHIPPED:
        shutil.copy(REPO / name, root)
    for name in FOLDERS:
        shutil.copytree(REPO / name, root / name)
    return committed(root)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pre-commit")


def hook(name: str, *files: str, source: Path, at: Path, cache: Path) -> tuple[int, str]:
    """Run one hook on these files, else on all; its exit status and what it printed.

    As a user configures it: it is installed at its first run, into the cache.
    """
    rev = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=source, text=True).strip()
    repo = {"repo": str(source), "rev": rev, "hooks": [{"id": name}]}
    (at / ".pre-commit-config.yaml").write_text(json.dumps({"repos": [repo]}), encoding="utf-8")
    command = [sys.executable, "-m", "pre_commit", "run", name, "--verbose"]
    ran = subprocess.run(
        [*command, *(["--files", *files] if files else ["--all-files"])],
        cwd=at,
        env={**os.environ, "HOME": HOME, "PRE_COMMIT_HOME": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout


def test_the_hooks_manifest_is_valid() -> None:
    manifest = str(REPO / ".pre-commit-hooks.yaml")
    command = [sys.executable, "-m", "pre_commit", "validate-manifest", manifest]
    subprocess.run(command, check=True)


def test_the_hooks_run_on_a_small_repository(source: Path, cache: Path, tmp_path: Path) -> None:
    project = samples(tmp_path / "project")
    shutil.copy(REPO / "compose.lock", project)
    (project / ".git").rmdir()
    committed(project)
    for name in ("compose-validate", "compose-lock"):
        status, said = hook(name, ROGUE, "compose.lock", source=source, at=project, cache=cache)
        assert (status, "Passed" in said) == (0, True), said
    edit(project / ROGUE, "name: Pixel Dust", "name: Another LoRA")
    status, said = hook("compose-lock", ROGUE, source=source, at=project, cache=cache)
    assert (status, "- exit code: 3" in said) == (1, True), said
    assert "no pin for Another LoRA" in said
    edit(project / ROGUE, "scale: 0.6\n", "scale: 1.7\n")
    status, said = hook("compose-validate", ROGUE, source=source, at=project, cache=cache)
    assert (status, "- exit code: 65" in said) == (1, True), said
    assert f"{ROGUE}:" in said
    status, said = hook("compose-validate", "compose.lock", source=source, at=project, cache=cache)
    assert (status, "Skipped" in said) == (0, True), said


def test_a_path_that_begins_with_a_hyphen_is_no_option(
    source: Path, cache: Path, tmp_path: Path
) -> None:
    project = samples(tmp_path / "project")
    (project / ".git").rmdir()
    bad = [f"{folder}/recipes/bad.yaml" for folder in ("--help", "--exclude=recipes", "-h", "-o")]
    for file in bad:
        (project / file).parent.mkdir(parents=True)
        (project / file).write_text(f"name: {file[:3]}\nconcepts: []\n", encoding="utf-8")
    committed(project)
    status, said = hook("compose-validate", source=source, at=project, cache=cache)
    assert (status, "- exit code: 65" in said) == (1, True), said
    assert [file for file in bad if f"{file}:" not in said] == []


def test_the_action_installs_itself_and_composes(tmp_path: Path) -> None:
    (tmp_path / "temp").mkdir()
    project = samples(tmp_path / "project")
    job = Runner(project, tmp_path / "temp", env={"HOME": HOME, **PIP})
    applied = job.use(command="apply", extra="local")
    assert applied.ok, applied.log
    assert applied.outputs["summary"] == "4 created"
    planned = job.use(command="plan", extra="local")
    assert (planned.ok, planned.outputs["has-changes"]) == (True, "false"), planned.log
    assert len(list((tmp_path / "temp").glob("compose-venv-*"))) == 1
