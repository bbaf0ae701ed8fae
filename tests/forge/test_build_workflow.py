"""The workflow that composes on the runner: its scripts, on a real repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.action_runner import Runner
from support.cli import REPO, edit, samples

from composer.lora import read

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the runner's bash is another on Windows")

WORKFLOW = (REPO / "docs/workflows/build.yml").read_text(encoding="utf-8")
JOBS: dict[str, Any] = yaml.safe_load(WORKFLOW)["jobs"]
# What the step `install` would install, and GitHub's own tool, which notes what it was asked.
COMPOSE = f'#!/bin/sh\nPYTHONPATH="{REPO}" exec "{sys.executable}" -m composer "$@"\n'
GH = '#!/bin/sh\nprintf "%s\\n" "$@" >"$RUNNER_TEMP/gh.log"\n'


class BuildRun:
    """A checkout on a fresh machine."""

    def __init__(self, at: Path) -> None:
        self.checkout, self.temp = samples(at / "checkout"), at / "temp"
        shutil.copy(REPO / "compose.lock", self.checkout)
        for folder in (self.temp, at / "bin"):
            folder.mkdir()
        for program, script in (("gh", GH), ("compose", COMPOSE)):
            (at / "bin" / program).write_text(script, encoding="utf-8")
            (at / "bin" / program).chmod(0o755)
        self.env = {
            "PATH": f"{at / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(at),
            "RUNNER_TEMP": str(self.temp),
            "CI": "true",
        }

    def run(self, job: str, step: str, **env: str) -> tuple[int, str]:
        """The script of a step; its status and log."""
        (script,) = [one["run"] for one in JOBS[job]["steps"] if one.get("id") == step]
        ran = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.checkout,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return ran.returncode, ran.stdout


@pytest.fixture
def build(tmp_path: Path) -> BuildRun:
    return BuildRun(tmp_path)


def test_it_publishes_what_the_reviewed_lock_names(build: BuildRun) -> None:
    lock = build.checkout / "compose.lock"
    before = lock.read_bytes()
    status, log = build.run("build", "compose")
    assert (status, lock.read_bytes()) == (0, before), log
    models = build.temp / "models"
    ids = json.loads((models / "models.json").read_text(encoding="utf-8"))
    files = sorted(models.glob("*.safetensors"))
    assert sorted(read(file).metadata["modelspec.title"] for file in files) == sorted(ids.values())
    status, log = build.run("release", "publish", TAG="-v1")
    asked = (build.temp / "gh.log").read_text(encoding="utf-8").splitlines()
    assert asked[:5] == ["release", "upload", "--clobber", "--", "-v1"]
    assert asked[5:] == sorted(map(str, models.iterdir()))


def test_it_refuses_loras_that_nobody_reviewed(build: BuildRun) -> None:
    edit(build.checkout / "recipes/pixel-rogue.yaml", "name: Pixel Dust", "name: Ink Lines 2")
    status, log = build.run("build", "compose")
    assert status != 0, log
    assert not (build.temp / "models").exists()


def test_only_a_release_is_published_by_a_job_without_a_checkout(tmp_path: Path) -> None:
    runner = Runner(tmp_path, tmp_path)
    assert runner.job_runs(JOBS["release"], {"github.event_name": "release"})
    assert not runner.job_runs(JOBS["release"], {"github.event_name": "push"})
    assert "write" not in JOBS["build"]["permissions"].values()
    assert not any("checkout" in step.get("uses", "") for step in JOBS["release"]["steps"])
