"""Reading what lies in a repository, as it may come from a stranger.

A recipe, a lock, a settings file or a LoRA in it may be a link to anything on this machine, or a
pipe that never ends: no link is followed out of it.
"""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.text import LOCK_NAME, RECIPES_FOLDER, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

# What Windows calls links: symbolic ones and junctions (winnt.h).
_REPARSE_LINKS = frozenset({0xA000000C, 0xA0000003})
# Do not wait for a pipe, follow a link that has just appeared, or change line ends (Windows).
_FLAGS = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT"):
    _FLAGS |= getattr(os, _flag, 0)

# --- where it is -------------------------------------------------------------------------


def home_directory() -> Path | None:
    """The user's home directory; None if the system names none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def project_root(start: Path, home: Path | None) -> tuple[Path, str]:
    """The root of the project that this folder is in, and the name of what marks it.

    It is the nearest folder upward with a `.git`, else the nearest with a `compose.lock`, else the
    parent of the nearest folder named `recipes`, else the folder itself; of the last two the name
    is empty. The search stops at the home directory, if there is one.
    """
    above = list(_upward(start, home))
    for mark in (".git", LOCK_NAME):
        for folder in above:
            if os.path.exists(folder / mark):  # False where the folder can't be read
                return folder, mark
    parents = (folder.parent for folder in above if folder.name == RECIPES_FOLDER)
    return next((parent for parent in parents if parent in above), start), ""


def _upward(start: Path, home: Path | None) -> Iterator[Path]:
    ceiling = os.path.realpath(home) if home else None
    for folder in (start, *start.parents):
        if os.path.realpath(folder) == ceiling:
            return
        yield folder


# --- reading inside it -------------------------------------------------------------------


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


def refuse_link_out(path: Path, root: Path, *, hint: str) -> None:
    """Raise `UsageError` if a path in `root` leads out of it through a link."""
    if is_inside(path, root):
        return
    name = path.relative_to(root) if path.is_relative_to(root) else path
    shown = visible(name.as_posix() + "/" * path.is_dir())
    raise UsageError(f"{shown} leads out of {visible(str(root))} through a link", hint=hint)


def is_link(path: Path) -> bool:
    """Whether this is a symbolic link, or a junction of Windows; False if it doesn't exist."""
    try:
        status = path.lstat()
    except OSError:
        return False
    tag = getattr(status, "st_reparse_tag", 0)
    return stat.S_ISLNK(status.st_mode) or tag in _REPARSE_LINKS


def read_inside(path: Path, root: Path, *, limit: int | None = None) -> bytes:
    """The bytes of a regular file in `root`; `InsideReader` reads many.

    With a `limit` at most `limit + 1` of them: the caller sees that the file is too large.

    A link that stays within `root` is followed. Raises `OutsideError`, `NotRegularError`, and
    `OSError` as opening does.
    """
    return InsideReader(root).read(path, limit=limit)


class InsideReader:
    """Reads files in `root`; which folders its links lead to is looked up once for each folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real_root = os.path.realpath(root)
        self._real_folders: dict[str, str] = {}

    def read(self, path: Path, *, limit: int | None = None) -> bytes:
        """As `read_inside`."""
        real = self._real(path)
        if not real.startswith(os.path.join(self._real_root, "")):
            raise OutsideError(path, self.root)
        if not stat.S_ISREG(os.stat(real).st_mode):  # before opening: that may do something
            raise NotRegularError(path)
        with open(os.open(real, _FLAGS), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise NotRegularError(path)
            return stream.read() if limit is None else stream.read(limit + 1)

    def _real(self, path: Path) -> str:
        """The path with every link resolved."""
        folder, name = os.path.split(path)
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        real = os.path.join(self._real_folders[folder], name)
        return os.path.realpath(real) if name in ("", ".", "..") or os.path.islink(real) else real


# --- whose it is -------------------------------------------------------------------------


def check_owner(root: Path, mark: str) -> None:
    """Raise `UsageError` if a project's root, or what marks it as one, is another user's.

    In a folder that many may write to, as /tmp, anybody could place a project above the user's
    own. As with git, `safe.directory` in the user's settings allows one. Files of the superuser are
    trusted, who may write anywhere.
    """
    if os.name != "posix":
        return
    owners = {os.stat(root).st_uid}
    if mark:
        owners |= {os.lstat(root / mark).st_uid, os.stat(root / mark).st_uid}
    others = owners - {0, os.geteuid()}
    if others and os.geteuid() == 0 and os.environ.get("SUDO_UID", "").isdecimal():
        others.discard(int(os.environ["SUDO_UID"]))
    if not others:
        return
    from composer.files.git import is_safe  # nearly every project is the user's own

    if is_safe(Path(os.path.realpath(root))):
        return
    raise UsageError(
        f"the project {visible(str(root))} belongs to another user",
        hint="if you trust it: git config --global --add safe.directory"
        f" {shlex.quote(visible(os.path.realpath(root)))}",
    )
