"""Reading what lies in a repository, and asking git about it, as it may come from a stranger.

A recipe, a lock, a settings file or a LoRA in it may be a link to anything on this machine, or a
pipe that never ends: no link is followed out of it. Git runs nothing that the repository
configures, and fetches nothing.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    *("-c", "diff.external="),
)
# A repository may allow single protocols; the variable also overrides those. None has this name.
_GIT_VARIABLES = MappingProxyType(
    {
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C.UTF-8",  # messages in English, which callers look at
        "LANGUAGE": "",
    }
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
    if not others or _is_safe(Path(os.path.realpath(root))):
        return
    raise UsageError(
        f"the project {visible(str(root))} belongs to another user",
        hint="if you trust it: git config --global --add safe.directory"
        f" {shlex.quote(visible(os.path.realpath(root)))}",
    )


def _is_safe(root: Path) -> bool:
    """Whether git's `safe.directory` lists this folder; a repository's own settings don't count."""
    try:
        command = ("config", "--null", "--type=path", "--get-all", "safe.directory")
        answer = git(root, *command, variables={"GIT_DIR": os.devnull})
    except FileNotFoundError:
        return False
    safe = False
    for entry in os.fsdecode(answer.stdout).split("\0")[:-1]:
        folder, below = entry.removesuffix("/*"), entry.endswith("/*")
        is_listed = Path(os.path.realpath(folder)) in (root.parents if below else (root,))
        safe = bool(entry) and (safe or entry == "*" or is_listed)  # an empty one resets the list
    return safe


# --- git ---------------------------------------------------------------------------------


def git(
    folder: Path, *arguments: str, variables: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[bytes]:
    """Run git in this folder, with these variables added to the environment; its output.

    Raises `FileNotFoundError` if git is not installed.
    """
    program = find_git(folder)
    if program is None:
        raise FileNotFoundError("git")
    environment = {**os.environ, **_GIT_VARIABLES, **variables}
    command = [program, *_GIT_OPTIONS, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)


def find_git(folder: Path) -> str | None:
    """The absolute path of git; None if it isn't installed.

    It is taken neither from the current folder, where Windows looks first, nor from `folder`.
    """
    ours = {os.path.realpath(folder), os.path.realpath(os.curdir)}
    for place in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if os.path.isabs(place) and os.path.realpath(place) not in ours:
            program = shutil.which(os.path.join(place, "git.exe" if os.name == "nt" else "git"))
            if program is not None:
                return program
    return None
