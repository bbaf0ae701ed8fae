"""Opening and checking what lies in a repository, without ever following a link out of it.

A repository may come from a stranger: a recipe, a lock, a settings file or a LoRA in it may be a
link to anything on this machine, or a pipe that never ends.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

# What Windows calls links: symbolic ones and junctions (winnt.h).
_REPARSE_LINKS = frozenset({0xA000000C, 0xA0000003})
# Don't wait at a pipe, follow no link at the last moment, change no line ends (Windows).
_FLAGS = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT"):
    _FLAGS |= getattr(os, _flag, 0)


class OutsideError(OSError):
    """The path leads out of the folder that it must lie in."""

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
    """The bytes of a regular file in `root`; at most `limit + 1` of them, so that a caller sees
    that a file is too large.

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
