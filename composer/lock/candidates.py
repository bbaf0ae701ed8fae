"""Other ids that an entry may stand for: what the journal tells beside the lock, and what is kept.

An entry with `candidates` is in memory alone; which of them wins is decided by planning, on what
the target says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.model import Candidate, Entry, Next, Replaced, TargetLock

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


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
