"""A job of GitHub's runner on a project, with a server that plays GitHub's API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.action_runner import Runner, ready_made
from support.cli import REPO
from support.git_server import TOKEN, GitServer
from support.github_api import REPOSITORY, GitHubApi
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


@pytest.fixture
def runner(tmp_path: Path, api: GitHubApi, venv: Path, applied_once: Path) -> Runner:
    """A job on a project whose recipes have all been applied to the local target."""
    temp, workspace = tmp_path / "temp", tmp_path / "workspace"
    copy_project(applied_once, workspace)
    temp.mkdir()
    (temp / "compose-venv-core").symlink_to(venv)
    return Runner(workspace, temp, env=api.env)


@pytest.fixture(scope="session")
def painting(venv: Path) -> Path:
    """The virtual environment, in which the tests' renderer is installed too."""
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "tests.pth").write_text(f"{REPO / 'tests'}\n", encoding="utf-8")
    info = site / "painter-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: painter\nVersion: 1\n", encoding="utf-8")
    points = "[composer.renderers]\npainter = support.painter:KIND\n"
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    return venv


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[GitServer]:
    """Where the repository is pushed to."""
    with GitServer(tmp_path / "forge", REPOSITORY, TOKEN) as server:
        yield server
