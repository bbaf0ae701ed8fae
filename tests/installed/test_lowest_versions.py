"""The lower bounds of the dependencies: without known vulnerabilities, and compose works with them.

Slow, and pip has to find the packages; asked for by name: pytest tests/installed
"""

from __future__ import annotations

import os
import subprocess
import tomllib
import venv
from itertools import chain
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from support.cli import REPO, samples

if TYPE_CHECKING:
    from pathlib import Path

HOME = os.environ.get("HOME", "")  # where pip's settings are; a test has another one
BIN = "Scripts" if os.name == "nt" else "bin"
# The last versions with an advisory, where what it is about comes with compose.
VULNERABLE = {
    "requests": ("2.31.0", "2.32.3", "2.32.5"),
    "urllib3": ("1.26.20", "2.6.3", "2.7.0"),
    "idna": ("3.6", "3.14"),
    "click": ("8.3.2",),
    "filelock": ("3.13.0", "3.20.2", "4.0.8", "4.2.0"),
    "flask": ("3.1.0", "3.1.2"),
    "werkzeug": ("3.1.5", "3.1.8"),
    "jinja2": ("3.1.5",),
    "waitress": ("3.0.0",),
    "pillow": ("12.1.1", "12.2.0", "12.3.0"),
}


def bounds() -> dict[str, Requirement]:
    """What a user installs: the dependencies, and those of the extras `serve` and `preview`."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    chosen = (extras[name] for name in ("local", "serve", "preview"))
    every = [*project["dependencies"], *chain.from_iterable(chosen)]
    parsed = [Requirement(text) for text in every]
    return {one.name: one for one in parsed if one.name != project["name"]}


@pytest.mark.parametrize("name", VULNERABLE)
def test_no_version_with_an_advisory_is_allowed(name: str) -> None:
    allowed = bounds()[name].specifier
    assert [version for version in VULNERABLE[name] if version in allowed] == []


def test_every_bound_is_a_lower_one_alone() -> None:
    assert [str(one) for one in bounds().values() if not str(one.specifier).startswith(">=")] == []


def test_compose_works_with_the_lowest_versions(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / BIN / "python")
    lowest = [f"{name}{one.specifier}".replace(">=", "==") for name, one in bounds().items()]
    known = {**os.environ, "HOME": HOME, "PYTHONPATH": str(REPO)}

    project = samples(tmp_path / "project")

    def run(*command: str) -> str:
        ran = subprocess.run(
            [python, *command], cwd=project, env=known, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    run("-m", "pip", "install", "--quiet", *lowest)
    run("-m", "composer", "validate")
    assert "4 created" in run("-m", "composer", "apply")
    assert run("-m", "composer", "apply").startswith("No changes")
    run("-m", "composer", "serve", "--help")
    run("-c", "import composer.server.app, composer.targets.scenario.service")
    run("-m", "composer", "report", "--out", "site")
