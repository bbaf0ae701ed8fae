"""Edits of the lock alone, against its base."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from support.golden_cases import (
    COMING,
    ENTRIES,
    ROGUE,
    URL,
    made_of,
    wants,
)
from support.plans import entry_maps, recipe_lists
from support.sizes import size

from composer.model import (
    Entry,
    Lock,
    Next,
    Recipe,
    Replaced,
    TargetLock,
)
from composer.planner import LockDiff, compare_locks


def edits(recipes: list[Recipe], base: dict[str, Entry], head: dict[str, Entry]) -> list[str]:
    return [edit.words for edit in compared(recipes, base, head).edits]


def notes(recipes: list[Recipe], base: dict[str, Entry], head: dict[str, Entry]) -> list[str]:
    return compared(recipes, base, head).notes


def compared(recipes: list[Recipe], base: dict[str, Entry], head: dict[str, Entry]) -> LockDiff:
    was, now = (Lock({URL: TargetLock(recipes=part)}) for part in (base, head))
    return compare_locks(recipes, was, now, URL)


BASE = ENTRIES[ROGUE.path]
CHANGED = wants("Rogue", dust=0.7)
NEW = replace(BASE, composition="model_new")
SHIELDED = replace(ROGUE, protect=True)


@pytest.mark.parametrize(
    ("wanted", "base", "head", "expected"),
    [
        (ROGUE, BASE, BASE, []),
        (ROGUE, BASE, replace(BASE, job="job_x", tags=("x",), protect=True), []),  # no ids
        (ROGUE, BASE, NEW, ["composition model_rogue -> model_new"]),
        (ROGUE, BASE, replace(BASE, composition=None), ["composition model_rogue -> nothing"]),
        (ROGUE, BASE, None, ["the base has this entry (model_rogue), the branch doesn't"]),
        (ROGUE, None, NEW, []),  # the recipe may be as new
        (CHANGED, BASE, NEW, []),  # a change of the recipe
        (replace(ROGUE, description="x"), BASE, NEW, ["composition model_rogue -> model_new"]),
        (
            ROGUE,
            BASE,
            replace(BASE, next=Next("model_next", made_of(dust=0.6), "created")),
            ["next nothing -> model_next"],
        ),
        (
            ROGUE,
            replace(BASE, replaced=(Replaced("model_a", "Rogue"),)),
            replace(BASE, replaced=(Replaced("model_b", "Rogue"),)),
            ["model_b is added to replaced, model_a is removed from replaced"],
        ),
        (
            ROGUE,
            BASE,
            replace(BASE, pins=(("Pixel Dust", "lora_evil"),)),
            ["pin of Pixel Dust lora_dust -> lora_evil"],
        ),
        (
            CHANGED,
            BASE,
            replace(NEW, pins=(("Pixel Dust", "lora_evil"),)),
            ["pin of Pixel Dust lora_dust -> lora_evil"],
        ),
        (ROGUE, BASE, replace(BASE, pins=()), ["pin of Pixel Dust lora_dust -> nothing"]),
        (
            ROGUE,
            BASE,
            replace(BASE, pins=(("Ink Lines", "lora_ink"), *BASE.pins)),
            ["pin of Ink Lines nothing -> lora_ink"],  # for a recipe that names it one day
        ),
        (SHIELDED, replace(BASE, protect=True), BASE, ["protect true -> false"]),
        (ROGUE, replace(BASE, protect=True), BASE, []),  # the recipe says so
        (
            ROGUE,
            BASE,
            replace(BASE, content=made_of(dust=0.5)),
            ["its content differs from the base's"],
        ),
        (
            ROGUE,
            BASE,
            replace(NEW, content=made_of(dust=0.5)),
            ["composition model_rogue -> model_new, its content differs from the base's"],
        ),
        (
            ROGUE,
            COMING,
            replace(COMING, next=Next("model_rogue", made_of(dust=0.5), "training")),
            ["the content of next differs from the base's"],
        ),
        (CHANGED, BASE, None, ["the base has this entry (model_rogue), the branch doesn't"]),
        (ROGUE, Entry("Rogue", BASE.pins), BASE, []),  # pinned, then made
        # An upgrade moves the pin, and then makes another.
        (
            ROGUE,
            BASE,
            replace(NEW, pins=(("Pixel Dust", "lora_ink"),), content=made_of(ink=0.6)),
            ["pin of Pixel Dust lora_dust -> lora_ink, composition model_rogue -> model_new"],
        ),
        # What was on its way has arrived.
        (ROGUE, COMING, replace(BASE, pins=COMING.pins), []),
        (
            ROGUE,
            replace(COMING, composition="model_old", content=made_of(dust=0.5)),
            replace(BASE, replaced=(Replaced("model_old", "Rogue"),)),
            [],
        ),
    ],
)
def test_edits_of_the_lock_alone(
    wanted: Recipe, base: Entry | None, head: Entry | None, expected: list[str]
) -> None:
    path = wanted.path
    before, after = ({path: e} if e else {} for e in (base, head))
    assert edits([wanted], before, after) == expected


def test_an_edit_is_found_where_the_recipe_moved_to() -> None:
    moved = replace(ROGUE, path="recipes/scout.yaml")
    assert edits([moved], {ROGUE.path: BASE}, {ROGUE.path: BASE}) == []
    assert edits([moved], {ROGUE.path: BASE}, {moved.path: NEW}) == [
        "composition model_rogue -> model_new"
    ]


def test_an_entry_without_a_recipe_and_another_owner_are_compared_too() -> None:
    assert edits([], {ROGUE.path: BASE}, {ROGUE.path: NEW}) == [
        "composition model_rogue -> model_new"
    ]
    was, now = (Lock({URL: TargetLock(owner)}) for owner in ("team_a", "team_b"))
    (edit,) = compare_locks([], was, now, URL).edits
    assert (edit.path, edit.words) == ("compose.lock", "team_a -> team_b")


def test_what_an_apply_may_have_written_is_a_note() -> None:
    made = replace(NEW, content=made_of(dust=0.7), replaced=(Replaced("model_rogue", "Rogue"),))
    (moved,) = notes([CHANGED], {ROGUE.path: BASE}, {ROGUE.path: made})
    assert "its recipe changed, and the lock names another id: composition model_rogue" in moved
    (note,) = notes([ROGUE], {}, {ROGUE.path: BASE})
    assert "no model of Rogue (model_rogue); an apply elsewhere writes that" in note
    (gone,) = notes([], {ROGUE.path: BASE}, {})
    assert (
        "the base has this entry (model_rogue), the branch doesn't: a prune may have removed it"
        in gone
    )
    assert notes([ROGUE], {ROGUE.path: COMING}, {ROGUE.path: replace(BASE, pins=COMING.pins)}) == []


def test_an_entry_that_no_recipe_has_is_an_edit_unless_it_only_made_way() -> None:
    told = edits([], {}, {ROGUE.path: BASE})
    assert told == ["the branch has this entry (model_rogue), the base and the recipes don't"]
    assert edits([], {ROGUE.path: BASE}, {"recipes/elsewhere.yaml": BASE}) == []
    assert edits([], {ROGUE.path: replace(BASE, protect=True)}, {ROGUE.path: BASE}) == [
        "protect true -> false"
    ]


def test_every_target_s_part_is_compared() -> None:
    part, other = TargetLock(recipes={ROGUE.path: BASE}), TargetLock(recipes={ROGUE.path: NEW})

    def edits_of(base: dict[str, TargetLock], head: dict[str, TargetLock]) -> list[tuple[str, str]]:
        result = compare_locks([ROGUE], Lock(base), Lock(head), "local")
        return [(edit.name, edit.words) for edit in result.edits]

    both = {"local": part, URL: part}
    moved = ("Rogue", f"at {URL}: composition model_rogue -> model_new")
    assert edits_of(both, {"local": part, URL: other}) == [moved]
    assert edits_of(both, {"local": part}) == [
        (URL, "the base has this target (1 entry), the branch doesn't")
    ]
    (new,) = edits_of({"local": part}, both)
    assert new == (
        URL,
        "the branch has this target (1 entry), the base doesn't; a first apply there adds it, too",
    )
    assert edits_of({"local": part}, {URL: part}) == [("local", f"the target is renamed to {URL}")]
    assert edits_of({}, both) == []


@settings(max_examples=size(150, 5000), deadline=None)
@given(recipe_lists, entry_maps, entry_maps)
def test_equal_locks_have_no_edits(
    recipes: list[Recipe], base: dict[str, Entry], head: dict[str, Entry]
) -> None:
    assert edits(recipes, base, base) == []
    if edits(recipes, base, head):
        assert base != head
