"""`compose lock --repair` and `compose lock --merge`: two locks merged as values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from composer.cli.terminal import emit
from composer.errors import InvalidInput
from composer.files.atomic import write_atomically
from composer.lock import (
    NAME,
    dump,
    flattened,
    merge_locks,
    read_conflicted,
    read_merged,
    undecided,
    write_lock,
)
from composer.output import lock as render
from composer.text import counted, visible

if TYPE_CHECKING:
    from pathlib import Path

    from composer.model import Lock


def repair_lock(root: Path, form: str, *, dry_run: bool) -> int:
    """Merge both sides of a conflict, and write the lock; no target is asked.

    Raises `InvalidInput` where a side can't be read.
    """
    lock = read_conflicted(root)
    merged = flattened(lock)
    written = not dry_run and write_lock(root, merged)
    entries = undecided(lock)
    if form == "json":
        click.echo(render.repair_json(entries, written=written), nl=False)
    else:
        conflict = lock.conflicted
        emit(lambda color: render.repair(entries, conflict=conflict, written=written))
    return 0


def merge_files(base: Path, ours: Path, theirs: Path) -> int:
    """Git's merge driver: the merged lock goes to the file `ours`.

    Raises `InvalidInput` where one of the two can't be read.
    """
    mine, other = _read(ours), _read(theirs)
    try:
        before: Lock | None = _read(base)
    except InvalidInput:
        before = None
    merged = merge_locks(mine, other, before)
    entries = undecided(merged)
    if entries:
        count = counted(len(entries), "entry")
        click.echo(f"{NAME}: both sides changed {count}; next: compose apply", err=True)
    for _, path, entry in entries:
        click.echo(f"  {visible(entry.name)}  {visible(path)}", err=True)
    write_atomically(ours, dump(flattened(merged)).encode())
    return 0


def _read(file: Path) -> Lock:
    try:
        return read_merged(file.read_bytes().decode("utf-8"), visible(str(file)))
    except (OSError, UnicodeDecodeError) as bad:
        raise InvalidInput(f"{visible(str(file))}: can't be read as a lock: {bad}") from bad
