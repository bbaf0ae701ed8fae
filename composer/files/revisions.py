"""What git has in a revision: its commit, its files, and those that are still the same."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.files.git import git
from composer.files.repository import InsideReader
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

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


def files_at(
    folder: Path,
    revision: str,
    option: RevisionOption,
    wanted: Callable[[str], bool],
    *,
    limit: int,
) -> dict[str, bytes]:
    """The regular files of a revision whose paths below the folder are wanted, as git has them.

    Of a file with more than `limit` bytes there are as many zero bytes and one more. Git runs no
    filter. Raises `UsageError`.
    """
    blobs = {path: id for path, id in _blobs(folder, revision, option).items() if wanted(path)}
    ids = list(dict.fromkeys(blobs.values()))
    sizes = [line.split() for line in _asked(folder, "--batch-check", ids).splitlines()]
    small = [id.decode() for id, *rest in sizes if rest[0] == b"blob" and int(rest[1]) <= limit]
    if any(rest[0] != b"blob" for _, *rest in sizes):
        shown = shorten(visible(revision), 100)
        raise UsageError(
            f"{option.flag}: files of {shown} are not in this partial clone",
            hint=f"fetch them first: git archive {shlex.quote(visible(revision))} > {os.devnull}",
        )
    contents = _split(_asked(folder, "--batch", small))
    return {path: contents.get(id, bytes(limit + 1)) for path, id in blobs.items()}


def _asked(folder: Path, how: str, ids: list[str]) -> bytes:
    """What git says of these blobs."""
    given = "".join(f"{id}\n" for id in ids).encode()
    return git(folder, "cat-file", how, given=given).stdout if ids else b""


def _split(answer: bytes) -> dict[str, bytes]:
    """The blobs by their ids: a line with id, type and size before each, a line end after it."""
    contents, place = {}, 0
    while place < len(answer):
        end = answer.index(b"\n", place)
        id, _, size = answer[place:end].split()
        place = end + 1 + int(size) + 1
        contents[id.decode()] = answer[end + 1 : place - 1]
    return contents


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
