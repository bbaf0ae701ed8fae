"""A target of another distribution: installed into a fresh environment, it keeps the contract.

Slow, and pip has to find the build backend; asked for by name: pytest tests/installed
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import venv
from typing import TYPE_CHECKING

import pytest
from support.cli import REPO

if TYPE_CHECKING:
    from pathlib import Path

HOME = os.environ.get("HOME", "")  # where pip's settings are; a test has another one
SOURCES = ("composer", "schemas", ".ci", "pyproject.toml", "README.md", "LICENSE")
BIN = "Scripts" if os.name == "nt" else "bin"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, backend: str) -> Path:
    """The interpreter of an environment with both distributions; the dependencies are ours."""
    root = tmp_path_factory.mktemp("fresh")
    venv.create(root / "venv", with_pip=True)
    python = root / "venv" / BIN / "python"
    packages = run(python, "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    ours = sysconfig.get_path("purelib")
    (type(root)(packages) / "dependencies.pth").write_text(f"{ours}\n", encoding="utf-8")
    (root / "composer").mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (REPO / name).is_dir() else shutil.copy
        copy(REPO / name, root / "composer" / name)
    shutil.copytree(REPO / "tests/support/third_party_target", root / "memory")
    made, sources = str(root / "made"), [str(root / "composer"), str(root / "memory")]
    wheel = [backend, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*wheel, "--wheel-dir", made, *sources], check=True, env=environment())
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--ignore-installed"]
    subprocess.run([*install, *map(str, (root / "made").iterdir())], check=True, env=environment())
    return python


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "HOME": HOME, "PYTHONPATH": "", **more}


def run(python: Path, program: str) -> str:
    command = [str(python), "-P", "-c", program]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment()
    ).stdout


def test_the_registry_finds_it(python: Path) -> None:
    program = """
import composer, memory_target
from composer.targets.registry import find_kind, kind_names
assert find_kind("memory") is memory_target.KIND
print(composer.__file__, *kind_names())
"""
    place, *names = run(python, program).split()
    assert place.startswith(str(python.parent.parent))
    assert names == ["local", "scenario", "memory"]


def test_it_keeps_the_contract(python: Path) -> None:
    contract = str(REPO / "tests/targets/test_contract.py")
    ran = subprocess.run(
        [str(python), "-P", "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", contract],
        env=environment(COMPOSE_CONTRACT_TARGET="memory"),
        cwd=python.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "failed" not in ran.stdout


def test_the_commands_take_it(python: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    for folder in (".git", "recipes", "loras"):
        (project / folder).mkdir(parents=True)
    (project / "loras/Ink.safetensors").touch()
    (project / "recipes/knight.yaml").write_text(
        "name: Knight\nconcepts:\n  - {name: Ink, scale: 0.5}\n", encoding="utf-8"
    )
    command = [str(python), "-P", "-m", "composer"]
    state = str(tmp_path / "state")
    applied = subprocess.run(
        [*command, "apply", "--target", "memory"],
        cwd=project,
        env=environment(COMPOSE_STATE_DIR=state),
        capture_output=True,
        text=True,
        check=False,
    )
    assert applied.returncode == 0, applied.stderr
    assert "Target: memory (--target)" in applied.stderr
    shown = subprocess.run(
        [*command, "output", "Knight", "--usage", "memory", "--target", "memory"],
        cwd=project,
        env=environment(COMPOSE_STATE_DIR=state),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "memory_target.generate('memory_" in shown.stdout
