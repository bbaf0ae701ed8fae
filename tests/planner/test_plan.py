"""What holds of every plan: order, digest, guards at their boundaries, and pure functions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_target import composition
from support.plans import entry, entry_maps, ink, knight, model_lists, observed, recipe_lists
from support.sizes import size

from composer.errors import CredentialsError, Refused
from composer.model import MARK, Entry, KnownState, Model, Next, Recipe
from composer.planner import ALLOW_EMPTY, ALLOW_LARGE, Options, Plan, Verb, plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def many(count: int) -> tuple[list[Recipe], dict[str, Entry], list[Model]]:
    """Recipes, their entries and models, all alike."""
    recipes = [knight(0.5, f"{n:03}.yaml", f"N{n}") for n in range(count)]
    entries = {r.path: entry(f"c{n}", r.name, 0.5) for n, r in enumerate(recipes)}
    models = [
        composition(f"c{n}", r.name, {"lora_ink": 0.5}, tags=frozenset({MARK}))
        for n, r in enumerate(recipes)
    ]
    return recipes, entries, models


def planned(
    recipes: Iterable[Recipe],
    entries: Mapping[str, Entry],
    models: Iterable[Model],
    *,
    prune: bool = False,
    remote: bool = False,
) -> Plan:
    options = Options(prune=prune)
    return plan([*recipes], KnownState(entries=entries), observed(*models, remote=remote), options)


@pytest.mark.parametrize(
    ("entries", "changed", "refused"),
    [
        (2, 2, False),  # two are never many
        (3, 2, False),
        (3, 3, True),
        (9, 3, True),
        (10, 3, False),  # exactly 30 %
        (10, 4, True),
        (20, 6, False),
        (20, 7, True),
        (110, 33, False),
        (110, 34, True),
    ],
)
@pytest.mark.parametrize("how", ["replaced", "deleted"])
def test_more_than_30_percent_and_at_least_3(
    entries: int, changed: int, refused: bool, how: str
) -> None:
    recipes, locked, models = many(entries)
    if how == "replaced":
        recipes = [knight(0.9, r.path, r.name) for r in recipes[:changed]] + recipes[changed:]
    else:
        recipes = recipes[changed:] or [knight(0.1, "new.yaml", "New")]
    result = planned(recipes, locked, models, prune=True)
    assert [guard.flag for guard in result.guards] == ([ALLOW_LARGE] if refused else [])
    if refused:
        with pytest.raises(Refused, match=f"{changed} of {entries}") as caught:
            result.guard()
        assert ALLOW_LARGE in str(caught.value.hint)
    result.guard({ALLOW_LARGE})


def test_exactly_30_percent_at_any_size() -> None:
    for tens in range(1, 40):
        recipes, locked, models = many(10 * tens)
        kept = recipes[3 * tens :]
        assert planned(kept, locked, models, prune=True).guards == ()


def test_a_flag_allows_its_own_danger_only() -> None:
    _, locked, models = many(4)
    result = planned([], locked, models, prune=True)
    assert {guard.flag for guard in result.guards} == {ALLOW_EMPTY, ALLOW_LARGE}
    for flag in (ALLOW_EMPTY, ALLOW_LARGE):
        with pytest.raises(Refused):
            result.guard({flag})
    result.guard({ALLOW_EMPTY, ALLOW_LARGE})


def test_no_flag_allows_another_owner() -> None:
    recipes, locked, models = many(1)
    memory = KnownState("team_a", locked)
    result = plan(recipes, memory, observed(*models, owner="team_b"))
    with pytest.raises(CredentialsError):
        result.guard({ALLOW_EMPTY, ALLOW_LARGE})
    plan(recipes, memory, observed(*models)).guard()  # a target that tells no owner


@pytest.mark.parametrize("count", [1, 2, 5])
def test_all_gone_at_once_on_a_remote_target(count: int) -> None:
    recipes, locked, models = many(count)
    assert [g.flag for g in planned(recipes, locked, [], remote=True).guards] == [ALLOW_LARGE]
    assert planned(recipes, locked, models[:1], remote=True).guards == ()
    assert planned(recipes, locked, []).guards == ()


def test_create_adopt_and_train_towards_one_content_are_one_change() -> None:
    mine = knight()
    theirs = composition("theirs", "Knight", {"lora_ink": 0.5})
    new = replace(theirs, status="new", parameters=None)
    coming = {
        "a.yaml": Entry("Knight", (("Ink", "lora_ink"),), next=Next("theirs", ink(0.5), "created"))
    }
    digests = {
        verb: planned([mine], entries, models)
        for verb, entries, models in (
            (Verb.CREATE, {}, []),
            (Verb.ADOPT, {}, [theirs]),
            (Verb.TRAIN, coming, [new]),
        )
    }
    assert [result.actions[0].verb for result in digests.values()] == [*digests]
    assert len({result.digest for result in digests.values()}) == 1


def test_an_interrupted_replacement_is_the_same_change() -> None:
    old = composition("old", "Knight", {"lora_ink": 0.5}, tags=frozenset({MARK}))
    new = composition("new", "Knight", {"lora_ink": 0.7}, "new", tags=frozenset({MARK}))
    locked = entry("old", "Knight", 0.5)
    before = planned([knight(0.7)], {"a.yaml": locked}, [old])
    half = replace(locked, next=Next("new", ink(0.7), "created"))
    after = planned([knight(0.7)], {"a.yaml": half}, [old, new])
    assert [p.actions[0].verb for p in (before, after)] == [Verb.REPLACE, Verb.TRAIN]
    assert before.digest == after.digest
    assert (
        before.actions[0].transition.moves_away_from
        == after.actions[0].transition.moves_away_from
        == "old"
    )


def test_an_interrupted_recreation_is_the_same_change() -> None:
    """The composition was gone; its successor has another id, or the same where it is granted."""
    locked = entry("old", "Knight", 0.5)
    before = planned([knight()], {"a.yaml": locked}, [])
    for id in ("new", "old"):
        model = composition(id, "Knight", {"lora_ink": 0.5}, "new", tags=frozenset({MARK}))
        half = replace(locked, next=Next(id, ink(0.5), "created"))
        assert planned([knight()], {"a.yaml": half}, [model]).digest == before.digest


def test_what_a_digest_covers() -> None:
    base = knight()
    variants = [
        base,
        replace(base, path="b.yaml"),
        replace(base, name="Rogue"),
        knight(0.6),
        replace(base, description="d"),
        replace(base, tags=("x",)),
        replace(base, protect=True),
        replace(base, training=(("rank", 8),)),
    ]
    digests = [planned([variant], {}, []).digest for variant in variants]
    assert len(set(digests)) == len(variants)
    elsewhere = replace(observed(), key="https://example.com")
    assert plan([base], KnownState(), elsewhere).digest not in digests
    old = composition("old", "Knight", {"lora_ink": 0.7})
    assert planned([base], {"a.yaml": entry("old", "Knight", 0.7)}, [old]).digest not in digests


def test_a_drop_is_in_no_digest() -> None:
    """Nobody can have used what was never trained."""
    failed = composition("failed", "Knight", {"lora_ink": 0.9}, "failed", tags=frozenset({MARK}))
    coming = Entry("Knight", (("Ink", "lora_ink"),), next=Next("failed", ink(0.9), "created"))
    result = planned([knight()], {"a.yaml": coming}, [failed])
    assert result.actions[0].transition.deletes_untrained == ("failed",)
    assert result.digest == planned([knight()], {}, []).digest


def test_digests_are_64_hex_digits_and_an_empty_plan_has_one() -> None:
    result = planned([], {}, [])
    assert len(result.digest) == 64 and set(result.digest) <= set("0123456789abcdef")
    assert result.change_digests == () and planned([knight()], {}, []).digest != result.digest


@settings(max_examples=size(150, 5000), deadline=None)
@given(recipe_lists, entry_maps, model_lists, st.booleans(), st.randoms(use_true_random=False))
def test_every_recipe_gets_an_answer_and_order_means_nothing(
    recipes: list[Recipe],
    entries: dict[str, Entry],
    models: list[Model],
    prune: bool,
    random: object,
) -> None:
    result = planned(recipes, entries, models, prune=prune)
    assert [a.path for a in result.actions if a.recipe] == sorted(r.path for r in recipes)
    assert [a.path for a in result.actions] == sorted(a.path for a in result.actions)
    assert len({a.path for a in result.actions}) == len(result.actions)
    assert all(action.explanation.reason for action in result.actions)
    backwards = dict(reversed(entries.items()))
    again = planned(reversed(recipes), backwards, reversed(models), prune=prune)
    assert (again, again.digest) == (result, result.digest)


@given(recipe_lists, entry_maps, model_lists)
@settings(max_examples=size(30, 1_000), deadline=None)
def test_prompts_are_no_part_of_a_model(
    recipes: list[Recipe], entries: dict[str, Entry], models: list[Model]
) -> None:
    prompting = [replace(recipe, prompts=("a fox", recipe.name)) for recipe in recipes]
    without, within = (planned(some, entries, models) for some in (recipes, prompting))
    assert without.change_digests == within.change_digests
    assert [replace(action, recipe=None) for action in without.actions] == [
        replace(action, recipe=None) for action in within.actions
    ]


@settings(max_examples=size(150, 5000), deadline=None)
@given(recipe_lists, entry_maps, model_lists, st.booleans())
def test_no_plan_deletes_what_it_must_not(
    recipes: list[Recipe], entries: dict[str, Entry], models: list[Model], prune: bool
) -> None:
    result = planned(recipes, entries, models, prune=prune)
    there = {model.id: model for model in models}
    chosen = {action.model.id for action in result.actions if action.model}
    used = {e.composition for e in entries.values()}
    used |= {old.id for e in entries.values() for old in e.replaced}
    for action in result.actions:
        transition = action.transition
        for id in (*transition.deletes, *transition.deletes_untrained):
            assert MARK in (there[id].tags or ()) and id not in chosen
        assert not set(transition.deletes_untrained) & used, "once used, only pruning deletes it"
        assert not transition.deletes or (prune and action.recipe is None)
        assert not (transition.deletes and action.entry and action.entry.protect)
    assert len(chosen) == sum(action.model is not None for action in result.actions)
