"""Reading what lies in a repository: links, pipes and folders, and the lock behind a link."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.cli import compose, samples

from composer.files.repository import NotRegularError, OutsideError, is_link, read_inside

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
