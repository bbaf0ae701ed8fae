"""Lock-only edits: the lock names other ids than its base does, and no recipe changed. Pure.

Nobody but an apply has a reason to change an id, so a reviewer wants to see these before anything
else. `compose plan --base` compares; a pin is compared whatever the recipe says, since a recipe
can't change one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.entities import Replaced
from composer.plan.meet import contents, meet
from composer.plan.resolve import under_pins
from composer.plan.values import LockEdit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from composer.entities import Entry, Recipe, TargetLock

LOCK = "compose.lock"
_NOTHING = "nothing"


def lock_edits(
    recipes: Sequence[Recipe], base: TargetLock, head: TargetLock
) -> tuple[LockEdit, ...]:
    """Every such edit of one target's part of the lock, by path; another owner first.

    An entry that the base doesn't have is none: its recipe may be as new as it is.
    """
    found = []
    if base.owner and base.owner != head.owner:
        words = f"{base.owner} -> {head.owner or _NOTHING}"
        found.append(LockEdit(LOCK, "owner", words))
    was, now = meet(recipes, base.recipes), meet(recipes, head.recipes)
    for recipe in sorted(recipes, key=lambda recipe: recipe.path):
        before = base.recipes.get(was.get(recipe.path, ""))
        after = head.recipes.get(now.get(recipe.path, ""))
        said = list(_edited(recipe, before, after)) if before else []
        if said:
            found.append(LockEdit(recipe.path, recipe.name, ", ".join(said)))
    for path in sorted({*base.recipes} - {*was.values()} & {*head.recipes} - {*now.values()}):
        said = list(_other_ids(base.recipes[path], head.recipes[path]))
        if said:
            found.append(LockEdit(path, head.recipes[path].name, ", ".join(said)))
    return tuple(found)


def _edited(recipe: Recipe, before: Entry, after: Entry | None) -> Iterator[str]:
    pins = dict(after.pins) if after else {}
    for name, id in before.pins:
        if name in pins and pins[name] != id:
            yield f"pin of {name} {id} -> {pins[name]}"
    if under_pins(recipe, before) in contents(before):
        yield from _other_ids(before, after)


def _other_ids(before: Entry, after: Entry | None) -> Iterator[str]:
    if after is None:
        yield f"the entry is gone, with {', '.join(before.ids) or _NOTHING}"
        return
    before = _arrived(before, after)
    for word, old, new in (
        ("composition", before.composition, after.composition),
        ("next", _next(before), _next(after)),
    ):
        if old != new:
            yield f"{word} {old or _NOTHING} -> {new or _NOTHING}"
    was, now = {old.id for old in before.replaced}, {old.id for old in after.replaced}
    yield from (f"replaced gains {id}" for id in sorted(now - was))
    yield from (f"replaced loses {id}" for id in sorted(was - now))


def _next(entry: Entry) -> str | None:
    return entry.next.composition if entry.next else None


def _arrived(before: Entry, after: Entry) -> Entry:
    """What the base's lock had on its way has arrived: that is progress, and no edit."""
    if before.next is None or after.composition != before.next.composition:
        return before
    old = [Replaced(before.composition, before.name)] if before.composition else []
    return replace(
        before,
        composition=before.next.composition,
        next=None,
        replaced=(*before.replaced, *old),
    )
