"""`--base`: the lock that a change is compared with, from a file or from a git revision."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import InvalidInput, UsageError
from composer.lockfile import NAME, parse
from composer.words import shorten, visible

if TYPE_CHECKING:
    from composer.entities import Lock


def base_lock(base: str, root: Path) -> Lock:
    """The lock in this file, or the one at the root in this revision; empty if it has none there.

    Raises `UsageError` for what is neither, `InvalidInput` for a lock that can't be read.
    """
    if Path(base).is_file():
        return _read(Path(base).read_bytes(), base)
    if base.startswith("-") or not base:
        raise UsageError(f"--base: {visible(base)!r} is neither a file nor a git revision")
    commit = _git(root, "rev-parse", "--verify", f"{base}^{{commit}}")
    if commit.returncode:
        said = shorten(visible(commit.stderr.decode("utf-8", "replace").strip()), 200)
        raise UsageError(
            f"--base: {shorten(visible(base), 100)} is neither a file nor a git revision: {said}",
            hint="in CI, fetch it first: git fetch origin BRANCH",
        )
    # A path that begins with ./ is meant from where git runs, which need not be the top level.
    path = f"{commit.stdout.decode().strip()}:./{NAME}"
    blob = _git(root, "rev-parse", "--verify", "--quiet", path)
    if blob.returncode:
        return _read(b"", base)
    return _read(_git(root, "cat-file", "blob", blob.stdout.decode().strip()).stdout, base)


def _read(data: bytes, base: str) -> Lock:
    try:
        return parse(data.decode("utf-8", "replace"), source=f"the base's lock ({visible(base)})")
    except InvalidInput as bad:
        hint = "--base takes a compose.lock, or a revision that has a good one"
        raise InvalidInput(bad.message, hint=hint) from bad


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """What git answers. No shell, and nothing that the repository configures is run."""
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=False)
    except FileNotFoundError as missing:
        raise UsageError(
            "--base: a git revision needs git, which isn't installed", hint="give a file"
        ) from missing
