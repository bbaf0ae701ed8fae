"""Real repositories of git, for tests that ask what a revision has."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def git(at: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *who, *arguments], cwd=at, check=True, capture_output=True)
    return done.stdout.decode().strip()


def commit(at: Path, message: str = "x") -> str:
    git(at, "add", "--all")
    git(at, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(at, "rev-parse", "HEAD")
