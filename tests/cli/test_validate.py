"""`compose validate`: all that a plan would refuse."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.cli import ROGUE, compose, edit

if TYPE_CHECKING:
    from pathlib import Path


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
