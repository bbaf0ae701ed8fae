"""A job of GitHub's runner on a project, with a server that plays GitHub's API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.action_runner import Runner, ready_made
from support.cli import compose, samples
from support.github_api import GitHubApi
from support.state import copy_project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ready_made(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def api() -> Iterator[GitHubApi]:
    with GitHubApi() as server:
        yield server


@pytest.fixture(scope="session")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose recipes have all been applied to the local target."""
    project = samples(tmp_path_factory.mktemp("applied") / "project")
    assert compose("apply", at=project).status == 0
    return project


@pytest.fixture
def runner(tmp_path: Path, api: GitHubApi, venv: Path, applied: Path) -> Runner:
    """A job on a copy of that project."""
    temp, workspace = tmp_path / "temp", tmp_path / "workspace"
    copy_project(applied, workspace)
    temp.mkdir()
    (temp / "compose-venv-core").symlink_to(venv)
    return Runner(workspace, temp, env=api.env)
