"""Every code has a small broken file, with the whole report that it must get beside it."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.model_types import TYPES
from support.sizes import size

from composer.recipes import CODES, schema
from composer.recipes.parsing import parse

FOLDER = Path(__file__).parent / "broken_recipes"
FILES = sorted(FOLDER.glob("*.yaml"))
LOADERS = [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)]

# These need more than one small file: their cases are in test_loading.py.
ELSEWHERE = {"E301", "E302", "E303", "E304", "E305", "E306", "E307"}


@pytest.mark.parametrize("loader", LOADERS, ids=["python", "libyaml"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_broken_file_gets_the_whole_report_beside_it(file: Path, loader: type) -> None:
    parsed = parse(file.read_bytes(), file=file.name, loader=loader, types=TYPES)

    lines = [f"{p.line}:{p.column} {p.code} {p.message}\n    {p.hint}\n" for p in parsed.problems]
    assert "".join(lines) == file.with_suffix(".txt").read_text(encoding="utf-8")
    assert file.stem in {problem.code for problem in parsed.problems}
    assert parsed.recipe is None


def test_every_code_of_the_table_has_a_case() -> None:
    assert {file.stem for file in FILES} | ELSEWHERE == set(CODES)
    assert list(CODES) == sorted(CODES)


def test_every_expectation_has_its_file() -> None:
    assert {file.stem for file in FOLDER.glob("*.txt")} == {file.stem for file in FILES}


# --- the quick check and jsonschema --------------------------------------------------------

VALID: dict[str, Any] = {
    "type": TYPES[0].composition,
    "name": "Hero",
    "description": "A hero.",
    "concepts": [
        {"name": "Ink", "scale": 0.5},
        {"modelId": "model_1", "scale": 1, "modelEpoch": "3"},
    ],
    "training": {"parameters": {"rank": 8, "learningRate": 1.0, "samplePrompts": ["a", "b"]}},
    "tags": ["heroes"],
    "protect": True,
    "preview": {"prompts": ["a hero", "a hero at night"]},
}
PATHS = [
    (), ("name",), ("type",), ("description",), ("concepts",), ("concepts", 0),
    ("concepts", 0, "name"), ("concepts", 0, "scale"), ("concepts", 1, "modelId"),
    ("concepts", 1, "modelEpoch"), ("tags",),
    ("tags", 0), ("training",), ("training", "parameters"), ("training", "parameters", "rank"),
    ("training", "parameters", "samplePrompts", 1), ("protect",),
    ("preview",), ("preview", "prompts"), ("preview", "prompts", 0),
]  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70),
    st.floats(-2, 70),
    st.sampled_from(
        ["", " a", "a\n", "../a", "a/b", "managed-by:compose", "x" * 65, "é", "compose:1"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(
            st.sampled_from(["name", "scale", "modelId", "x", "rank"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@settings(max_examples=size(150, 5_000), deadline=None)
@given(path=st.sampled_from(PATHS), value=VALUES, remove=st.booleans())
def test_the_quick_check_finds_something_wrong_where_jsonschema_does(
    path: tuple[Any, ...], value: object, remove: bool
) -> None:
    raw: Any = deepcopy(VALID)
    place = raw
    for step in path[:-1]:
        place = place[step]
    if not path:
        raw = value
    elif remove:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    types = tuple(one.composition for one in TYPES)
    assert schema._is_right(raw, types) == schema._validator(types).is_valid(raw)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "name: A\nloras:\n  - {name: Ink, scale: 0.8}\n",
            ['unknown key "loras": did you mean concepts?'],
        ),
        (
            "name: A\nconcepts:\n  - {lora: Ink, weight: 0.8}\n",
            [
                'concepts[0]: unknown key "lora": did you mean name?',
                'concepts[0]: unknown key "weight": did you mean scale?',
            ],
        ),
        (
            "name: A\nconcepts:\n  - {name: Ink, Strength: 0.8}\n",
            ['concepts[0]: unknown key "Strength": did you mean scale?'],
        ),
        (
            "name: A\nconcepts:\n  - name: Ink\n    scale: 0,65\n",
            ['concepts[0].scale: "0,65" is a string, not a number: write 0.65'],
        ),
        (
            "name: A\nconcepts:\n  - name: Ink\n    scale: 80 %\n",
            ['concepts[0].scale: "80 %" is a string, not a number: write 0.8'],
        ),
        (
            "name: A\nconcepts:\n  - name: C:\\loras\\ink-v2.safetensors\n    scale: 1\n",
            [
                'concepts[0].name: "C:\\loras\\ink-v2.safetensors" looks like a path:'
                ' write the name of the file alone: "ink-v2"'
            ],
        ),
    ],
)
def test_words_and_numbers_of_other_programs_are_understood(text: str, said: list[str]) -> None:
    problems = parse(text.encode(), file="a.yaml", types=TYPES).problems
    assert [f"{one.message}: {one.hint}" for one in problems] == said
