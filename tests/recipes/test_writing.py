"""`write` and our strict reader are two ways of one door, and slugs are file names anywhere."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.model_types import FLUX
from support.sizes import size

from composer.model import ConceptRef, ModelTypes, Recipe, parameters
from composer.recipes import parse, slug, write
from composer.recipes.schema import properties
from composer.text import UNSAFE, is_invisible, one_line

OTHER = ModelTypes("castle.2-composition", "castle.2-lora")

CHARACTERS = st.characters(exclude_categories=["Cs"]).filter(lambda c: not UNSAFE.match(c))
TRICKY = st.sampled_from(
    ["yes", "null", "12:30", "000010", "a: b", "a #b", "- a", "#a", "{a}", "'", '"', "1e-1", "=",
     "AC/DC", "0x1f", "*a", "&a", "!a", "a,b", "[a]", "Knight (v2.1)", "true", "|", ">", "%a", "@"]
)  # fmt: skip


def is_name(text: str) -> bool:
    path = re.search(r"^[/\\~]|^[A-Za-z]:[/\\]|(^|[/\\])\.\.([/\\]|$)|^\.([/\\]|$)", text)
    return bool(text) and text == text.strip() and path is None


def names(longest: int) -> st.SearchStrategy[str]:
    return (TRICKY | st.text(CHARACTERS, min_size=1, max_size=longest)).filter(is_name)


IDS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
SCALES = st.integers(0, 10_000).map(lambda n: n / 10_000)
PROSE = (TRICKY | st.text(CHARACTERS | st.sampled_from("\n\t "), max_size=256)).map(str.strip)


def concepts() -> st.SearchStrategy[tuple[ConceptRef, ...]]:
    by_name = st.tuples(names(80), st.none())
    by_id = st.tuples(st.none(), IDS)
    lists = st.lists(by_name | by_id, min_size=1, max_size=5, unique=True)
    return lists.flatmap(
        lambda refs: st.tuples(
            *(
                st.builds(ConceptRef, SCALES, st.just(name), st.just(id), epoch=st.none() | IDS)
                for name, id in refs
            )
        )
    )


def values(schema: dict[str, Any]) -> st.SearchStrategy[object]:
    """Values that a training parameter of this schema may have."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    low, high = schema.get("minimum"), schema.get("maximum")
    kinds: dict[str, st.SearchStrategy[object]] = {
        "integer": st.integers(low, high),
        "number": st.floats(low, high, allow_nan=False, allow_infinity=False).map(abs),
        "string": PROSE,
        "boolean": st.booleans(),
        "array": st.lists(IDS if "allOf" in schema.get("items", {}) else PROSE, max_size=3),
    }
    return kinds[schema["type"]]


def trainings() -> st.SearchStrategy[Any]:
    known = properties("training", "parameters")
    return st.fixed_dictionaries(
        {}, optional={key: values(schema) for key, schema in known.items()}
    ).map(parameters)


RECIPES = st.builds(
    Recipe,
    path=st.just("recipes/a.yaml"),
    name=names(64),
    concepts=concepts(),
    types=st.sampled_from([FLUX, OTHER]),
    description=st.none() | PROSE,
    training=trainings(),
    tags=st.sets(names(64).filter(lambda tag: tag != "managed-by:compose")).map(
        lambda tags: tuple(sorted(tags))
    ),
    protect=st.booleans(),
    prompts=st.lists(
        PROSE.map(one_line).filter(lambda text: not is_invisible(text)), max_size=8, unique=True
    ).map(tuple),
)


@settings(max_examples=size(60, 5000), deadline=None)
@given(RECIPES)
def test_what_is_written_is_read_back(recipe: Recipe) -> None:
    text = write(recipe, default=FLUX)
    assert parse(text.encode(), file=recipe.path, types=[FLUX, OTHER]) == (recipe, [])
    assert yaml.safe_load(text)["name"] == recipe.name  # other programs read the same


def test_a_written_recipe_reads_well() -> None:
    recipe = Recipe(
        path="recipes/a.yaml",
        name="Storybook Knight",
        concepts=(
            ConceptRef(0.65, name="Storybook Watercolour"),
            ConceptRef(1.0, model_id="model_I3fUkYcTSYPEkhvYMDvSQ", epoch="000010"),
        ),
        description="Soft: watercolour",
        training=(("learningRate", 1e-05), ("rank", 32)),
        tags=("knights", "on"),
        protect=True,
        types=FLUX,
        prompts=("a knight in the rain", "yes: no"),
    )
    assert write(recipe, default=FLUX) == (
        "name: Storybook Knight\n"
        'description: "Soft: watercolour"\n'
        "concepts:\n"
        "  - name: Storybook Watercolour\n"
        "    scale: 0.65\n"
        "  - modelId: model_I3fUkYcTSYPEkhvYMDvSQ\n"
        "    scale: 1\n"
        '    modelEpoch: "000010"\n'
        "training:\n"
        "  parameters:\n"
        "    learningRate: 1.0e-05\n"
        "    rank: 32\n"
        'tags: [knights, "on"]\n'
        "protect: true\n"
        "preview:\n"
        "  prompts:\n"
        "    - a knight in the rain\n"
        '    - "yes: no"\n'
    )


@given(st.text())
def test_a_slug_is_a_file_name_everywhere(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug(name))
    assert len(slug(name)) <= 60
    assert not re.fullmatch(r"con|prn|aux|nul|(com|lpt)[0-9]", slug(name))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Storybook Knight", "storybook-knight"),
        ("Château d'Œuf", "chateau-d-uf"),
        ("../../x", "x"),
        ("CON", "con-recipe"),
        ("水彩", "recipe"),
        ("AC/DC", "ac-dc"),
        ("x" * 70, "x" * 60),
        ("x" * 59 + " y", "x" * 59),
    ],
)
def test_slugs(name: str, expected: str) -> None:
    assert slug(name) == expected
