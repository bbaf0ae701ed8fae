"""Which entry of the lock belongs to which recipe, in passes, each over what the last one left.

(1) same name and content, (2) same path and content, (3) same name, (4) same path, (5) same
content if unique on both sides. So two swapped names are two renames, two swapped files two
moves, and nothing is trained. An entry that is left over where a recipe moved to gives way.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from composer.model import rounded
from composer.planner.concepts import under_pins
from composer.planner.identity import is_expected_model
from composer.planner.transitions import entry_without

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from composer.model import Candidate, Content, Entry, Observed, Parameters, Recipe

    Key = TypeVar("Key")


def match_entries(recipes: Iterable[Recipe], entries: Mapping[str, Entry]) -> dict[str, str]:
    """Recipe path -> the path of its entry; a recipe without one is left out."""
    matching = _Matching({recipe.path: recipe for recipe in recipes}, dict(entries))
    matching.by_name(_holds)
    matching.by_path(_holds)
    matching.by_name()
    matching.by_path()
    matching.by_content_alone()
    matching.by_free_place()
    return matching.matched


@dataclass(slots=True)
class _Matching:
    """What the passes share: recipes and entries that are left, and what was matched so far."""

    left: dict[str, Recipe]
    free: dict[str, Entry]
    matched: dict[str, str] = field(default_factory=dict)

    def by_name(self, fits: Callable[[Entry, Recipe], bool] = lambda entry, recipe: True) -> None:
        """Give each recipe an entry of its name that fits."""
        named = _grouped(self.free, lambda entry: [entry.name])
        self._one_pass(lambda recipe: named.get(recipe.name, ()), fits)

    def by_path(self, fits: Callable[[Entry, Recipe], bool] = lambda entry, recipe: True) -> None:
        """Give each recipe the entry at its path if it fits."""
        self._one_pass(lambda recipe: [recipe.path], fits)

    def _one_pass(
        self,
        candidates: Callable[[Recipe], Iterable[str]],
        fits: Callable[[Entry, Recipe], bool],
    ) -> None:
        """Give each recipe the candidate that fits, the one at its own path first."""
        for recipe in [self.left[path] for path in sorted(self.left)]:
            fitting = [
                path
                for path in candidates(recipe)
                if path in self.free and fits(self.free[path], recipe)
            ]
            if fitting:
                chosen = min(fitting, key=lambda path: (path != recipe.path, path))
                self.matched[recipe.path] = chosen
                del self.left[recipe.path], self.free[chosen]

    def by_content_alone(self) -> None:
        """Match what has the same content, where that is unique on both sides."""
        alike = _grouped(self.free, lambda entry: {_outline(c) for c in contents(entry)})
        pairs = [
            (recipe.path, path)
            for recipe in self.left.values()
            for path in alike.get(_outline(recipe), ())
            if _holds(self.free[path], recipe)
        ]
        recipes, entries = Counter(r for r, _ in pairs), Counter(e for _, e in pairs)
        self.matched |= {r: e for r, e in sorted(pairs) if recipes[r] == 1 and entries[e] == 1}

    def by_free_place(self) -> None:
        """An entry that gives way to a moved one goes to the new recipe where it ends up."""
        for path in sorted({*self.free} - {*self.matched.values()}):
            place = free_place(path, self.matched)
            if place in self.left and place not in self.matched:
                self.matched[place] = path


def _grouped(
    entries: Mapping[str, Entry], keys: Callable[[Entry], Iterable[Key]]
) -> dict[Key, list[str]]:
    """The paths of the entries by their keys."""
    groups: dict[Key, list[str]] = {}
    for path, entry in entries.items():
        for key in keys(entry):
            groups.setdefault(key, []).append(path)
    return groups


def _outline(made: Content | Recipe) -> tuple[tuple[float, ...], Parameters]:
    """What two equal contents have in common, whatever the names in a recipe mean."""
    return tuple(sorted(rounded(concept.scale) for concept in made.concepts)), made.training


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
        claimed |= {candidate.id for candidate in entry.current if _may_be(candidate, observed)}
    return owned


def _may_be(candidate: Candidate, observed: Observed) -> bool:
    model = observed.get(candidate.id)
    recorded = [candidate.content]
    return model is None or is_expected_model(model, {candidate.name}, recorded, observed)


def contents(entry: Entry) -> list[Content]:
    """All that an entry is known to have been made from: now, next, and its candidates."""
    recorded = [entry.content, entry.next.content if entry.next else None]
    return [c for c in (*recorded, *(other.content for other in entry.candidates)) if c is not None]


def _holds(entry: Entry, recipe: Recipe) -> bool:
    wanted = under_pins(recipe, entry)
    return wanted is not None and wanted in contents(entry)
