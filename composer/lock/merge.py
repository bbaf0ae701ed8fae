"""Merges two locks into one, as values and recipe by recipe, never as lines.

`compose lock --repair` reads the two locks from git's index or from the conflict markers in the
file, `compose lock --merge` from the files that git passes to a merge driver. If both changed an
entry, it keeps one of the compositions, and the others are candidates: the next apply takes the
one that has the recipe's content.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from composer.errors import InvalidInput
from composer.files.git import git
from composer.lock.candidates import flat
from composer.lock.document import BASE, MIDDLE, OURS, THEIRS, has_markers, lock_text, parse
from composer.model import Entry, Lock, TargetLock
from composer.text import LOCK_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

T = TypeVar("T")

# Which markers may come before a marker; none outside a conflict.
_AFTER = {OURS: ("",), BASE: (OURS,), MIDDLE: (OURS, BASE), THEIRS: (MIDDLE,)}
_TAKE_OURS = f"git checkout --ours {LOCK_NAME}, then compose apply"


# --- as values ---------------------------------------------------------------------------


def merge_locks(ours: Lock, theirs: Lock, base: Lock | None = None) -> Lock:
    """Both locks as one. A change since the `base` that only one of them has is taken.

    Without a base, an entry that only one lock has is kept. Candidates exist in memory only:
    `flattened` turns them into what the file can hold.
    """
    before = base or Lock()
    keys = sorted({*ours.targets, *theirs.targets})
    merged = {
        key: _merge_targets(ours.target(key), theirs.target(key), before.target(key))
        for key in keys
    }
    return Lock({key: target for key, target in merged.items() if target.recipes})


def _merge_targets(ours: TargetLock, theirs: TargetLock, base: TargetLock) -> TargetLock:
    theirs, base = _follow_moves(ours, theirs, base)
    ours, base = _follow_moves(theirs, ours, base)
    entries = {}
    for path in sorted({*ours.recipes, *theirs.recipes}):
        mine, other = ours.recipes.get(path), theirs.recipes.get(path)
        before = base.recipes.get(path)
        entry: Entry | None
        if before in (mine, other):
            entry = _three_way(mine, other, before)
        elif mine is not None and other is not None:
            entry = _merge_entries(mine, other, before)
        else:  # one removed it, the other changed it
            entry = mine or other
        if entry is not None:
            entries[path] = entry
    owner = _three_way(ours.owner, theirs.owner, base.owner) or ours.owner or theirs.owner
    return TargetLock(owner, entries)


def _follow_moves(
    moved: TargetLock, other: TargetLock, base: TargetLock
) -> tuple[TargetLock, TargetLock]:
    """`other` and `base`, with each recipe at the path that it has in `moved`.

    A recipe was moved if an entry at a new path names the composition of one whose path is gone.
    """
    new = {path: entry for path, entry in moved.recipes.items() if path not in base.recipes}
    path_of = {id: path for path, entry in new.items() for id in entry.all_ids}
    moves = {
        path: path_of[entry.composition]
        for path, entry in base.recipes.items()
        if path not in moved.recipes and entry.composition in path_of
    }
    return _renamed(other, moves), _renamed(base, moves)


def _renamed(target: TargetLock, moves: Mapping[str, str]) -> TargetLock:
    free = {old: new for old, new in moves.items() if new not in target.recipes}
    return replace(
        target, recipes={free.get(path, path): entry for path, entry in target.recipes.items()}
    )


def _three_way(ours: T, theirs: T, base: T) -> T:
    return theirs if ours == base else ours


def _merge_entries(ours: Entry, theirs: Entry, base: Entry | None) -> Entry:
    before = base or Entry("", protect=False)
    chosen = theirs if base and _model(ours) == _model(before) else ours
    coming = _three_way(ours.next, theirs.next, before.next)
    if coming is not None and coming.composition == chosen.composition:
        coming = None
    entry = replace(
        ours,
        name=_three_way(ours.name, theirs.name, before.name),
        pins=_merge_pins(ours, theirs, before),
        composition=chosen.composition,
        job=chosen.job,
        content=chosen.content,
        tags=tuple(sorted({*ours.tags, *theirs.tags})),
        protect=_three_way(ours.protect, theirs.protect, before.protect),
        next=coming,
    )
    return _with_other_ids(entry, ours, theirs, before)


def _model(entry: Entry) -> tuple[object, ...]:
    return (entry.composition, entry.job, entry.content)


def _merge_pins(ours: Entry, theirs: Entry, base: Entry) -> tuple[tuple[str, str], ...]:
    mine, other, before = dict(ours.pins), dict(theirs.pins), dict(base.pins)
    pins = {
        name: _three_way(mine.get(name), other.get(name), before.get(name))
        for name in {*mine, *other}
    }
    return tuple(sorted((name, id) for name, id in pins.items() if id is not None))


def _with_other_ids(entry: Entry, ours: Entry, theirs: Entry, base: Entry) -> Entry:
    """The entry with all other ids of both: as candidates, or in `replaced` if they were there."""
    own = {candidate.id for candidate in entry.current}
    current = {one.id: one for one in (*theirs.current, *ours.current)}
    earlier = {old.id: old for old in (*theirs.replaced, *ours.replaced)}
    listed = [{old.id for old in one.replaced} for one in (ours, theirs, base)]
    pruned = listed[2] - (listed[0] & listed[1]) - current.keys()
    kept = {id: old for id, old in earlier.items() if id not in own | pruned}
    candidates = [current[id] for id in sorted(current) if id not in own and id not in kept]
    replaced = tuple(kept[id] for id in sorted(kept))
    return replace(entry, replaced=replaced, candidates=tuple(candidates))


def flattened(lock: Lock) -> Lock:
    """The lock as its file can hold it: with candidates in `replaced`, so that no id is lost."""
    return Lock({key: flat(target) for key, target in lock.targets.items()})


# --- the two locks of a conflict ---------------------------------------------------------


def read_conflicted(root: Path) -> Lock:
    """The lock of this root; if it has conflict markers, both versions merged.

    Raises `InvalidInput`.
    """
    text = lock_text(root)
    if text is not None and has_markers(text):
        return merge_conflict(root, text)
    return parse(text) if text is not None else Lock()


def merge_conflict(root: Path, text: str) -> Lock:
    """The lock of a text with conflict markers, both versions merged.

    They are read from git's index while a merge is open, else from the markers. Raises
    `InvalidInput` if one of them can't be read.
    """
    versions = _versions_in_index(root)
    if versions is None:
        return _merge_text(text, LOCK_NAME)
    ours, base, theirs = versions
    merged = merge_locks(_version(ours, LOCK_NAME), _version(theirs, LOCK_NAME), _base(base))
    return replace(merged, conflicted=True)


def read_merged(text: str, source: str) -> Lock:
    """A lock from its text; if it has conflict markers, both versions merged.

    Raises `InvalidInput`.
    """
    return _merge_text(text, source) if has_markers(text) else parse(text, source=source)


def _merge_text(text: str, source: str) -> Lock:
    ours, base, theirs = versions_in_text(text)
    mine, other = _version(ours, source), _version(theirs, source)
    merged = merge_locks(
        _without_doubtful_content(mine, other), _without_doubtful_content(other, mine), _base(base)
    )
    return replace(merged, conflicted=True)


def _without_doubtful_content(lock: Lock, other: Lock) -> Lock:
    """The lock without the content of entries that differ in the other one.

    Between markers git may have mixed the lines of both, so planning asks the target instead.
    """
    return Lock(
        {
            key: replace(
                target,
                recipes={
                    path: entry
                    if other.target(key).recipes.get(path) in (None, entry)
                    else replace(entry, content=None)
                    for path, entry in target.recipes.items()
                },
            )
            for key, target in lock.targets.items()
        }
    )


def _version(text: str, source: str) -> Lock:
    try:
        return parse(text, source=source)
    except InvalidInput as bad:
        message = f"{bad.message}; one side of the git conflict can't be read"
        raise InvalidInput(message, hint=_TAKE_OURS) from bad


def _base(text: str | None) -> Lock | None:
    """The common base of both, None if it can't be read: a merge works without."""
    try:
        return None if text is None else parse(text)
    except InvalidInput:
        return None


def _versions_in_index(root: Path) -> tuple[str, str | None, str] | None:
    """Ours, base and theirs from git's index; None if no merge of the lock is open."""
    try:
        ours, base, theirs = (_staged(root, stage) for stage in (2, 1, 3))
    except FileNotFoundError:
        return None
    return None if ours is None or theirs is None else (ours, base, theirs)


def _staged(root: Path, stage: int) -> str | None:
    blob = git(root, "cat-file", "blob", f":{stage}:./{LOCK_NAME}")
    return None if blob.returncode else blob.stdout.decode("utf-8", "replace")


def versions_in_text(text: str) -> tuple[str, str | None, str]:
    """Ours, base (None without diff3's markers) and theirs, each as a whole text.

    Raises `InvalidInput` if the markers are incomplete.
    """
    kept: dict[str, list[str]] = {OURS: [], BASE: [], MIDDLE: []}
    conflicts = bases = 0
    at = ""  # the marker that the line stands below; empty outside a conflict
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        marker = line[:7] if line[:7] in _AFTER else ""
        if not marker:
            for version in kept if not at else (at,):
                kept[version].append(line)
            continue
        if at not in _AFTER[marker]:
            raise InvalidInput(
                f"{LOCK_NAME}:{number}: incomplete conflict markers", hint=_TAKE_OURS
            )
        conflicts, bases = conflicts + (marker == OURS), bases + (marker == BASE)
        at = "" if marker == THEIRS else marker
    if at:
        raise InvalidInput(f"{LOCK_NAME}: incomplete conflict markers", hint=_TAKE_OURS)
    ours, base, theirs = ("".join(lines) for lines in kept.values())
    return ours, base if bases == conflicts else None, theirs


# --- what is left to decide --------------------------------------------------------------


def undecided(lock: Lock) -> list[tuple[str, str, Entry]]:
    """(target key, recipe path, entry) of each entry with candidates: the next apply decides."""
    return [
        (key, path, entry)
        for key, target in lock.targets.items()
        for path, entry in target.recipes.items()
        if entry.candidates
    ]
