"""How recipes match lock entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from support.plans import entry_maps, recipe_lists

from composer.planner import match_entries

if TYPE_CHECKING:
    from composer.model import Entry, Recipe


@given(recipe_lists, entry_maps)
def test_each_entry_meets_one_recipe_at_most(
    recipes: list[Recipe], entries: dict[str, Entry]
) -> None:
    met = match_entries(recipes, entries)
    assert set(met) <= {r.path for r in recipes} and set(met.values()) <= set(entries)
    assert len(set(met.values())) == len(met)
