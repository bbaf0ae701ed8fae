"""What stdout and stderr can be: code pages, closed streams, and readers that leave early."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.cli import samples
from support.sizes import size

if TYPE_CHECKING:
    from pathlib import Path

WIZARD = "Wizard \U0001f9d9 żółw"
RECIPE = f'name: "{WIZARD}"\nconcepts:\n  - {{name: Ink Lines, scale: 0.5}}\n'
COMPOSE = [sys.executable, "-m", "composer"]

posix_only = pytest.mark.skipif(os.name == "nt", reason="shell redirections of a POSIX shell")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = samples(tmp_path)
    (folder / "recipes/wizard.yaml").write_text(RECIPE, encoding="utf-8")
    return folder


def run(*arguments: str, at: Path, encoding: str) -> tuple[int, bytes, bytes]:
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([*COMPOSE, *arguments], cwd=at, env=env, capture_output=True, check=False)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("encoding", ["cp437", "cp1252"][: size(1, 2)])
def test_what_an_encoding_lacks_is_escaped(project: Path, encoding: str) -> None:
    for command in (
        ["apply"],
        ["plan", "--all"],
        ["status"],
        ["models"],
        ["output"],
        ["output", WIZARD],
        ["inspect", "recipes"],
        ["plan", "--all", "-o", "markdown"],
    ):
        status, out, err = run(*command, at=project, encoding=encoding)
        assert (status, b"internal error" in err) == (0, False), (command, err)
        out.decode(encoding)
    _, out, _ = run("status", at=project, encoding=encoding)
    assert rb"Wizard \ud83e\uddd9 " in out


def test_json_stays_json_in_any_encoding(project: Path) -> None:
    status, out, _ = run("plan", "-o", "json", at=project, encoding="latin-1")
    names = [action["name"] for action in json.loads(out)["actions"]]
    assert (status, WIZARD in names) == (0, True)


def test_an_error_message_is_escaped_too(project: Path) -> None:
    status, _, err = run("output", "\u0444\u4e2d", at=project, encoding="latin-1")
    assert (status, rb"\u0444\u4e2d" in err) == (64, True)


# --- closed ones -------------------------------------------------------------------------


def shell(line: str, at: Path) -> subprocess.CompletedProcess[str]:
    program = " ".join(f"'{word}'" for word in COMPOSE)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        ["bash", "-c", line.replace("compose", program, 1)],
        cwd=at,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


@posix_only
@pytest.mark.parametrize("closed", ["2>&-", ">&-"])
def test_closed_streams_change_nothing(project: Path, closed: str) -> None:
    for command in ("validate", "plan", "apply"):
        assert shell(f"compose {command} {closed}", project).returncode == 0, command
    assert (project / "compose.lock").is_file()
    assert shell(f"compose plan nowhere {closed}", project).returncode == 64


LEAVING = "compose {} {} | (exec <&-; sleep 1); exit ${{PIPESTATUS[0]}}"


@posix_only
@pytest.mark.parametrize("command", ["schema plan", "models", "validate -o json", "--help"])
def test_a_reader_that_leaves_is_no_error_for_what_only_reads(project: Path, command: str) -> None:
    ran = shell(LEAVING.format("-v" if "help" not in command else "", command), project)
    assert (ran.returncode, "Traceback" in ran.stderr) == (0, False), ran.stderr


@posix_only
@pytest.mark.parametrize("command", ["apply", "prune --dry-run"])
def test_a_reader_that_leaves_makes_a_writing_command_say_so(project: Path, command: str) -> None:
    ran = shell(LEAVING.format("", command), project)
    assert (ran.returncode, "the output was closed" in ran.stderr) == (1, True), ran.stderr


# --- one form of usage errors ------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("schema",),
        ("completion",),
        ("plan", "nowhere.yaml"),
        ("plan", "--nope"),
        ("destroy",),
        ("nope",),
        ("output", "Nobody"),
        ("apply", "--max-cost", "-1"),
    ],
)
def test_usage_errors_have_one_form(project: Path, arguments: tuple[str, ...]) -> None:
    status, _, err = run(*arguments, at=project, encoding="utf-8")
    lines = err.decode().splitlines()
    assert status == 64
    assert re.match(r"compose: \S", lines[0])
    assert r"\n" not in lines[0]
    command = arguments[0] if arguments[0] != "nope" else ""
    assert lines[-1] == f"try: compose {command} --help".replace("  ", " ")
    assert all(line.startswith("  ") for line in lines[1:-1])
