"""Problems as text, JSON, GitHub annotations and SARIF, and the words they are made of."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.model_types import TYPES

from composer.errors import Problem
from composer.output.problem_formats import as_json, github, sarif
from composer.output.problems import text
from composer.output.style import width
from composer.recipes import CODES, parse
from composer.recipes.problems import SETTINGS_CODES
from composer.text import counted, did_you_mean, shorten, visible

ABOVE = Problem(
    "recipes/a.yaml", 7, 13, "E104", "concepts[1].scale: 1.7 is above 1", "write less, 100% less"
)
LARGE = Problem("recipes/b, c: d.yaml", 0, 0, "E302", "300,000 bytes", "")


def test_text_names_place_code_message_and_hint_and_counts() -> None:
    assert text([ABOVE, LARGE], files=4) == (
        "recipes/a.yaml:7:13 E104 concepts[1].scale: 1.7 is above 1\n"
        "    write less, 100% less\n"
        "recipes/b, c: d.yaml E302 300,000 bytes\n"
        "\n"
        "2 problems in 2 of 4 recipes. Nothing was sent.\n"
    )


def test_text_counts_files_not_problems() -> None:
    assert text([ABOVE, ABOVE], files=1).endswith(
        "\n2 problems in 1 of 1 recipe. Nothing was sent.\n"
    )
    assert text([], files=4) == "4 recipes, no problems.\n"


@pytest.mark.parametrize(
    ("source", "column", "line", "caret"),
    [
        ("  scale: 1.7", 10, "  scale: 1.7", "         ^"),
        ("\tname: x", 2, "\\tname: x", "  ^"),
        ("{城堡: 1, x: 2}", 9, "{城堡: 1, x: 2}", "          ^"),
        ("👨‍👩‍👧: [x]", 9, "👨‍👩‍👧: [x]", "     ^"),
        ("a: \x1b[2J\u202e", 4, "a: \\x1b[2J\\u202e", "   ^"),
        ("a: ##[error]x", 6, "a: #\\x23[error]x", "        ^"),
        ("name:   ", 9, "name:", "        ^"),
        ("x" * 49, 1, "x" * 47 + "…", "^"),
        ("a" * 60 + ": " + "b" * 60, 63, "…" + "a" * 21 + ": " + "b" * 23 + "…", " " * 24 + "^"),
        ("a" * 60 + "!", 61, "…" + "a" * 23 + "!", " " * 24 + "^"),
    ],
)
def test_the_line_is_shown_with_a_caret_below_its_column(
    source: str, column: int, line: str, caret: str
) -> None:
    shown = text([ABOVE._replace(source=source, column=column)], files=1).splitlines()
    assert shown[1:4] == [f"    7 | {line}", f"      | {caret}", "    write less, 100% less"]


@given(st.text(max_size=90), st.integers(1, 90))
def test_a_line_with_its_caret_fits_a_terminal_of_sixty_columns(source: str, column: int) -> None:
    shown = text([ABOVE._replace(source=source, column=min(column, len(source) + 1))], files=1)
    assert all(width(line) <= 60 for line in shown.splitlines())
    assert shown.split("\n")[:-1] == [visible(line) for line in shown.split("\n")[:-1]]


def test_without_a_line_there_is_no_caret_and_json_never_has_one() -> None:
    blank = [ABOVE, LARGE._replace(source="x"), ABOVE._replace(source="  ")]
    assert "|" not in text(blank, files=1)
    assert "scale: 2" not in as_json([ABOVE._replace(source="scale: 2")])


def test_color_adds_nothing_but_color() -> None:
    colored = text([ABOVE], files=1, color=True)
    assert "\x1b[31mE104\x1b[0m" in colored
    for code in ("\x1b[31m", "\x1b[2m", "\x1b[0m"):
        colored = colored.replace(code, "")
    assert colored == text([ABOVE], files=1)


def test_json_has_a_version_and_every_field() -> None:
    assert json.loads(as_json([ABOVE])) == {
        "formatVersion": 1,
        "problems": [
            {
                "file": "recipes/a.yaml",
                "line": 7,
                "column": 13,
                "code": "E104",
                "message": "concepts[1].scale: 1.7 is above 1",
                "hint": "write less, 100% less",
            }
        ],
    }


def test_github_annotations_are_escaped() -> None:
    assert github([ABOVE, LARGE]) == (
        "::error file=recipes/a.yaml,line=7,col=13,title=E104::"
        "concepts[1].scale: 1.7 is above 1 (write less, 100%25 less)\n"
        "::error file=recipes/b%2C c%3A d.yaml,title=E302::300,000 bytes\n"
    )


@given(st.text(), st.text())
def test_nothing_in_a_problem_ends_an_annotation_or_starts_one(file: str, message: str) -> None:
    lines = github([Problem(file, 1, 1, "E101", message)])
    assert lines.startswith("::error file=")
    assert lines.count("\n") == 1
    properties, _, shown = lines.rstrip("\n").removeprefix("::error ").partition("::")
    assert len(properties.split(",")) == 4
    decoded = shown
    for escape, character in (("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        decoded = decoded.replace(escape, character)
    assert decoded == message


def test_sarif_has_stable_rules_relative_addresses_and_a_region_everywhere() -> None:
    log = json.loads(sarif([ABOVE, LARGE]))
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert log["version"] == "2.1.0"
    assert [rule["id"] for rule in rules] == [*CODES, *SETTINGS_CODES]
    assert all(rule["shortDescription"]["text"] for rule in rules)
    above, large = run["results"]
    assert rules[above["ruleIndex"]]["id"] == above["ruleId"] == "E104"
    (place,) = (location["physicalLocation"] for location in above["locations"])
    assert place["artifactLocation"]["uri"] == "recipes/a.yaml"
    assert place["region"] == {"startLine": 7, "startColumn": 13}
    (place,) = (location["physicalLocation"] for location in large["locations"])
    assert place["artifactLocation"]["uri"] == "recipes/b%2C%20c%3A%20d.yaml"
    assert place["region"] == {"startLine": 1, "startColumn": 1}  # of the whole file


def prints(problems: list[Problem]) -> list[str]:
    results = json.loads(sarif(problems))["runs"][0]["results"]
    return [result["partialFingerprints"]["composeProblem/v1"] for result in results]


def test_a_fingerprint_survives_a_move_and_tells_twins_apart() -> None:
    moved = Problem(ABOVE.file, 9, 1, ABOVE.code, ABOVE.message, ABOVE.hint)
    assert prints([ABOVE]) == prints([moved])
    assert len(set(prints([ABOVE, moved, LARGE]))) == 3


def test_a_code_of_another_room_is_a_rule_too() -> None:
    (run,) = json.loads(sarif([Problem("compose.lock", 1, 1, "E999", "x")]))["runs"]
    result = run["results"][0]
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "E999"


# --- words -------------------------------------------------------------------------------


@given(st.text(st.characters()))
def test_what_is_visible_is_one_printable_line_that_any_terminal_takes(raw: str) -> None:
    shown = visible(raw)
    assert len(shown.splitlines()) <= 1
    assert not {*"\x1b\x07\x08\x7f\x9b\u202e\u2066\u200f\ufeff\ud800"} & {*shown}
    shown.encode("utf-8")


def test_visible_leaves_what_people_write() -> None:
    assert visible("Ärger 水彩 👩‍🎨 C:\\x") == "Ärger 水彩 👩‍🎨 C:\\x"
    assert visible("a\x1b[2J\n\u202e\x9b\udc80") == "a\\x1b[2J\\n\\u202e\\x9b\\udc80"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("::error::x", "\\x3a:error::x"),
        (" ::x", "\\x20\\x3a:x"),
        ("##[add-mask]x", "#\\x23[add-mask]x"),
        ("a ##vso[x]", "a #\\x23vso[x]"),
        ("a::b, #1 and : too", "a::b, #1 and : too"),
    ],
)
def test_nothing_is_an_order_to_a_ci_runner(raw: str, shown: str) -> None:
    assert visible(raw) == shown
    assert visible(shown) == shown


@settings(deadline=None)
@given(st.lists(st.sampled_from("\x1b\u202e\n\x00\x9bax: \"'[]{}-\\")).map("".join))
def test_no_problem_of_a_file_can_steer_a_terminal(raw: str) -> None:
    quoted = json.dumps(raw)
    whole = f"name: {quoted}\n{quoted}: 1\nconcepts: [{{modelId: {quoted}, {raw}}}]\n"
    for problem in parse(whole.encode(), file="a.yaml", types=TYPES)[1]:
        assert problem.message == visible(problem.message)
        assert problem.hint == visible(problem.hint)


@pytest.mark.parametrize(
    ("n", "noun", "expected"),
    [(0, "recipe", "0 recipes"), (1, "entry", "1 entry"), (2, "entry", "2 entries"),
     (1200, "key", "1,200 keys")],
)  # fmt: skip
def test_counted(n: int, noun: str, expected: str) -> None:
    assert counted(n, noun) == expected


def test_shorten_and_did_you_mean() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"
    assert did_you_mean("modelID", ["name", "modelId"]) == "modelId"
    assert did_you_mean("zzz", ["name", "modelId"]) is None
    assert did_you_mean("name" * 100, ["name" * 100]) is None
