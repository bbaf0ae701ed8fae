"""Applies a project on a disk that is really full: a small file system in memory.

    unshare --user --map-root-user --mount python full_disk.py START DISK ROOM...

mounts one at DISK, which ends with this process. For each ROOM it copies the project START to it,
fills the disk but for so many pages, applies, empties the disk, and applies again. It prints how
the first apply ended and what was wrong after the second.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from support.cli import compose
from support.disk_faults import APPLY, Outcome, check_local, judged, outcome
from support.failing_disk import Failure
from support.state import made_state

from composer.files.state import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = 4096
SIZE = "96m"  # the local target wants 64 MiB beside a result


def main(start: Path, disk: Path, *rooms: int) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", disk], check=True)
    os.environ[VARIABLE] = str(disk / "state")
    expected = undisturbed(start, disk / "project")
    for room in rooms:
        ended = apply_in(start, disk / "project", room, expected)
        print(json.dumps([room, *ended]), flush=True)


def fresh(start: Path, project: Path) -> None:
    """The project as it was; `START/state` is its state."""
    for old in (project, made_state(project)):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(start / "project", project)
    shutil.copytree(start / "state", made_state(project), dirs_exist_ok=True)


def undisturbed(start: Path, project: Path) -> Outcome:
    fresh(start, project)
    ran = compose(*APPLY, at=project)
    assert ran.status == 0, ran
    return outcome(project)


def apply_in(start: Path, project: Path, room: int, expected: Outcome) -> tuple[int, str]:
    """The exit status of an apply that has so many pages of room, and what was wrong then."""
    fresh(start, project)
    with full(project.parent, room):
        ran = compose(*APPLY, at=project)
    return ran.status, judged(Failure(0, 28), [], ran, lambda: check_local(project, expected))


@contextmanager
def full(disk: Path, room: int) -> Iterator[None]:
    """Only so many pages are free."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        space = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - room * PAGE)
    try:
        yield
    finally:
        filler.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
