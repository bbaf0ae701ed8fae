"""Pinning LoRAs without applying, checking pins, and merging two versions of the lock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.errors import ExitStatus, InvalidInput, Refused
from composer.files.atomic import write_atomically
from composer.files.delivery import check_input_link
from composer.lock import (
    dump,
    flattened,
    merge_locks,
    read_conflicted,
    read_file,
    read_merged,
    remember,
    undecided,
    write_lock,
)
from composer.model import Lock, TargetLock
from composer.planner import other_owner, outdated_pins, pinned, unpinned
from composer.targets.base import observe
from composer.text import did_you_mean, visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from composer.model import Entry
    from composer.planner import Options, OutdatedPin, Pinning
    from composer.project.options import PlanOptions
    from composer.project.project import Project
    from composer.targets.base import Target

_COMMIT = "run compose lock, and commit compose.lock"


@dataclass(frozen=True, slots=True)
class Pinned:
    """What `Project.lock` did or would do, on the target with the key `target`.

    `pinning.pins` are the pins that were added or moved, `pinning.problems` pairs of a recipe's
    path and why its LoRAs can't be pinned. `outdated` says what became of LoRAs that are pinned
    already; only a dry run of an upgrade fills it. `written` is true if `compose.lock` changed.
    """

    target: str
    pinning: Pinning
    outdated: tuple[OutdatedPin, ...] = ()
    written: bool = False

    @property
    def exit_status(self) -> int:
        """1 if a recipe has a problem, else 0."""
        return ExitStatus.FAILED if self.pinning.problems else 0


@dataclass(frozen=True, slots=True)
class MergedLock:
    """The entries that both versions of a lock changed: target, recipe, entry.

    The next apply chooses among their compositions. `conflict` is false where there was none, and
    `written` true if `compose.lock` changed.
    """

    undecided: Sequence[tuple[str, str, Entry]]
    conflict: bool = True
    written: bool = False


def pin(project: Project, target: Target, options: PlanOptions, *, dry_run: bool) -> Pinned:
    """See `Project.lock`."""
    lock = project.current_lock()
    memory = remember(project.root, target.key, project.state, lock=lock)
    observed = observe(target, project.recipes, memory)
    wrong_owner = other_owner(memory, observed)
    if wrong_owner is not None:
        raise wrong_owner.error(wrong_owner.message)
    mine = lock.target(target.key)
    pinning = pinned(project.recipes, mine, memory, observed, options)
    if options.locked:
        _refuse_moves(pinning)
    if dry_run:
        outdated = outdated_pins(project.recipes, mine, observed, options)
        return Pinned(target.key, pinning, outdated)
    if options.locked or not pinning.pins:
        return Pinned(target.key, pinning)
    new = TargetLock(memory.owner or observed.owner, pinning.recipes)
    written = write_lock(project.root, Lock({**lock.targets, target.key: new}))
    return Pinned(target.key, pinning, written=written)


def _refuse_moves(pinning: Pinning) -> None:
    for pin in pinning.pins:
        how = f"moves from {pin.before}" if pin.before else "is missing in the lock"
        raise Refused(f"--locked: the pin of {pin.name} ({pin.path}) {how}", hint=_COMMIT)


def check_pins(project: Project, key: str, options: Options) -> None:
    """See `Project.check_pins`."""
    lock = project.current_lock().target(key)
    missing = unpinned(project.recipes, lock, options)
    if missing:
        known = {name for entry in lock.recipes.values() for name, _ in entry.pins}
        near = {name: did_you_mean(name, known - {name}) for _, name in missing}
        asked = {name: f"; did you mean {other}?" for name, other in near.items() if other}
        listed = ", ".join(f"{name} ({path}{asked.get(name, '')})" for path, name in missing)
        raise Refused(f"the lock has no pin for {listed}", hint=_COMMIT)


def repair(root: Path, *, dry_run: bool) -> MergedLock:
    """See `Project.repair_lock`."""
    lock = read_conflicted(root)
    merged = flattened(lock)
    written = not dry_run and write_lock(root, merged)
    return MergedLock(undecided(lock), lock.conflicted, written)


def merge_lock_files(base: Path, ours: Path, theirs: Path) -> MergedLock:
    """Merge two versions of a lock by their common ancestor, as a git merge driver does.

    The result goes to the file `ours`. An ancestor that can't be read counts as an empty lock.
    Raises `InvalidInput` where one of the two versions can't be read, and `UsageError` for a file
    in the repository that leads out of it through a link.
    """
    for file in (base, ours, theirs):
        check_input_link(file)
    missing = [visible(str(file)) for file in (base, ours, theirs) if not file.is_file()]
    if missing:
        raise InvalidInput(
            f"--merge: no such file: {', '.join(missing)}",
            hint="git gives them to a merge driver as %O %A %B; by hand: lock --repair",
        )
    mine, other = _read(ours), _read(theirs)
    try:
        before: Lock | None = _read(base)
    except InvalidInput:
        before = None
    merged = merge_locks(mine, other, before)
    write_atomically(ours, dump(flattened(merged)).encode())
    return MergedLock(undecided(merged), written=True)


def _read(file: Path) -> Lock:
    shown, hint = visible(str(file)), "restore it with git, or name another file"
    try:
        return read_merged(read_file(file, shown, hint=hint).decode("utf-8"), shown)
    except UnicodeDecodeError as bad:
        raise InvalidInput(f"{shown} is not UTF-8", hint=hint) from bad
