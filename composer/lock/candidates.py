"""Candidates: other ids that may be an entry's composition, from the journal or from a merge.

Entries with `candidates` exist in memory only. Planning decides which one is used, by what is on
the target.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.model import Candidate, Entry, Next, Replaced, TargetLock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


def flat(target: TargetLock) -> TargetLock:
    """The same as a lock can hold it: with candidates in `replaced`, so that no id is lost."""
    own = {used.id for entry in target.recipes.values() for used in entry.current}
    entries = target.recipes.items()
    return replace(
        target,
        recipes={path: with_replaced(entry, entry.candidates, own) for path, entry in entries},
    )


def with_replaced(entry: Entry, others: Iterable[Candidate], own: Collection[str | None]) -> Entry:
    """The entry with the `others` in `replaced`, where no id of `own` stays; no candidates."""
    old = {other.id: _retired(other, protect=entry.protect) for other in others}
    old |= {one.id: one for one in entry.replaced}
    kept = tuple(old[id] for id in sorted(old) if id not in own)
    return replace(entry, replaced=kept, candidates=())


def _retired(candidate: Candidate, *, protect: bool) -> Replaced:
    training = candidate.content.training if candidate.content else ()
    return Replaced(candidate.id, candidate.name, training, protect)


def combined(first: Entry, other: Entry) -> Entry:
    """`first`, with what only `other` has: its ids as candidates, its pins and tags."""
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


def overtaken(entry: Entry, newer: Entry) -> Entry:
    """The lock's entry, updated by the journal's, which is newer.

    The journal's `next` replaces the lock's, unless it is of a recipe with another name. For an id
    that both name, the journal says what it was made from.
    """
    coming = newer.next
    if coming and not _replaces_next(coming, entry, newer):
        coming = None
    if coming is None and entry.next and newer.composition == entry.next.composition:
        coming = replace(entry.next, content=newer.content or entry.next.content, job=newer.job)
    before = replace(newer, composition=None, next=entry.next, candidates=(), replaced=())
    return combined(combined(replace(entry, next=coming or entry.next), newer), before)


def upgraded(entry: Entry, newer: Entry, before: Mapping[str, str]) -> Entry:
    """The entry with the pins that `newer` moved, if its own are still those in `before`."""
    pins = dict(entry.pins)
    moved = {
        name: id for name, id in newer.pins if name in before and pins.get(name) == before[name]
    }
    return replace(entry, pins=tuple(sorted({**pins, **moved}.items())))


def _replaces_next(coming: Next, entry: Entry, newer: Entry) -> bool:
    """Whether the journal's `next` replaces the lock's."""
    if coming.composition == entry.composition:
        return False
    same = entry.next is not None and entry.next.composition == coming.composition
    return same or newer.name == entry.name or coming.state == "mismatch"


def _candidates(first: Entry, other: Entry) -> tuple[Candidate, ...]:
    named = {first.composition, first.next.composition if first.next else None}
    by_id = {candidate.id: candidate for candidate in (*first.candidates, *other.candidates)}
    for candidate in other.current:
        same = by_id.get(candidate.id, candidate)
        by_id[candidate.id] = replace(candidate, used=candidate.used or same.used)
    return tuple(by_id[id] for id in sorted(by_id) if id not in named)
