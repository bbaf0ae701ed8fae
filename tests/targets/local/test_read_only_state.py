"""`compose plan` where the state folder can't be written: its database is only a cache for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.cli import edit, samples, snapshot
from support.state import copy_project, state_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROGUE = "recipes/pixel-rogue.yaml"
# Permissions do not bind root, who first has to give up the right to ignore them.
BOUND = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
IS_ROOT = os.name == "posix" and os.geteuid() == 0

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions"),
    pytest.mark.skipif(
        IS_ROOT and shutil.which(BOUND[0]) is None, reason="root needs setpriv for this"
    ),
]


def plan(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`compose plan` in a process that permissions bind."""
    return subprocess.run(
        [*(BOUND if IS_ROOT else []), sys.executable, "-m", "composer", "plan", *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def applied(tmp_path: Path, applied_once: Path) -> Iterator[Path]:
    """An applied project with a changed recipe, whose state folder is read-only."""
    root = copy_project(applied_once, tmp_path / "project")
    edit(root / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    state = state_of(root)
    for path in (state, *state.rglob("*")):
        path.chmod(0o500 if path.is_dir() else 0o400)
    yield root
    for path in (state, *state.rglob("*")):
        path.chmod(0o700)


def test_a_plan_with_a_read_only_state_folder(applied: Path) -> None:
    before = snapshot(applied)
    ran = plan(applied)
    assert ran.returncode == 0, ran.stderr
    assert "scale of Pixel Dust 0.6 -> 0.7" in ran.stdout
    advised = plan(applied, "-o", "json").stdout
    assert '"advice": "Pixel Dust and Ink Lines are' in advised  # computed, though it can't be kept
    assert "1 to replace, 3 unchanged" in ran.stdout
    assert snapshot(applied) == before


def test_a_plan_where_no_state_folder_can_be_made(tmp_path: Path) -> None:
    root = samples(tmp_path / "project")
    projects = state_of(root).parent
    projects.mkdir(parents=True, exist_ok=True)
    projects.chmod(0o500)
    try:
        ran = plan(root)
    finally:
        projects.chmod(0o700)
    assert ran.returncode == 0, ran.stderr
    assert "4 recipes: 4 to create" in ran.stdout
    assert not state_of(root).exists()
