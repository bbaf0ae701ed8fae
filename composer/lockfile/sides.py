"""The sides of a lock: what git left between conflict markers, and what a journal adds.

Several sides may name different ids for one recipe. They are brought together here as one entry
with `candidates`; which of them wins is decided by planning, on what the target says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.entities import Candidate, Entry, Lock, Next, TargetLock
from composer.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

_OURS, _BASE, _MIDDLE, _THEIRS = "<<<<<<<", "|||||||", "=======", ">>>>>>>"


def texts(text: str) -> list[str]:
    """The lock's text once, or, where git left conflict markers (diff3's too), ours and theirs.

    Raises `InvalidInput` where markers are torn.
    """
    if not any(line.startswith(_OURS) for line in text.splitlines()):
        return [text]
    kept: dict[str, list[str]] = {_OURS: [], _MIDDLE: []}
    at = ""  # the marker that we are below; empty outside a conflict
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        marker = line[:7] if line[:7] in _AFTER and line[7:8] in (" ", "\n", "\r", "") else ""
        if not marker:
            for side in (_OURS, _MIDDLE) if not at else (at,):
                kept.setdefault(side, []).append(line)
            continue
        if at not in _AFTER[marker]:
            raise InvalidInput(
                f"compose.lock:{number}: torn conflict markers", hint="restore it from git"
            )
        at = "" if marker == _THEIRS else marker
    if at:
        raise InvalidInput(
            "compose.lock: a conflict marker without its end", hint="restore it from git"
        )
    return ["".join(kept[_OURS]), "".join(kept[_MIDDLE])]


_AFTER = {_OURS: ("",), _BASE: (_OURS,), _MIDDLE: (_OURS, _BASE), _THEIRS: (_MIDDLE,)}


def merged(locks: Iterable[Lock]) -> Lock:
    """One lock of several sides; the first side's entries lead."""
    first, *others = locks
    for other in others:
        keys = sorted({*first.targets, *other.targets})
        first = Lock({key: _merged_target(first.target(key), other.target(key)) for key in keys})
    return first


def _merged_target(ours: TargetLock, theirs: TargetLock) -> TargetLock:
    entries = dict(ours.recipes)
    for path, entry in theirs.recipes.items():
        entries[path] = combined(entries[path], entry) if path in entries else entry
    return TargetLock(ours.owner or theirs.owner, dict(sorted(entries.items())))


def combined(first: Entry, other: Entry) -> Entry:
    """`first`, with all that `other` knows beside it: its ids as candidates, its pins and tags."""
    replaced = {old.id: old for old in (*other.replaced, *first.replaced)}
    replaced.pop(first.composition or "", None)
    return replace(
        first,
        pins=tuple(sorted({**dict(other.pins), **dict(first.pins)}.items())),
        tags=tuple(sorted({*first.tags, *other.tags})),
        protect=first.protect or other.protect,
        replaced=tuple(sorted(replaced.values(), key=lambda old: old.id)),
        candidates=_candidates(first, other),
    )


def overtaken(entry: Entry, side: Entry) -> Entry:
    """The lock's entry with what a journal, which is newer, tells of it.

    The journal's `next` is the one on its way, with its state, unless it tells of a recipe of
    another name; what it says of an id that the lock names too is what that one was made from.
    """
    coming = side.next
    if coming and (coming.composition == entry.composition or not _leads(coming, entry, side)):
        coming = None
    if coming is None and entry.next and side.composition == entry.next.composition:
        coming = replace(entry.next, content=side.content or entry.next.content, job=side.job)
    before = replace(side, composition=None, next=entry.next, candidates=(), replaced=())
    return combined(combined(replace(entry, next=coming or entry.next), side), before)


def _leads(coming: Next, entry: Entry, side: Entry) -> bool:
    same = entry.next is not None and entry.next.composition == coming.composition
    return same or side.name == entry.name or coming.state == "mismatch"


def _candidates(first: Entry, other: Entry) -> tuple[Candidate, ...]:
    named = {first.composition, first.next.composition if first.next else None}
    found = {candidate.id: candidate for candidate in (*first.candidates, *other.candidates)}
    for candidate in other.current:
        known = found.get(candidate.id, candidate)
        found[candidate.id] = replace(candidate, used=candidate.used or known.used)
    return tuple(found[id] for id in sorted(found) if id not in named)
