"""Small recipes, entries and models for tests of planning, and hypothesis strategies of them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from support.fake_target import composition, lora
from support.model_types import COMPOSITION, COMPOSITION_TYPES
from support.rehearsal import recipe

from composer.model import MARK, Concept, Content, Entry, Model, Observed, Recipe, Replaced

INK, DUST = lora("lora_ink", "Ink"), lora("lora_dust", "Dust")


def observed(*models: Model, remote: bool = False, owner: str | None = None) -> Observed:
    every = {model.id: model for model in (INK, DUST, *models)}
    return Observed(
        "fake",
        every,
        frozenset(every),
        owner=owner,
        remote=remote,
        composition_types=COMPOSITION_TYPES,
    )


def ink(scale: float) -> Content:
    return Content.of(COMPOSITION, [Concept("lora_ink", scale)])


def knight(scale: float = 0.5, path: str = "a.yaml", name: str = "Knight") -> Recipe:
    return recipe(path, name, {"Ink": scale})


def entry(id: str, name: str, scale: float, **more: object) -> Entry:
    made = Entry(name, (("Ink", "lora_ink"),), id, content=ink(scale))
    return replace(made, **more)  # type: ignore[arg-type]


names = st.sampled_from(["Knight", "Rogue", "Slime"])
scales = st.sampled_from([0.5, 0.6])
recipe_lists = st.lists(
    st.builds(knight, scales, st.sampled_from(["a.yaml", "b.yaml", "c.yaml"]), names),
    unique_by=(lambda r: r.path, lambda r: r.name),
    max_size=3,
)
entry_maps = st.dictionaries(
    st.sampled_from(["a.yaml", "b.yaml", "c.yaml", "d.yaml"]),
    st.builds(
        entry,
        st.sampled_from(["m1", "m2", "m3"]),
        names,
        scales,
        replaced=st.sampled_from([(), (Replaced("m4", "Knight"),), (Replaced("m5", "Old"),)]),
        protect=st.booleans(),
    ),
    max_size=4,
)
model_lists = st.lists(
    st.builds(
        lambda id, name, scale, status, tags: composition(
            id, name, {"lora_ink": scale}, status, tags=frozenset(tags)
        ),
        st.sampled_from(["m1", "m2", "m3", "m4", "m5", "m6"]),
        names,
        scales,
        st.sampled_from(["trained", "new", "failed", "training", "deleted", "odd"]),
        st.sampled_from([(), (MARK,)]),
    ),
    unique_by=lambda model: model.id,
    max_size=6,
)
