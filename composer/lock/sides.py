"""The sides of a lock: what git left between conflict markers, and what a journal adds.

Several sides may name different ids for one recipe. They are brought together here as one entry
with `candidates`; which of them wins is decided by planning, on what the target says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.errors import InvalidInput
from composer.lock.text import RESTORE
from composer.model import Candidate, Entry, Lock, Next, Replaced, TargetLock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_OURS, _BASE, _MIDDLE, _THEIRS = "<<<<<<<", "|||||||", "=======", ">>>>>>>"


def texts(text: str) -> list[str]:
    """The lock's text once, or, where git left conflict markers (diff3's too), ours and theirs.

    Raises `InvalidInput` where markers are torn.
    """
    if not any(line.startswith(_OURS) for line in text.splitlines()):
        return [text]
    sides = _sides(text)
    return [sides[_OURS], sides[_MIDDLE]]


def base_of(text: str) -> str | None:
    """What both sides of a conflict come from, if git wrote that too (diff3's markers).

    Raises `InvalidInput` where markers are torn.
    """
    conflicts, bases = (
        sum(line.startswith(marker) for line in text.splitlines()) for marker in (_OURS, _BASE)
    )
    return _sides(text)[_BASE] if conflicts and conflicts == bases else None


def _sides(text: str) -> dict[str, str]:
    """The whole text of each side, by the marker that its part of a conflict stands below."""
    kept: dict[str, list[str]] = {_OURS: [], _BASE: [], _MIDDLE: []}
    at = ""  # the marker that we are below; empty outside a conflict
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        marker = line[:7] if line[:7] in _AFTER and line[7:8] in (" ", "\n", "\r", "") else ""
        if not marker:
            for side in kept if not at else (at,):
                kept[side].append(line)
            continue
        if at not in _AFTER[marker]:
            raise InvalidInput(f"compose.lock:{number}: torn conflict markers", hint=RESTORE)
        at = "" if marker == _THEIRS else marker
    if at:
        raise InvalidInput("compose.lock: a conflict marker without its end", hint=RESTORE)
    return {side: "".join(lines) for side, lines in kept.items()}


def without_markers(text: str) -> str:
    """The text with each line of a conflict marker emptied: the others keep their numbers."""
    lines = text.splitlines(keepends=True)
    return "".join("\n" if line.startswith(tuple(_AFTER)) else line for line in lines)


_AFTER = {_OURS: ("",), _BASE: (_OURS,), _MIDDLE: (_OURS, _BASE), _THEIRS: (_MIDDLE,)}


def merged(locks: Iterable[Lock], *, base: Lock | None = None) -> Lock:
    """One lock of several sides; the first side's entries lead.

    A pin that only another side moved away from the `base` is as that side says.
    """
    first, *others = locks
    before = base or Lock()
    for other in others:
        keys = sorted({*first.targets, *other.targets})
        sides = {key: (first.target(key), other.target(key), before.target(key)) for key in keys}
        first = Lock({key: _merged_target(*side) for key, side in sides.items()})
    return first


def _merged_target(ours: TargetLock, theirs: TargetLock, base: TargetLock) -> TargetLock:
    entries = dict(ours.recipes)
    for path, entry in theirs.recipes.items():
        if path in entries:
            before = dict(base.recipes[path].pins) if path in base.recipes else {}
            entry = _both(entries[path], entry, before)
        entries[path] = entry
    return TargetLock(ours.owner or theirs.owner, dict(sorted(entries.items())))


def _both(ours: Entry, theirs: Entry, before: Mapping[str, str]) -> Entry:
    """Of an id that both name, a record that differs is a candidate too: either may be torn."""
    known = {held.id: held.content for held in ours.current}
    doubted = (c for c in theirs.current if known.get(c.id, c.content) != c.content)
    entry = upgraded(combined(ours, theirs), theirs, before)
    return replace(entry, candidates=(*entry.candidates, *doubted))


def flat(target: TargetLock) -> TargetLock:
    """The same as a lock can say it: other sides' ids in `replaced`, so that none gets lost."""
    own = {held.id for entry in target.recipes.values() for held in entry.current}
    return replace(
        target, recipes={path: _flat(entry, own) for path, entry in target.recipes.items()}
    )


def _flat(entry: Entry, own: Collection[str]) -> Entry:
    known = {other.id: retired(other, protect=entry.protect) for other in entry.candidates}
    known |= {old.id: old for old in entry.replaced}
    kept = tuple(known[id] for id in sorted(known) if id not in own)
    return replace(entry, replaced=kept, candidates=())


def retired(candidate: Candidate, *, protect: bool) -> Replaced:
    """What stays of an id that no entry names as its own."""
    training = candidate.content.training if candidate.content else ()
    return Replaced(candidate.id, candidate.name, training, protect)


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


def upgraded(entry: Entry, side: Entry, before: Mapping[str, str]) -> Entry:
    """The entry with the pins that this side moved, where its own are as they were before."""
    pins = dict(entry.pins)
    told = {name: id for name, id in side.pins if name in before and pins.get(name) == before[name]}
    return replace(entry, pins=tuple(sorted({**pins, **told}.items())))


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
