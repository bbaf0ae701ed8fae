"""Reading what lies in a repository, and asking git about it, as it may come from a stranger.

A recipe, a lock, a settings file or a LoRA in it may be a link to anything on this machine, or a
pipe that never ends: no link is followed out of it. Git runs nothing that the repository
configures, and fetches nothing.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

# What Windows calls links: symbolic ones and junctions (winnt.h).
_REPARSE_LINKS = frozenset({0xA000000C, 0xA0000003})
# Do not wait for a pipe, follow a link that has just appeared, or change line ends (Windows).
_FLAGS = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT"):
    _FLAGS |= getattr(os, _flag, 0)
_GIT_OPTIONS = (
    "--no-pager",
    "--no-optional-locks",
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "protocol.allow=never"),
)


class OutsideError(OSError):
    """A path that must lie in a folder leads out of it."""

    def __init__(self, path: Path, root: Path) -> None:
        super().__init__(f"leads out of {root}")
        self.filename = str(path)


class NotRegularError(OSError):
    """The path is a folder, a pipe, a device or a socket, not a regular file."""

    def __init__(self, path: Path) -> None:
        super().__init__("not a regular file")
        self.filename = str(path)


def is_inside(path: Path, root: Path) -> bool:
    """Whether `path` lies in `root` once all links of both are resolved; it need not exist."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def is_link(path: Path) -> bool:
    """Whether this is a symbolic link, or a junction of Windows; False if it doesn't exist."""
    try:
        status = path.lstat()
    except OSError:
        return False
    tag = getattr(status, "st_reparse_tag", 0)
    return stat.S_ISLNK(status.st_mode) or tag in _REPARSE_LINKS


def read_inside(path: Path, root: Path, *, limit: int | None = None) -> bytes:
    """The bytes of a regular file in `root`.

    With a `limit` at most `limit + 1` of them: the caller sees that the file is too large.

    A link that stays within `root` is followed. Raises `OutsideError`, `NotRegularError`, and
    `OSError` as opening does.
    """
    if not is_inside(path, root):
        raise OutsideError(path, root)
    real = os.path.realpath(path)
    if not stat.S_ISREG(os.stat(real).st_mode):  # before opening: that may do something
        raise NotRegularError(path)
    with open(os.open(real, _FLAGS), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise NotRegularError(path)
        return stream.read() if limit is None else stream.read(limit + 1)


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run git in this folder, and return its output.

    Raises `FileNotFoundError` if git is not installed.
    """
    program = shutil.which("git")
    if program is None or not Path(program).is_absolute():
        raise FileNotFoundError("git")
    environment = {**os.environ, "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
    command = [program, *_GIT_OPTIONS, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
