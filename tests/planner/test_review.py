"""What a review rests on: drift, lock-only edits, and plans offline."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_target import lora
from support.golden_cases import (
    COMING,
    ENTRIES,
    KNIGHT,
    LORAS,
    MODELS,
    ROGUE,
    URL,
    made_of,
    planned,
    there,
    wants,
)
from support.model_types import COMPOSITION, COMPOSITION_TYPES
from support.plans import entry_maps, model_lists, recipe_lists
from support.rehearsal import recipe
from support.sizes import size

from composer.files.schemas import schema
from composer.model import (
    Concept,
    Content,
    Entry,
    KnownState,
    Lock,
    Model,
    Next,
    Observed,
    Recipe,
    Replaced,
    TargetLock,
)
from composer.output.plan_json import as_json
from composer.output.plan_text import text
from composer.output.plan_view import PlanView
from composer.planner import LockDiff, Options, Verb, compare_locks, plan, plan_offline

# --- drift: target against lock ----------------------------------------------------------


def drift_of(recipe: Recipe, locked: Entry, *models: Model, remote: bool = True) -> str:
    every = {m.id: m for m in (*(lora(id, name) for id, name in LORAS.items()), *models)}
    seen = Observed(
        "fake", every, frozenset(every), remote=remote, composition_types=COMPOSITION_TYPES
    )
    (action,) = plan([recipe], KnownState(entries={recipe.path: locked}), seen).actions
    return action.explanation.drift


LOCKED = replace(ENTRIES[ROGUE.path], tags=("fast", "slow"))
TAGGED = replace(ROGUE, tags=("fast", "slow"))
TAGS = frozenset({"managed-by:compose", "fast", "slow"})
OURS = replace(MODELS[1], tags=TAGS)


@pytest.mark.parametrize(
    ("wanted", "model", "drift"),
    [
        (TAGGED, OURS, ""),
        (TAGGED, replace(OURS, name="Scout"), "renamed on the target: Rogue -> Scout"),
        (
            TAGGED,
            replace(OURS, concepts=(Concept("lora_dust", 0.45),)),
            "changed on the target: scale of Pixel Dust 0.6 -> 0.45",
        ),
        (TAGGED, replace(OURS, tags=TAGS - {"slow"}), "tag slow taken off on the target"),
        (TAGGED, replace(OURS, tags=TAGS | {"new"}), ""),  # somebody else's, left alone
        (TAGGED, replace(OURS, tags=None, concepts=None), ""),  # the target doesn't say
        (TAGGED, replace(OURS, status="deleted"), "not on the target"),
        # What the recipe changes is a change; what it asks for already is nothing to take back.
        (replace(TAGGED, name="Scout"), OURS, ""),
        (replace(TAGGED, name="Scout"), replace(OURS, name="Scout"), ""),
        (
            replace(TAGGED, name="Scout"),
            replace(OURS, name="Spy"),
            "renamed on the target: Rogue -> Spy",
        ),
        (wants("Rogue", dust=0.45), replace(OURS, concepts=(Concept("lora_dust", 0.45),)), ""),
        (
            wants("Rogue", dust=0.7),
            replace(OURS, concepts=(Concept("lora_dust", 0.45),)),
            "changed on the target: scale of Pixel Dust 0.6 -> 0.45",
        ),
        (replace(ROGUE, tags=("fast",)), replace(OURS, tags=TAGS - {"slow"}), ""),
    ],
)
def test_drift_is_what_neither_lock_nor_recipe_asks_for(
    wanted: Recipe, model: Model, drift: str
) -> None:
    assert drift_of(wanted, LOCKED, model) == drift


def test_an_epoch_that_the_target_leaves_out_is_no_drift() -> None:
    content = Content.of(COMPOSITION, [Concept("lora_dust", 0.6, "000010")])
    moved = replace(OURS, concepts=(Concept("lora_dust", 0.5),))
    drift = drift_of(ROGUE, replace(LOCKED, content=content), moved)
    assert drift == "changed on the target: scale of Pixel Dust 0.6 -> 0.5"


def test_a_local_target_that_is_empty_is_a_fresh_clone() -> None:
    assert drift_of(TAGGED, LOCKED, remote=False) == ""
    assert drift_of(TAGGED, LOCKED, remote=True) == "not on the target"


def test_a_composition_that_is_gone_has_its_line_of_drift() -> None:
    assert "drift: not on the target" in text(PlanView(planned([ROGUE], ENTRIES, [])))


@settings(max_examples=size(150, 5000), deadline=None)
@given(recipe_lists, entry_maps, model_lists)
def test_nothing_is_taken_back_without_a_word(
    recipes: list[Recipe], entries: dict[str, Entry], models: list[Model]
) -> None:
    """A name or a content that somebody else gave it, and that a change replaces, is named."""
    loras = [lora("lora_ink", "Ink"), lora("lora_dust", "Dust")]
    every = {model.id: model for model in (*loras, *models)}
    seen = Observed(
        "fake", every, frozenset(every), remote=True, composition_types=COMPOSITION_TYPES
    )
    for action in plan(recipes, KnownState(entries=entries), seen).actions:
        locked = action.entry
        model = seen.get(locked.composition) if locked else None
        if locked is None or model is None or not action.is_change:
            continue
        if model.name not in (locked.name, action.name):
            assert f"-> {model.name}" in action.explanation.drift
        recorded = [c.concepts for c in (locked.content, action.content) if c]
        assert model.concepts in recorded or "changed on the target" in action.explanation.drift


# --- lock-only edits: the lock against its base ------------------------------------------


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
        (ROGUE, BASE, None, ["the entry is gone, with model_rogue"]),
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
            ["replaced gains model_b, replaced loses model_a"],
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
        (ROGUE, BASE, replace(BASE, content=made_of(dust=0.5)), ["content is not the base's"]),
        (
            ROGUE,
            BASE,
            replace(NEW, content=made_of(dust=0.5)),
            ["composition model_rogue -> model_new, content is not the base's"],
        ),
        (
            ROGUE,
            COMING,
            replace(COMING, next=Next("model_rogue", made_of(dust=0.5), "training")),
            ["content of next is not the base's"],
        ),
        (CHANGED, BASE, None, ["the entry is gone, with model_rogue"]),
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
    assert "names another id, along with a change of its recipe: composition model_rogue" in moved
    (note,) = notes([ROGUE], {}, {ROGUE.path: BASE})
    assert "no model of Rogue (model_rogue); an apply elsewhere writes that" in note
    (gone,) = notes([], {ROGUE.path: BASE}, {})
    assert "its entry is gone, with model_rogue: a prune elsewhere does that" in gone
    assert notes([ROGUE], {ROGUE.path: COMING}, {ROGUE.path: replace(BASE, pins=COMING.pins)}) == []


def test_an_entry_that_no_recipe_has_is_an_edit_unless_it_only_made_way() -> None:
    told = edits([], {}, {ROGUE.path: BASE})
    assert told == ["an entry that no recipe has is new, with model_rogue"]
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
    assert edits_of(both, {"local": part}) == [(URL, "the target is gone, with 1 entry")]
    (new,) = edits_of({"local": part}, both)
    assert new == (URL, "the target is new, with 1 entry; a first apply there adds it, too")
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


def test_the_digest_knows_nothing_of_drift() -> None:
    """Whether somebody drifted there or not: what would be made is the same."""
    drifted = planned([CHANGED], ENTRIES, [there("Rogue", "model_rogue", dust=0.45)])
    assert drifted.digest == planned([CHANGED], ENTRIES, MODELS).digest


# --- offline -----------------------------------------------------------------------------


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
