"""`compose validate`: all that a plan would refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import ROGUE, compose, edit

HERE = Path(__file__).parents[2]
# Each takes a tenth of the time of the whole command, or more.
NOT_NEEDED = (
    *("composer.planner", "composer.targets", "composer.lock.ledger", "composer.files.state"),
    *("filelock", "jsonschema", "numpy", "requests", "rich"),
    *("hashlib", "importlib.metadata", "importlib.resources", "secrets", "subprocess"),
)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
def test_validate_says_all_that_plan_refuses(project: Path) -> None:
    (project / "recipes/e\nf.yaml").write_bytes((project / ROGUE).read_bytes())
    for command in ("validate", "plan"):
        ran = compose(command, at=project)
        assert (ran.status, "E304" in ran.out + ran.err) == (65, True)


def test_problems_are_counted_among_all_recipes(project: Path) -> None:
    edit(project / ROGUE, "scale: 0.6\n", "scale: 1.6\n")
    for command in ("validate", "plan"):
        ran = compose(command, at=project)
        assert "1 problem in 1 of 4 recipes. Nothing was sent." in ran.out + ran.err


def test_right_recipes_are_checked_without_what_only_other_commands_need(project: Path) -> None:
    code = (
        "import sys; from composer.cli.main import guarded; "
        "status = guarded(['validate']); print(status, *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        check=True,
    )
    counted, modules = done.stdout.splitlines()
    status, *imported = modules.split(" ")
    assert (counted, status) == ("4 recipes, no problems.", "0")
    assert [name for name in NOT_NEEDED if name in imported] == []
