"""Reading what lies in a repository, and asking git about it, as it may come from a stranger.

A recipe, a lock, a settings file or a LoRA in it may be a link to anything on this machine, or a
pipe that never ends: no link is followed out of it. Git runs nothing that the repository
configures, and fetches nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.text import LOCK_NAME, RECIPES_FOLDER, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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


# --- revisions ---------------------------------------------------------------------------

_SHALLOW = (
    "this clone is shallow: run git fetch --unshallow; in CI set fetch-depth (GitHub) or GIT_DEPTH"
    " (GitLab) to 2 for the parent commit, to 0 for all"
)


@dataclass(frozen=True, slots=True)
class RevisionOption:
    """An option that takes a git revision, as messages name it."""

    flag: str  # --base
    is_not: str  # what a wrong value is: neither a file nor a git revision
    without_git: str  # what to do where git isn't installed, or there is no repository


def commit_of(folder: Path, revision: str, option: RevisionOption) -> str:
    """The id of the commit that a revision means. Raises `UsageError` with what would help."""
    shown = shorten(visible(revision), 100)
    if revision.startswith("-") or not revision or "\0" in revision:
        raise UsageError(f"{option.flag}: {shown!r} is {option.is_not}")
    try:
        answer = git(folder, "rev-parse", "--verify", f"{revision}^{{commit}}")
    except FileNotFoundError as missing:
        raise UsageError(
            f"{option.flag}: a git revision needs git, which isn't installed",
            hint=option.without_git,
        ) from missing
    if answer.returncode:
        why = answer.stderr.decode("utf-8", "replace")
        raise _no_revision(folder, revision, why, option)
    return answer.stdout.decode().strip()


def _no_revision(folder: Path, revision: str, answer: str, option: RevisionOption) -> UsageError:
    """Why git found no such revision, from its stderr, and the command that helps."""
    shown = shorten(visible(revision), 100)
    safe = re.search(r"safe\.directory (.+)", answer)
    if safe:
        return UsageError(
            f"{option.flag}: git refuses this repository, which belongs to another user ({shown})",
            hint=f"if you trust it: git config --global --add safe.directory {visible(safe[1])}",
        )
    fatal = [line for line in answer.splitlines() if line.startswith("fatal: ")] or [answer]
    reason = shorten(visible(fatal[-1].removeprefix("fatal: ").strip()), 200)
    if "not a git repository" in answer:
        hint = option.without_git
    elif not _has_commits(folder):
        reason, hint = "the repository has no commit yet", "commit the recipes first"
    elif re.search(r"[~^]|\A(HEAD|[0-9a-f]{7,64})\Z", revision) and _is_shallow(folder):
        hint = _SHALLOW
    else:
        hint = f"if a clone lacks it, as in CI, fetch it first: {_fetching(folder, revision)}"
    return UsageError(f"{option.flag}: {shown} is {option.is_not}: {reason}", hint=hint)


def _has_commits(folder: Path) -> bool:
    queries = (("rev-parse", "--verify", "--quiet", "HEAD"), ("rev-list", "-n1", "--all"))
    return any(git(folder, *query).stdout for query in queries)


def _fetching(folder: Path, revision: str) -> str:
    """The command that makes `origin/main`; in a clone of one branch, fetching main does not."""
    remote, _, branch = re.split("[~^@:]", revision)[0].partition("/")
    if not branch or remote not in os.fsdecode(git(folder, "remote").stdout).splitlines():
        return "git fetch origin BRANCH:refs/remotes/origin/BRANCH makes origin/BRANCH"
    return f"git fetch {remote} {shlex.quote(f'{branch}:refs/remotes/{remote}/{branch}')}"


def _is_shallow(folder: Path) -> bool:
    return git(folder, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"


def unchanged_since(
    files: Mapping[str, Path], folder: Path, revision: str, option: RevisionOption, *, limit: int
) -> set[str]:
    """Which of the files, by their paths below the folder, are what this revision has there.

    Compared is what is on disk, so it makes no difference whether a change is committed, staged or
    neither, and git runs no filter. CRLF for LF is no change. A link, a file of a submodule, and
    one of more than `limit` bytes are never the same. Raises `UsageError`.
    """
    blobs = _blobs(folder, revision, option)
    reader = InsideReader(folder)
    return {
        path
        for path, file in files.items()
        if path in blobs and _is_blob(file, blobs[path], reader, limit)
    }


def _blobs(folder: Path, revision: str, option: RevisionOption) -> dict[str, str]:
    """The ids of the regular files of a revision, by their paths below the folder."""
    commit = commit_of(folder, revision, option)
    listing = git(folder, "ls-tree", "-r", "-z", commit)
    if listing.returncode:
        shown = visible(revision)
        raise UsageError(
            f"{option.flag}: the files of {shorten(shown, 100)} are not in this partial clone",
            hint=f"fetch their list first: git ls-tree -r {shlex.quote(shown)}",
        )
    blobs = {}
    for line in listing.stdout.split(b"\0")[:-1]:
        about, _, path = line.partition(b"\t")
        mode, _, id = about.split()
        if mode.startswith(b"100"):  # neither a link nor a submodule
            blobs[os.fsdecode(path)] = id.decode()
    return blobs


def _is_blob(file: Path, blob: str, reader: InsideReader, limit: int) -> bool:
    """Whether git would store this file under that id; what can't be read is not."""
    try:
        data = reader.read(file, limit=limit)
    except OSError:
        return False
    return any(_blob_id(text, blob) == blob for text in (data, data.replace(b"\r\n", b"\n")))


def _blob_id(data: bytes, like: str) -> str:
    """The id of a blob, by the algorithm that another id shows."""
    digest = hashlib.sha256() if len(like) == 64 else hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % len(data) + data)
    return digest.hexdigest()
