"""Names to ids without applying: what `compose lock` adds to the lock, or moves. Pure.

Pins are all that it adds, with the name of an entry that is new. A pin that no recipe names any
more stays until an apply, since the composition in use may still be made of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from composer.model import Entry
from composer.planner.concepts import resolve
from composer.planner.matching import free_place, match_entries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from composer.model import KnownState, Observed, Recipe, TargetLock
    from composer.planner.plan import Options


@dataclass(frozen=True, slots=True)
class Pin:
    """One name of one recipe that is pinned now; `before` is the id that the lock had for it."""

    path: str
    name: str
    id: str
    before: str | None = None


@dataclass(frozen=True, slots=True)
class Pinning:
    """What came of it; `problems` are by recipe, and none of such a recipe's names is pinned."""

    recipes: Mapping[str, Entry]  # the lock's entries with all pins
    pins: tuple[Pin, ...] = ()  # added or moved
    problems: tuple[tuple[str, str], ...] = ()  # recipe, what is wrong


def pinned(
    recipes: Sequence[Recipe],
    lock: TargetLock,
    memory: KnownState,
    observed: Observed,
    options: Options,
) -> Pinning:
    """Every name of the recipes that are meant, looked up where the lock doesn't pin it yet.

    `memory` is the lock with what a journal adds: its pins are kept too.
    """
    matched = match_entries(recipes, memory.entries)
    entries = dict(lock.recipes) if _has_room(recipes, matched, lock) else _moved(matched, lock)
    pins, problems = list[Pin](), list[tuple[str, str]]()
    for recipe in sorted(recipes, key=lambda recipe: recipe.path):
        if not options.wants(recipe.path):
            continue
        known = memory.entries.get(matched.get(recipe.path, ""))
        found = resolve(recipe, known, observed, options)
        if found.problems:
            problems.append((recipe.path, "; ".join(found.problems)))
            continue
        place = _place(recipe, matched, entries)
        before = dict(entries[place].pins) if place in entries else {}
        new = [
            Pin(recipe.path, name, id, before.get(name))
            for name, id in sorted(found.pins.items())
            if before.get(name) != id
        ]
        if new:
            entry = entries.get(place, Entry(recipe.name))
            together = {**before, **found.pins}
            entries[place] = replace(entry, pins=tuple(sorted(together.items())))
            pins += new
    return Pinning(dict(sorted(entries.items())), tuple(pins), tuple(problems))


def unpinned(
    recipes: Sequence[Recipe], lock: TargetLock, options: Options
) -> tuple[tuple[str, str], ...]:
    """Each recipe and LoRA name that the lock has no pin for; nothing is looked up."""
    matched = match_entries(recipes, lock.recipes)
    found = []
    for recipe in sorted(recipes, key=lambda recipe: recipe.path):
        entry = lock.recipes.get(matched.get(recipe.path, ""))
        names = [ref.name for ref in recipe.concepts if ref.name and options.wants(recipe.path)]
        found += [(recipe.path, n) for n in names if entry is None or entry.pin(n) is None]
    return tuple(found)


def _place(recipe: Recipe, matched: Mapping[str, str], entries: Mapping[str, Entry]) -> str:
    """Where the recipe's entry is: an entry moves with its file only where it has to."""
    at = matched.get(recipe.path, recipe.path)
    return at if at in entries else recipe.path


def _has_room(recipes: Sequence[Recipe], matched: Mapping[str, str], lock: TargetLock) -> bool:
    """Whether no recipe without an entry stands where another one's entry still is."""
    return not any(r.path in lock.recipes and r.path not in matched for r in recipes)


def _moved(matched: Mapping[str, str], lock: TargetLock) -> dict[str, Entry]:
    """All entries where their files are now, as an apply would move them."""
    new = {at: path for path, at in matched.items()}
    return {new.get(at, free_place(at, matched)): entry for at, entry in lock.recipes.items()}
