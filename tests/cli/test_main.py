"""What holds of the program as a whole: usage errors, start-up, logs and completion."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.cli import compose

from composer.cli.main import COMMANDS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(shell: str, tmp_path: Path) -> None:
    assert "_COMPOSE_COMPLETE" in compose("completion", shell, at=tmp_path).out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, tmp_path: Path) -> None:
    shown = compose(command, "--help", at=tmp_path)
    assert (shown.status, "Usage: compose" in shown.out) == (0, True)


def test_usage_errors_are_64_with_a_way_on(project: Path) -> None:
    assert "Did you mean plan?" in compose("plna", at=project).err
    for arguments in (
        ["plna"],
        ["plan", "--wat"],
        ["plan", "nowhere.yaml"],
        ["apply", "--timeout", "x"],
    ):
        ran = compose(*arguments, at=project)
        assert (ran.status, "Traceback" in ran.err) == (64, False)


def test_a_bug_names_a_log_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import composer.cli.plan

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(composer.cli.plan, "open_project", broken)
    ran = compose("plan", at=project)
    log = re.search(r"report it with (\S+)", ran.err)
    assert (ran.status, log is not None, "Traceback" in ran.err) == (1, True, False)
    assert log is not None
    with open(log[1], encoding="utf-8") as file:
        assert "ZeroDivisionError: on purpose" in file.read()
    os.unlink(log[1])


def test_start_up_is_light(project: Path) -> None:
    """`validate` and `--help` import neither requests nor numpy."""
    code = (
        "import sys; from composer.cli.main import guarded\n"
        "assert guarded(sys.argv[1:]) == 0\n"
        "print([m for m in ('requests', 'numpy', 'sqlite3', 'rich') if m in sys.modules])"
    )
    for arguments in (["validate"], ["--help"]):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        ran = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=project,
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.splitlines()[-1] == "[]", ran.stdout


def test_debug_speaks_on_stderr_alone(applied: Path) -> None:
    quiet, loud = compose("plan", at=applied), compose("--debug", "plan", at=applied)
    assert (loud.status, loud.out) == (0, quiet.out)
