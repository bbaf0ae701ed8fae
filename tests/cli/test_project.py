"""Opening a project from the command line: its target and its library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.cli import compose

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_another_target_is_refused_in_words(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = compose("plan", "--target", "ftp://x", at=project)
    assert ran.status == 64
    monkeypatch.setenv("COMPOSE_TARGET", "local")
    assert "Target: local (COMPOSE_TARGET)" in compose("plan", at=project).err


def test_a_library_that_is_none(project: Path) -> None:
    assert compose("plan", "--library", "nowhere", at=project).status == 64
    (project / "recipes/tutorial/loras").mkdir()
    ran = compose("plan", at=project)
    assert (ran.status, "two libraries" in ran.err) == (64, True)
    assert compose("plan", "--library", "recipes/loras", at=project).status == 0
