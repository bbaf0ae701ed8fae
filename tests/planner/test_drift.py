"""What changed on the target, though neither recipe nor lock did."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from support.fake_target import lora
from support.golden_cases import (
    ENTRIES,
    LORAS,
    MODELS,
    ROGUE,
    planned,
    there,
    wants,
)
from support.model_types import COMPOSITION, COMPOSITION_TYPES
from support.plans import entry_maps, model_lists, recipe_lists
from support.sizes import size

from composer.model import (
    Concept,
    Content,
    Entry,
    KnownState,
    Model,
    Observed,
    Recipe,
)
from composer.output.plan_text import text
from composer.output.plan_view import PlanView
from composer.planner import plan


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


def test_the_digest_knows_nothing_of_drift() -> None:
    """Whether somebody drifted there or not: what would be made is the same."""
    drifted = planned(
        [wants("Rogue", dust=0.7)], ENTRIES, [there("Rogue", "model_rogue", dust=0.45)]
    )
    assert drifted.digest == planned([wants("Rogue", dust=0.7)], ENTRIES, MODELS).digest
