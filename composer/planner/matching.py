"""Which entry of the lock belongs to which recipe, in passes, each over what the last one left.

(1) same name and content, (2) same path and content, (3) same name, (4) same path, (5) same
content if unique on both sides. So two swapped names are two renames, two swapped files two
moves, and nothing is trained. An entry that is left over where a recipe moved to gives way.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from composer.planner.concepts import under_pins
from composer.planner.identity import is_expected_model
from composer.planner.transitions import entry_without

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from composer.model import Candidate, Content, Entry, Observed, Recipe


def match_entries(recipes: Iterable[Recipe], entries: Mapping[str, Entry]) -> dict[str, str]:
    """Recipe path -> the path of its entry; a recipe without one is left out."""
    left = {recipe.path: recipe for recipe in recipes}
    free = dict(entries)
    matched: dict[str, str] = {}

    def same_name(recipe: Recipe, path: str) -> bool:
        return recipe.name == free[path].name

    def same_path(recipe: Recipe, path: str) -> bool:
        return recipe.path == path

    def same_content(recipe: Recipe, path: str) -> bool:
        return _holds(free[path], recipe)

    def one_pass(fits: Callable[[Recipe, str], bool]) -> None:
        for recipe in [left[path] for path in sorted(left)]:
            fitting = [path for path in free if fits(recipe, path)]
            if fitting:
                chosen = min(fitting, key=lambda path: (path != recipe.path, path))
                matched[recipe.path] = chosen
                del left[recipe.path], free[chosen]

    one_pass(lambda recipe, path: same_name(recipe, path) and same_content(recipe, path))
    one_pass(lambda recipe, path: same_path(recipe, path) and same_content(recipe, path))
    one_pass(same_name)
    one_pass(same_path)
    _by_content_alone(left, free, matched)
    for path in sorted({*free} - {*matched.values()}):
        place = free_place(path, matched)
        if place in left and place not in matched:  # a new recipe stands there: this is its entry
            matched[place] = path
    return matched


def free_place(path: str, matched: Mapping[str, str]) -> str:
    """Where an entry without a recipe goes, if a recipe with another entry stands at its path.

    That is the path which that entry left free; another recipe may have moved there in turn.
    """
    while path in matched:
        path = matched[path]
    return path


def own_entries(
    matched: Mapping[str, str], entries: Mapping[str, Entry], observed: Observed
) -> dict[str, Entry]:
    """Each recipe's entry, by the recipe's path.

    An id that two entries name, as after a run that was killed in a move, stays with the one that
    was matched first; but an entry that names what can't be its own takes nothing from another.
    """
    owned: dict[str, Entry] = {}
    claimed: set[str] = set()
    for path, at in matched.items():
        entry = entries[at]
        if claimed & {*entry.ids}:
            entry = replace(entry_without(entry, claimed), candidates=entry.candidates)
        owned[path] = entry
        claimed |= {held.id for held in entry.current if _may_be(held, observed)}
    return owned


def _may_be(held: Candidate, observed: Observed) -> bool:
    model = observed.get(held.id)
    return model is None or is_expected_model(model, {held.name}, [held.content], observed)


def contents(entry: Entry) -> list[Content]:
    """All that an entry is known to have been made from: now, next, and its candidates."""
    known = [entry.content, entry.next.content if entry.next else None]
    return [c for c in (*known, *(other.content for other in entry.candidates)) if c is not None]


def _holds(entry: Entry, recipe: Recipe) -> bool:
    wanted = under_pins(recipe, entry)
    return wanted is not None and wanted in contents(entry)


def _by_content_alone(
    left: dict[str, Recipe], free: dict[str, Entry], matched: dict[str, str]
) -> None:
    pairs = [
        (recipe.path, path)
        for recipe in left.values()
        for path, entry in free.items()
        if _holds(entry, recipe)
    ]
    recipes, entries = Counter(r for r, _ in pairs), Counter(e for _, e in pairs)
    matched.update({r: e for r, e in sorted(pairs) if recipes[r] == 1 and entries[e] == 1})
