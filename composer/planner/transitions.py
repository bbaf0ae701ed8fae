"""What an entry becomes as its action proceeds: on its way, arrived, or pruned. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.model import Entry, Next, Replaced

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from composer.planner.plan import Action


def entry_in_progress(action: Action, id: str, *, state: str, job: str | None = None) -> Entry:
    """The entry while `id` is made or trained: in `next`, beside the composition in use."""
    content = action.content
    assert content is not None, "an action without content makes nothing"
    entry = _as_the_recipe_says(action)
    replaced = [*entry.replaced, *action.transition.supersedes]
    if job is None and entry.next and entry.next.composition == id:
        job = entry.next.job
    earlier = _sorted(replaced, without=(id, entry.composition))
    return replace(entry, next=Next(id, content, state, job), replaced=earlier)


def entry_once_trained(action: Action, id: str, *, job: str | None) -> Entry:
    """The entry once `id` is trained: it is the composition, and the one before is `replaced`."""
    entry = _as_the_recipe_says(action)
    replaced = [*entry.replaced, *action.transition.supersedes]
    before = action.entry
    if before and before.composition and before.composition not in {old.id for old in replaced}:
        training = before.content.training if before.content else ()
        replaced.append(Replaced(before.composition, before.name, training, entry.protect))
    return replace(
        entry,
        composition=id,
        job=job,
        content=action.content,
        next=None,
        replaced=_sorted(replaced, without=(id,)),
    )


def _as_the_recipe_says(action: Action) -> Entry:
    """The entry with the recipe's name, pins, tags and protection."""
    recipe = action.recipe
    assert recipe is not None, "an action without a recipe keeps its entry"
    entry = action.entry or Entry(recipe.name)
    replaced = (replace(o, protect=o.protect and recipe.protect) for o in entry.replaced)
    return replace(
        entry,
        name=recipe.name,
        pins=action.transition.pins,
        tags=recipe.tags,
        protect=recipe.protect,
        replaced=tuple(replaced),
        candidates=(),
    )


def _sorted(replaced: Iterable[Replaced], *, without: Iterable[str | None]) -> tuple[Replaced, ...]:
    kept = {old.id: old for old in replaced if old.id not in set(without)}
    return tuple(kept[id] for id in sorted(kept))


def entry_left_behind(action: Action) -> Entry:
    """An entry that no recipe asks for, left in the lock: without what was deleted."""
    entry = action.entry
    assert entry is not None, "only an entry can be left behind"
    transition = action.transition
    deleted = {*transition.deletes_untrained} - {old.id for old in transition.supersedes}
    coming = entry.next if entry.next and entry.next.composition not in deleted else None
    without = (entry.composition, coming.composition if coming else None)
    replaced = _sorted([*transition.supersedes, *entry.replaced], without=without)
    return replace(entry, next=coming, replaced=replaced, candidates=())


def entry_without(entry: Entry, deleted: Collection[str]) -> Entry:
    """An entry without these ids."""
    kept = None if entry.composition in deleted else entry.composition
    return replace(
        entry,
        composition=kept,
        job=entry.job if kept else None,
        content=entry.content if kept else None,
        next=None if entry.next and entry.next.composition in deleted else entry.next,
        replaced=tuple(old for old in entry.replaced if old.id not in deleted),
        candidates=(),
    )
