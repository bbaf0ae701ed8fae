"""The commits that changed files, for many files at once: git is asked once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.files.atomic import unguessable
from composer.files.git import git

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

MOST = 100_000  # commits that are looked at
_FOLDERS = 50  # more than these are asked for as the whole root
_LOG = (
    "log",
    # What the repository's settings could add: programs for signatures and for differences.
    *("--no-show-signature", "--no-ext-diff", "--no-textconv", "--no-notes", "--no-mailmap"),
    *("--no-color", "--no-decorate", "--encoding=UTF-8", "--no-merges", "-z", "--relative"),
    *("--name-status", f"--max-count={MOST}"),
)


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit; its texts are whatever its author wrote."""

    id: str
    date: str  # ISO 8601, as its author's clock had it
    author: str
    subject: str


@dataclass(frozen=True, slots=True)
class History:
    """The commits of each file by its path, newest first; `problem` is why there are none."""

    commits: Mapping[str, tuple[Commit, ...]]
    problem: str = ""


def history(root: Path, paths: Collection[str]) -> History:
    """The commits that changed these files, by their paths below `root`, with `/`.

    A file that was moved keeps its commits. Merges are left out.
    """
    folders = sorted({path.rpartition("/")[0] or "." for path in paths})
    where = [f":(literal){folder}" for folder in folders if folder != "."]
    if len(where) < len(folders) or len(where) > _FOLDERS:
        where = ["."]
    if not paths:
        return History({})
    mark = unguessable()  # begins each commit: a path or a subject can be anything else
    asked = (*_LOG, f"--format={mark}%H%x00%aI%x00%an%x00%s")
    try:
        answer = git(root, *asked, "--find-renames", "--", *where)
        if answer.returncode:  # what a partial clone lacks is needed to compare contents alone
            answer = git(root, *asked, "--no-renames", "--", *where)
    except FileNotFoundError:
        return History({}, "git isn't installed")
    if answer.returncode:
        return History({}, _reason(answer.stderr.decode("utf-8", "replace")))
    return History(_by_path(answer.stdout.split(mark.encode())[1:], paths))


def _reason(said: str) -> str:
    if "safe.directory" in said:
        return "git refuses this repository, which belongs to another user"
    if "not a git repository" in said:
        return "the project is not in a git repository"
    if "does not have any commits" in said:
        return "the repository has no commit yet"
    return "git can't read the repository's history"


def _by_path(blocks: Iterable[bytes], paths: Collection[str]) -> dict[str, tuple[Commit, ...]]:
    now = {path: path for path in paths}  # an earlier name -> the path of today
    begun: set[str] = set()  # what was new in a commit that was seen: before, another was so called
    found: dict[str, list[Commit]] = {path: [] for path in paths}
    for commit, changes in map(_commit, blocks):
        for path, earlier, is_new in changes:
            if (today := now.get(path)) is None:
                continue
            found[today].append(commit)
            if is_new:
                begun.add(path)
            elif earlier:
                del now[path]
                if earlier not in now or earlier in begun:
                    now[earlier] = today
    return {path: tuple(commits) for path, commits in found.items()}


def _commit(block: bytes) -> tuple[Commit, list[tuple[str, str, bool]]]:
    """A commit, and of each path that it changed what it was called before a move, and whether the
    commit added it."""
    fields = block.split(b"\0")
    id, date, author, subject = (part.decode("utf-8", "replace") for part in fields[:4])
    return Commit(id, date, author, subject), list(_changes(fields[4:]))


def _changes(fields: list[bytes]) -> Iterator[tuple[str, str, bool]]:
    parts = iter(fields)
    for status in parts:
        letter = status.strip()[:1]
        earlier = os.fsdecode(next(parts)) if letter in (b"R", b"C") else ""
        if letter:
            yield (
                os.fsdecode(next(parts)),
                earlier if letter == b"R" else "",
                letter in (b"A", b"C"),
            )
