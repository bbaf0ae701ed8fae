"""`--base`: the lock that a change is compared with, from a file or from a git revision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import InvalidInput, UsageError
from composer.files.git import git
from composer.lock import LOCK_NAME, read_merged
from composer.model import Lock
from composer.text import shorten, visible

if TYPE_CHECKING:
    import subprocess


@dataclass(frozen=True, slots=True)
class Base:
    """A lock to compare with; `flaw` is why it can't be read, and there is nothing to compare."""

    lock: Lock
    flaw: str = ""


def base_lock(base: str, root: Path) -> Base:
    """The lock in this file, or the one at the root in this revision; empty if it has none there.

    A revision is what it is: where its lock can't be read, that is told, and stops nobody from
    mending it. Raises `UsageError` for what is neither, `InvalidInput` for a file that is no lock.
    """
    if Path(base).is_file():
        return Base(_read(Path(base).read_bytes(), base))
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
    path = f"{commit.stdout.decode().strip()}:./{LOCK_NAME}"
    blob = _git(root, "rev-parse", "--verify", "--quiet", path)
    if blob.returncode:
        return Base(Lock())
    data = _git(root, "cat-file", "blob", blob.stdout.decode().strip()).stdout
    try:
        return Base(_read(data, base))
    except InvalidInput as bad:
        return Base(Lock(), bad.message)


def _read(data: bytes, base: str) -> Lock:
    try:
        return read_merged(data.decode("utf-8", "replace"), f"the base's lock ({visible(base)})")
    except InvalidInput as bad:
        raise InvalidInput(bad.message, hint="--base takes a compose.lock, or a revision") from bad


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return git(root, *arguments)
    except FileNotFoundError as missing:
        raise UsageError(
            "--base: a git revision needs git, which isn't installed", hint="give a file"
        ) from missing
