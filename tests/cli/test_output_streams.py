"""What stdout and stderr can be: code pages, closed streams, and readers that leave early."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.cli import compose, samples, without_asking
from support.sizes import size

from composer.cli.main import guarded

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


def printing_to(descriptor: int, command: str, at: Path) -> tuple[int, str]:
    """Run a command that prints to this descriptor (`2>&1` as in a shell); status and stderr."""
    words, err = command.removesuffix(" 2>&1"), io.StringIO()
    with open(descriptor, "w", encoding="utf-8") as out, contextlib.chdir(at):
        stderr = out if words != command else err
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(stderr):
            status = guarded([*without_asking(tuple(words.split()))])
    return status, err.getvalue()


def unread(command: str, at: Path) -> tuple[int, str]:
    """Run a command whose reader has left."""
    read, write = os.pipe()
    os.close(read)
    return printing_to(write, command, at)


@posix_only
@pytest.mark.parametrize(
    "command",
    [
        "-v schema plan",
        "-v models",
        "-v validate -o json",
        "--help",
        "apply --help",
        "apply --dry-run",
        "lock --dry-run",
        "plan 2>&1",
    ],
)
def test_a_reader_that_leaves_is_no_error_for_what_only_reads(project: Path, command: str) -> None:
    status, err = unread(command, project)
    assert (status, "Traceback" in err, "closed" in err) == (0, False, False), err


@posix_only
def test_a_reader_that_leaves_a_dry_run_is_no_error(project: Path) -> None:
    assert compose("apply", at=project).status == 0
    for command in (
        "prune",
        "destroy recipes/wizard.yaml",
        "import --all",
        "forget recipes/wizard.yaml",
    ):
        status, err = unread(f"{command} --dry-run", project)
        assert (status, "the output was closed" in err) == (0, False), (command, err)


@posix_only
@pytest.mark.parametrize("command", ["apply", "lock", "apply 2>&1"])
def test_a_reader_that_leaves_makes_a_writing_command_say_so(project: Path, command: str) -> None:
    status, err = unread(command, project)
    assert (status, "the output was closed" in err) == (1, "2>&1" not in command)
    assert (project / "compose.lock").is_file()  # it was done all the same


@posix_only
@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("validate", 65),
        ("validate -o sarif", 65),
        ("plan -o json", 65),
        ("plan nothere 2>&1", 64),
        ("apply --nope 2>&1", 64),
        ("status --target scenario 2>&1", 65),
    ],
)
def test_a_reader_that_leaves_hides_no_failure(project: Path, command: str, status: int) -> None:
    (project / "recipes/broken.yaml").write_text("name: [")
    assert unread(command, project)[0] == status


@posix_only
def test_a_reader_that_leaves_hides_no_changes(project: Path) -> None:
    assert unread("plan --detailed-exitcode", project)[0] == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the device of Linux")
@pytest.mark.parametrize(
    ("command", "done"),
    [("validate", False), ("plan -o json", False), ("apply --dry-run", False), ("apply", True)],
)
def test_a_full_stdout_is_named(project: Path, command: str, done: bool) -> None:
    status, err = printing_to(os.open("/dev/full", os.O_WRONLY), command, project)
    *_, what, hint = err.splitlines()
    assert (status, what) == (1, "compose: stdout: No space left on device")
    assert ("what was done so far is recorded" in hint, "free some space" in hint) == (done, True)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the device of Linux")
def test_a_full_stderr_changes_nothing(project: Path) -> None:
    assert shell("compose plan nowhere 2>/dev/full", project).returncode == 64
    assert shell("compose apply 2>/dev/full", project).returncode == 0


@posix_only
def test_a_current_folder_that_is_gone(tmp_path: Path) -> None:
    for command in ("validate", "plan", "lock"):
        folder = tmp_path / "gone"
        folder.mkdir()
        err = io.StringIO()
        with contextlib.chdir(folder), contextlib.redirect_stderr(err):
            folder.rmdir()
            status = guarded([command])
        what, hint = err.getvalue().splitlines()
        assert (status, what) == (1, "compose: the current folder: No such file or directory")
        assert hint.endswith("go to a folder that exists, then run the command again")


@posix_only
def test_missing_permissions_are_named(project: Path) -> None:
    user = os.geteuid()
    for command in (["validate"], ["plan", "--offline"]):
        assert compose(*command, at=project).status == 0  # imports what it needs
        err = io.StringIO()
        (project / "recipes").chmod(0)
        with contextlib.chdir(project), contextlib.redirect_stderr(err):
            os.seteuid(user or 65534)
            try:
                status = guarded(command)
            finally:
                os.seteuid(user)
        (project / "recipes").chmod(0o755)
        *_, what, hint = err.getvalue().splitlines()
        assert (status, what.endswith(": Permission denied")) == (1, True), what
        assert what.startswith("compose: /")
        assert hint == "  change its permissions or use another folder, then run the command again"


@posix_only
def test_a_reader_that_leaves_a_process(project: Path) -> None:
    line = "compose {} | (exec <&-; sleep 1); exit ${{PIPESTATUS[0]}}"
    ran = shell(line.format("apply --dry-run"), project)
    assert (ran.returncode, "closed" in ran.stderr) == (0, False), ran.stderr
    (project / "recipes/broken.yaml").write_text("name: [")
    assert shell(line.format("validate"), project).returncode == 65


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
        ("plan", "--target", ""),
        ("status", "--library", ""),
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
