"""Plans without asking the target: recipes against the lock alone."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st
from support.golden_cases import (
    COMING,
    ENTRIES,
    KNIGHT,
    ROGUE,
    URL,
    made_of,
)
from support.plans import entry_maps, recipe_lists
from support.rehearsal import recipe
from support.sizes import size

from composer.files.schemas import schema
from composer.model import (
    Entry,
    Next,
    Recipe,
    TargetLock,
)
from composer.output.plan_json import as_json
from composer.output.plan_text import text
from composer.output.plan_view import PlanView
from composer.planner import Options, Verb, plan_offline


@settings(max_examples=size(150, 5000), deadline=None)
@given(recipe_lists, entry_maps, st.booleans())
def test_every_reason_says_that_nobody_was_asked(
    recipes: list[Recipe], entries: dict[str, Entry], prune: bool
) -> None:
    result = plan_offline(recipes, TargetLock(recipes=entries), "local", Options(prune=prune))
    assert [a.path for a in result.actions if a.recipe] == sorted(r.path for r in recipes)
    assert all(
        "the target was not asked" in a.explanation.reason and not a.explanation.drift
        for a in result.actions
    )
    assert not result.asked
    plain = json.loads(as_json(PlanView(result)))
    jsonschema.Draft7Validator(json.loads(schema("plan"))).validate(plain)
    assert (plain["digest"], plain["changeDigests"], plain["targetAsked"]) == (None, [], False)
    assert "--expect" not in text(PlanView(result))


def test_a_lock_that_fits_has_nothing_to_do_offline() -> None:
    result = plan_offline([KNIGHT, ROGUE], TargetLock(recipes=ENTRIES), URL)
    assert [action.verb for action in result.actions] == [Verb.KEEP, Verb.KEEP]
    assert "2 recipes: 2 unchanged." in text(PlanView(result))


def test_a_name_without_a_pin_is_a_note_and_no_problem() -> None:
    mage = recipe("recipes/mage.yaml", "Mage", {"Pixel Dust": 0.5, "Star Dust": 0.4})
    result = plan_offline([mage, ROGUE], TargetLock(recipes=ENTRIES), URL)
    action = next(action for action in result.actions if action.recipe == mage)
    assert action.verb is Verb.CREATE
    assert any("no pin for Star Dust" in note for note in action.explanation.notes)
    plain = json.loads(as_json(PlanView(result)))["actions"][1]
    assert plain["after"]["concepts"] == [
        {"name": "Pixel Dust", "scale": 0.5},
        {"name": "Star Dust", "scale": 0.4},
    ]
    assert "names" not in plain


def test_offline_knows_what_the_lock_knows() -> None:
    failed = replace(COMING, next=Next("model_rogue", made_of(dust=0.6), "mismatch"))
    cases = {
        "training": (COMING, Verb.WAIT),
        "mismatch": (failed, Verb.BLOCKED),
        "gone": (None, Verb.CREATE),
    }
    for name, (locked, verb) in cases.items():
        lock = TargetLock(recipes={ROGUE.path: locked} if locked else {})
        (action,) = plan_offline([ROGUE], lock, URL).actions
        assert action.verb is verb, name
    lock = TargetLock(recipes=ENTRIES)
    verbs = {a.path: a.verb for a in plan_offline([KNIGHT], lock, URL, Options(prune=True)).actions}
    assert verbs[ROGUE.path] is Verb.DELETE
