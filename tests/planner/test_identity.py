"""Which concepts are equal, and which model an entry or an intent expects."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from support.fake_target import composition
from support.plans import entry, ink, observed

from composer.model import MARK, Concept, Intent, KnownState, rounded
from composer.planner import is_expected_model, models_of_intents, with_recovered
from composer.planner.identity import same_concepts


@given(st.floats(-2, 2), st.floats(-4e-5, 4e-5))
def test_scales_are_compared_to_4_decimals(scale: float, noise: float) -> None:
    kept = rounded(scale)
    assert same_concepts([Concept("x", kept)], [Concept("x", kept + noise)])
    assert not same_concepts([Concept("x", kept)], [Concept("x", kept + 0.0002)])
    assert str(rounded(-0.00001)) == "0.0"


def test_concepts_are_a_set() -> None:
    one, two = Concept("a", 0.5), Concept("b", 0.6)
    assert same_concepts([one, two], [two, one])
    assert not same_concepts([one, two], [one])
    assert not same_concepts([one], [one, one])


def test_whom_a_locked_id_may_be() -> None:
    model = composition("m", "Knight", {"lora_ink": 0.5})
    seen = observed()
    assert is_expected_model(model, {"Knight"}, [None], seen)
    assert is_expected_model(model, {"Rogue"}, [ink(0.5)], seen)
    assert not is_expected_model(model, {"Rogue"}, [ink(0.6), None], seen)
    assert not is_expected_model(replace(model, type="flux.1-lora"), {"Knight"}, [ink(0.5)], seen)
    assert not is_expected_model(replace(model, concepts=None), {"Rogue"}, [ink(0.5)], seen)


def test_a_lost_posts_model_is_the_unmarked_untrained_oldest() -> None:
    made_of = {"lora_ink": 0.5}
    models = [
        composition("trained", "Knight", made_of, created_at="1"),
        composition("marked", "Knight", made_of, "new", created_at="2", tags=frozenset({MARK})),
        composition("younger", "Knight", made_of, "new", created_at="4"),
        composition("ours", "Knight", made_of, "new", created_at="3"),
        composition("other name", "Rogue", made_of, "new", created_at="0"),
    ]
    intent = Intent("t", "a.yaml", "Knight", ink(0.5), 0.0)
    memory = KnownState(intents=(intent,))
    assert [model.id for _, model in models_of_intents(memory, observed(*models))] == ["ours"]
    settled = with_recovered(memory, observed(*models))
    assert [c.id for c in settled.entries["a.yaml"].candidates] == ["ours"]
    assert "ours" in settled.made


def test_what_is_known_is_no_lost_answer() -> None:
    model = composition("known", "Knight", {"lora_ink": 0.5}, "new")
    intent = Intent("t", "b.yaml", "Knight", ink(0.5), 0.0)
    memory = KnownState(entries={"a.yaml": entry("known", "Knight", 0.5)}, intents=(intent,))
    assert models_of_intents(memory, observed(model)) == []
