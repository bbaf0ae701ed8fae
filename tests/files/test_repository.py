"""Reading what lies in a repository: links, pipes and folders, and the lock behind a link."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.cli import compose, samples

from composer.files.git import find_git, git
from composer.files.repository import (
    NotRegularError,
    OutsideError,
    is_link,
    read_inside,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (root / "inside").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"secret")
    return root


def test_a_regular_file_is_read(root: Path) -> None:
    assert read_inside(root / "inside", root) == b"inside"
    assert read_inside(root / "inside", root, limit=2) == b"ins"  # one more than the limit


def test_a_link_that_stays_inside_is_followed(root: Path) -> None:
    (root / "link").symlink_to("inside")
    assert is_link(root / "link") and not is_link(root / "inside")
    assert read_inside(root / "link", root) == b"inside"


@pytest.mark.parametrize("target", ["../secret", "folder/secret"])
def test_a_link_that_leads_out_is_refused(root: Path, target: str) -> None:
    (root / "folder").symlink_to("..")
    (root / "link").symlink_to(target)
    with pytest.raises(OutsideError):
        read_inside(root / "link", root)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_or_a_folder_is_not_opened(root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(NotRegularError):
            read_inside(root / name, root)


@pytest.mark.parametrize("command", ["validate", "plan", "apply", "status", "output"])
def test_a_lock_behind_a_link_is_refused(tmp_path: Path, command: str) -> None:
    project = samples(tmp_path / "project")
    outside = tmp_path / "elsewhere.lock"
    outside.write_text("{}", encoding="utf-8")
    (project / "compose.lock").unlink(missing_ok=True)
    (project / "compose.lock").symlink_to(outside)
    ran = compose(command, at=project)
    assert ran.status == 65
    assert "compose.lock is a link, which compose does not follow" in ran.err
    assert outside.read_text(encoding="utf-8") == "{}"


# --- git -----------------------------------------------------------------------------------

HOSTILE = """
[core]
    repositoryformatversion = 1
    sshCommand = {command}
    fsmonitor = {command}
    hooksPath = {hooks}
    pager = {command}
    askPass = {command}
    gitProxy = {command}
    alternateRefsCommand = {command}
[diff]
    external = {command}
[protocol "ssh"]
    allow = always
[protocol "ext"]
    allow = always
[extensions]
    partialClone = origin
[remote "origin"]
    url = {url}
    promisor = true
    uploadpack = {command}
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A repository with a changed file, whose settings name a command that leaves a file."""
    root = tmp_path / "root"
    subprocess.run(["git", "init", "-q", root], check=True)
    (root / "a").write_text("a", encoding="utf-8")
    author = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    subprocess.run(["git", "add", "a"], cwd=root, check=True)
    subprocess.run(["git", *author, "commit", "-qm", "1"], cwd=root, check=True)
    (root / "a").write_text("b", encoding="utf-8")
    script = tmp_path / "hooks" / "post-checkout"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\nexit 1\n", encoding="utf-8")
    script.chmod(0o755)
    return root


def configure(root: Path, url: str = "ssh://x/y") -> None:
    hooks = root.parent / "hooks"
    config = HOSTILE.format(command=hooks / "post-checkout", hooks=hooks, url=url)
    (root / ".git/config").write_text(config, encoding="utf-8")
    missing = "1" * 40
    (root / ".git/refs/heads/old").write_text(f"{missing}\n", encoding="utf-8")


RUN_A_COMMAND = (
    ("fetch", "origin"),
    ("cat-file", "blob", "1" * 40),
    ("status",),
    ("diff",),
    ("checkout", "-q", "HEAD", "--", "."),
    ("checkout", "-q", "-b", "new"),
)


@pytest.mark.skipif(os.name != "posix", reason="the command is a shell script")
@pytest.mark.parametrize("arguments", RUN_A_COMMAND, ids=" ".join)
@pytest.mark.parametrize("url", ["ssh://x/y", "ext::touch ran"])
def test_git_runs_nothing_that_the_repository_names(
    hostile: Path, arguments: tuple[str, ...], url: str
) -> None:
    configure(hostile, url)
    git(hostile, *arguments)
    assert not (hostile.parent / "ran").exists() and not (hostile / "ran").exists()


@pytest.mark.skipif(os.name != "posix", reason="the command is a shell script")
@pytest.mark.parametrize("arguments", [("fetch", "origin"), ("status",), ("diff",)], ids=" ".join)
def test_git_alone_would_run_it(hostile: Path, arguments: tuple[str, ...]) -> None:
    """Otherwise the test above would show nothing."""
    configure(hostile)
    subprocess.run(["git", *arguments], cwd=hostile, capture_output=True, check=False)
    assert (hostile.parent / "ran").exists()


@pytest.mark.skipif(os.name != "posix", reason="the command is a shell script")
@pytest.mark.parametrize("place", [".", "", "{here}"])
def test_a_git_in_the_current_folder_is_not_run(
    hostile: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hostile / "git").write_bytes((hostile.parent / "hooks/post-checkout").read_bytes())
    (hostile / "git").chmod(0o755)
    real = find_git(hostile)
    assert real is not None
    monkeypatch.chdir(hostile)
    monkeypatch.setenv("PATH", f"{place.format(here=hostile)}{os.pathsep}{os.environ['PATH']}")
    assert find_git(hostile) == real
    assert git(hostile, "rev-parse", "HEAD").returncode == 0
    monkeypatch.setenv("PATH", place.format(here=hostile))
    assert find_git(hostile) is None
    assert not (hostile.parent / "ran").exists()
