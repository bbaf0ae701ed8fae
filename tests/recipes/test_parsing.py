"""Recipes as people write them: what is read, where problems are, and the schema itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from support.model_types import FLUX, TYPES
from support.sizes import size

from composer.errors import UsageError
from composer.files.schemas import schema
from composer.model import ConceptRef, Recipe
from composer.recipes import parse, parsing

KNIGHT = """\
# yaml-language-server: $schema=../schemas/recipe.schema.json
type: flux.1-composition
name: Storybook Knight
description: >
  Soft watercolour knights
  for the tutorial chapters.
concepts:
  - name: Storybook Watercolour   # one of the project's own
    scale: 0.65
  - modelId: model_I3fUkYcTSYPEkhvYMDvSQ
    scale: 1
    modelEpoch: "000010"
training:
  parameters: {rank: 32.0, learningRate: 1, samplePrompts: [a knight], randomCrop: false}
tags: [tutorial, knights, tutorial]
protect: true
"""

SHORT = "name: A\nconcepts:\n  - {{name: B, scale: {scale}}}\n"


def codes(text: str | bytes) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    return [problem.code for problem in parse(data, file="a.yaml", types=TYPES)[1]]


def read(text: str) -> Recipe:
    recipe, problems = parse(text.encode(), file="recipes/a.yaml", types=TYPES)
    assert problems == []
    assert recipe is not None
    return recipe


def test_a_whole_recipe() -> None:
    assert read(KNIGHT) == Recipe(
        path="recipes/a.yaml",
        name="Storybook Knight",
        concepts=(
            ConceptRef(0.65, name="Storybook Watercolour"),
            ConceptRef(1.0, model_id="model_I3fUkYcTSYPEkhvYMDvSQ", epoch="000010"),
        ),
        description="Soft watercolour knights for the tutorial chapters.",
        training=(
            ("learningRate", 1.0),
            ("randomCrop", False),
            ("rank", 32),
            ("samplePrompts", ("a knight",)),
        ),
        tags=("knights", "tutorial"),
        protect=True,
        types=FLUX,
    )


def test_prompts_are_single_lines_and_each_stands_once() -> None:
    text = SHORT.format(scale=1) + (
        "preview:\n  prompts:\n  - a fox\n  - >\n    a  knight\n    in the rain\n  - ' a fox'\n"
    )
    assert read(text).prompts == ("a fox", "a knight in the rain")
    assert read(SHORT.format(scale=1) + "preview: {}\n").prompts == ()
    for wrong, code in {
        "[]": "E107",
        "[a, b, c, d, e, f, g, h, i]": "E107",
        "a fox": "E103",
        "[3]": "E103",
        f"[{'x' * 2049}]": "E106",
        '["a\\e[31mb"]': "E202",
        '["\\u200b"]': "E106",
        '[" "]': "E106",
    }.items():
        assert codes(SHORT.format(scale=1) + f"preview: {{prompts: {wrong}}}\n") == [code], wrong
    assert codes(SHORT.format(scale=1) + "preview: {seeds: [1]}\n") == ["E101"]


def test_numbers_have_one_form() -> None:
    recipe = read(KNIGHT)
    kinds = {key: type(value) for key, value in recipe.training}
    assert kinds["rank"] is int
    assert kinds["learningRate"] is float
    assert [type(concept.scale) for concept in recipe.concepts] == [float, float]


@pytest.mark.parametrize("text", [KNIGHT.replace("\n", "\r\n"), "\ufeff" + KNIGHT, KNIGHT + "..."])
def test_what_windows_editors_make_of_a_file_is_the_same_recipe(text: str) -> None:
    assert read(text) == read(KNIGHT)


@pytest.mark.parametrize(
    ("scale", "value"),
    [("0", "0.0"), ("1", "1.0"), ("-0", "0.0"), ("-0.0", "0.0"), ("0.1234", "0.1234"),
     ("0.650000", "0.65"), ("1.0e-4", "0.0001"), ("0.0001", "0.0001"), ("5.0e-1", "0.5"),
     (".5", "0.5"), ("0x1", "1.0"), ("0.00000e-999", "0.0")],
)  # fmt: skip
def test_scales_that_are_possible(scale: str, value: str) -> None:
    if scale == "1.0e-4":
        assert read(SHORT.format(scale=scale)).concepts[0].scale == 0.0001
    assert repr(read(SHORT.format(scale=scale)).concepts[0].scale) == value


@pytest.mark.parametrize(
    ("scale", "code"),
    [("1.00001", "E105"), ("0.00001", "E105"), ("0.99999999999999999999999", "E105"),
     ("1.0e-999", "E105"), ("1.0e-99999999999999999999", "E105"), ("2", "E104"), ("-1", "E104"),
     ("1.0001", "E104"), ("-0.5", "E104"), ("true", "E103"), ("null", "E103"), ("", "E103"),
     ('"1"', "E103"), ("[1]", "E103"), (".inf", "E211"), ("1e0", "E210"), ("1_0", "E210")],
)  # fmt: skip
def test_scales_that_are_not(scale: str, code: str) -> None:
    assert code in codes(SHORT.format(scale=scale))


EXTENDED = SHORT + "scaleRange: extended\n"


@pytest.mark.parametrize("scale", ["-2", "-0.5", "2", "1.25", "0.3"])
def test_scales_of_the_extended_range(scale: str) -> None:
    assert read(EXTENDED.format(scale=scale)).concepts[0].scale == float(scale)
    if scale != "0.3":
        assert codes(SHORT.format(scale=scale)) == ["E104"]


@pytest.mark.parametrize(
    ("scale", "code"),
    [("2.1", "E104"), ("-3", "E104"), ("1.23456", "E105"), ('"1"', "E103"), ("[1]", "E103")],
)
def test_scales_outside_of_the_extended_range(scale: str, code: str) -> None:
    assert codes(EXTENDED.format(scale=scale)) == [code]


def test_the_extended_range_is_named_where_it_helps() -> None:
    texts = {scale: SHORT.format(scale=scale).encode() for scale in ("1.5", "7")}
    hints = {s: parse(t, file="a.yaml", types=TYPES)[1][0].hint for s, t in texts.items()}
    assert "scaleRange: extended" in hints["1.5"]
    assert "scaleRange" not in hints["7"]
    assert codes(SHORT.format(scale=1) + "scaleRange: wide\n") == ["E111"]


@given(st.integers(0, 10_000))
def test_every_scale_of_four_decimals_is_possible(n: int) -> None:
    text = f"{n / 10_000:.4f}"
    assert read(SHORT.format(scale=text)).concepts[0].scale == float(text)


def test_an_empty_description_is_not_a_left_out_one() -> None:
    assert read(SHORT.format(scale=1)).description is None
    assert read(SHORT.format(scale=1) + 'description: ""\n').description == ""


def test_a_name_may_look_like_much_that_is_no_path() -> None:
    for name in ("AC/DC", "Knight (v2.1)", "a..b", "...", "x: y", "50% off", "Ärger 水彩 🗡️", "v.."):
        quoted = json.dumps(name, ensure_ascii=False)
        assert read(f"name: {quoted}\nconcepts: [{{name: B, scale: 1}}]\n").name == name


@pytest.mark.parametrize(
    "name", ["..", ".", "./a", "../a", "a/..", "a/../b", "/a", "\\a", "~", "~/a", "a\\..", "C:\\a"]
)
def test_a_name_that_looks_like_a_path_is_refused(name: str) -> None:
    assert codes(f"name: '{name}'\nconcepts: [{{name: B, scale: 1}}]\n") == ["E115"]


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "---\n", "null\n", "{}\n", "[]\n", "- a\n", "hello\n", "12\n", "a: 1\n",
     "{{ .X }}: y\n", "services: {web: {image: x}}\n---\nversion: 1_000\n", "project: x\n"],
)  # fmt: skip
def test_a_file_that_is_no_recipe_says_so_once_and_names_exclude(text: str) -> None:
    _, (problem,) = parse(text.encode(), file="ci files/a.yaml", types=TYPES)
    assert problem.code == "E120"
    assert '--exclude "ci files/a.yaml"' in problem.hint


@pytest.mark.parametrize("text", ["concept: []\n", "nmae: a\nname: b\n", "tags: []\n"])
def test_a_misspelt_recipe_is_still_a_recipe(text: str) -> None:
    assert "E120" not in codes(text)


@pytest.mark.parametrize("text", ["jobs: &a {}\n", "a: {{ .X }}\nb: [\n", "x: !Ref y\n"])
def test_a_file_that_ends_early_and_may_be_no_recipe_names_exclude(text: str) -> None:
    for problem in parse(text.encode(), file="a.yaml", types=TYPES)[1]:
        assert problem.code != "E120"
        assert problem.hint.endswith("--exclude a.yaml")


def test_a_key_that_is_misspelt_is_not_missing_too() -> None:
    text = "nmae: A\nconcepts:\n  - {nme: B, scael: 1}\n"
    assert codes(text) == ["E101", "E101", "E101"]


@pytest.mark.parametrize(
    ("data", "place", "code"),
    [
        (b"name: A\r\nx\x07y: 1\r\n", (2, 2), "E202"),
        ("# é \u2066\nname: A\n".encode(), (1, 5), "E203"),
        ("\ufeffname: \u202eA\n".encode(), (1, 7), "E203"),
        ("name: A\u2028\n".encode(), (1, 8), "E202"),
        ("name: A\n".encode("utf-16"), (1, 1), "E201"),
        ("name: A\n".encode("utf-16-be"), (1, 1), "E201"),
        (b"name: A\nname\0", (2, 5), "E202"),
        ("name: é\n# ".encode() + b"\xc3", (2, 3), "E201"),
    ],
)
def test_characters_have_places(data: bytes, place: tuple[int, int], code: str) -> None:
    problems = parse(data, file="a.yaml", types=TYPES)[1]
    assert (place, code) in [((p.line, p.column), p.code) for p in problems]


# Zero-width characters, tags ("AB"), a variation selector, fillers, a blank, a combining mark.
INVISIBLE = [
    *("\u200b", "\u200d\u200c", "\u2060", "\u00ad", "\u034f", "\u180e", "\ufe0f", "\u0301"),
    *("\U000e0041\U000e0042", "\U000e0001", "\U000e0100", "\u3164", "\u115f\u1160", "\u2800"),
    "\u200b \u200b",
]


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("text", INVISIBLE, ids=ascii)
def test_a_name_that_nobody_can_see_is_refused(text: str, escaped: bool) -> None:
    shown = json.dumps(text) if escaped and max(text) < "\U00010000" else f'"{text}"'
    recipe, problems = parse(
        f"name: {shown}\nconcepts:\n  - {{name: {shown}, scale: 1}}\ntags: [{shown}]\n".encode(),
        file="a.yaml",
        types=TYPES,
    )
    assert recipe is None
    assert [(p.code, p.line, p.column) for p in problems] == [
        ("E106", 1, 7),
        ("E106", 3, 12),
        ("E106", 4, 8),
    ]
    first = f"U+{ord(text[0]):04X}"
    assert all("has no visible character" in p.message and first in p.message for p in problems)
    assert all(p.message.isascii() for p in problems)


@pytest.mark.parametrize(
    "text",
    ["\u200bA", "👩\u200d🚀", "❤\ufe0f", "🏴\U000e0067\U000e007f", "1\u20e3", "क्‍ष", "…", "\ue000"],
)
def test_a_name_with_one_visible_character_is_a_name(text: str) -> None:
    assert codes(f'name: "{text}"\nconcepts:\n  - {{name: "{text}", scale: 1}}\n') == []


def test_what_follows_a_refused_character_is_still_judged() -> None:
    assert codes("name: \u202eA\nconcepts:\n  - {name: B, scale: 2}\n") == ["E203", "E104"]


def test_a_text_over_the_limit_is_refused() -> None:
    assert codes("name: A\n" + "#" * 256 * 1024) == ["E302"]


@settings(max_examples=size(150, 10_000), deadline=None)
@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_get_a_recipe_or_a_problem(data: bytes) -> None:
    recipe, problems = parse(data, file="a.yaml", types=TYPES)
    assert (recipe is None) == bool(problems)


PIECES = [
    *("name", "concepts", "scale", "yes", "0.5", "1e5", "~", "é", "\u2028", "\\x41", "\\u202e"),
    *(": ", ":", "\n", "\n  ", "\n- ", "  - ", "- ", "[", "]", "{", "}", ", ", "? ", "\t", "#"),
    *("&a ", "*a", "!b ", "!!str ", "<<", "'", '"', "|", ">", "%YAML 1.2", "---", "...", "@", "`"),
]


@settings(max_examples=size(300, 20_000), deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_both_parsers_read_the_same_recipe_or_refuse(text: str) -> None:
    loaders: list[Any] = [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)]
    one, two = (
        parsing.parse(text.encode(), file="a", loader=loader, types=TYPES) for loader in loaders
    )
    assert one.recipe is None or two.recipe is None or one.recipe == two.recipe
    assert (one.recipe is None) == bool(one.problems)


# --- the schema --------------------------------------------------------------------------


def subschemas(node: Any) -> list[dict[str, Any]]:
    """Each object in the schema that says `properties`, wherever it is."""
    inside = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    found = [one for value in inside for one in subschemas(value)]
    return found + ([node] if isinstance(node, dict) and "properties" in node else [])


def test_the_schema_is_draft_7_closed_and_described_throughout() -> None:
    whole = json.loads(schema("recipe"))
    Draft7Validator.check_schema(whole)
    for rule in ("if", "then", "else"):  # on fields that stand above
        del whole[rule], whole["definitions"]["concept"][rule]
    objects = [one for one in subschemas(whole) if "type" in one]
    assert len(objects) == 5
    for one in objects:
        assert one["additionalProperties"] is False
        assert all(field["description"] for field in one["properties"].values())


def test_a_schema_that_is_not_shipped_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no schema"):
        schema("../recipe")


CONFLICTS = {
    "<<<<<<< HEAD\n": 4,
    "<<<<<<< HEAD\r\n": 4,
    "<<<<<<<\n": 4,
    "<<<<<<<<<< ours\n": 4,  # conflict-marker-size
    "=======\n": 4,  # left behind
    ">>>>>>> topic": 4,
    "||||||| 1234567\n": 4,
    "    # a comment\n<<<<<<< HEAD\n    scale: 0.5\n": 5,
}


@pytest.mark.parametrize(
    ("escape", "hint"),
    [
        (r"\ud83e\uddd9", r"\U0001F9D9"),
        (r"\uD800", r"\U0001F9D9"),
        (r"\UFFFFFFFF", r"\U0001F9D9"),
        (r"\q", "two backslashes"),
        (r"C:\loras", "two backslashes"),
    ],
)
def test_an_escape_that_yaml_lacks_says_what_to_write(escape: str, hint: str) -> None:
    text = f'name: "{escape}"\nconcepts:\n  - name: B\n    scale: 0.5\n'
    _, problems = parse(text.encode(), file="a.yaml", types=TYPES)
    assert [(p.line, p.code, hint in p.hint) for p in problems] == [(1, "E204", True)]
    assert "escape" in problems[0].message


@pytest.mark.parametrize("marker", CONFLICTS)
def test_conflict_markers_are_said_as_such_at_their_line(marker: str) -> None:
    text = f"name: A\nconcepts:\n  - name: B\n{marker}"
    _, (problem,) = parse(text.encode(), file="a.yaml", types=TYPES)
    assert (problem.line, problem.column, problem.code) == (CONFLICTS[marker], 1, "E204")
    assert problem.message == "git's conflict markers"


@pytest.mark.parametrize(
    "line", ["# <<<<<<< HEAD", "description: '======='", "description: |\n  <<<<<<< a\n  ======="]
)
def test_what_only_looks_like_a_marker_is_none(line: str) -> None:
    text = f"{line}\nname: A\nconcepts:\n  - {{name: B, scale: 0.5}}\n"
    assert codes(text) == []


@pytest.mark.parametrize(("one", "two"), [("Caf\u00e9", "Cafe\u0301"), ("\u212b", "\u00c5")])
def test_concepts_whose_names_differ_in_unicode_normalisation_only_are_one(
    one: str, two: str
) -> None:
    concepts = "".join(f"  - {{name: {name}, scale: 0.5}}\n" for name in (one, two))
    _, (problem,) = parse(f"name: A\nconcepts:\n{concepts}".encode(), file="a", types=TYPES)
    assert problem.code == "E110"
    assert "in another Unicode normalisation (U+" in problem.message
