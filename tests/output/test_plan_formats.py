"""Plans as annotations and SARIF, and hostile texts in every form but Markdown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.golden_cases import CASES, KNIGHT, ROGUE
from support.hostile import everywhere, texts
from support.sizes import size

from composer.files.schemas import schema
from composer.output.findings import ERROR, NOTICE, WARNING, Finding, annotated, log
from composer.output.plan_formats import findings, github, sarif
from composer.output.plan_json import as_json
from composer.output.plan_text import text
from composer.output.plan_view import PlanView
from composer.text import UNSAFE

if TYPE_CHECKING:
    from composer.planner import Plan


def kinds(plan: Plan) -> list[tuple[str, str]]:
    return [(finding.kind, finding.rule) for finding in findings(PlanView(plan))]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nothing_to_do", []),
        ("one_scale", [(NOTICE, "P301")]),
        ("blocked", [(ERROR, "P102"), (ERROR, "P102")]),
        ("guard", [(ERROR, "P101"), *[(WARNING, "P204")] * 2, *[(NOTICE, "P301")] * 2]),
        ("deletion_with_prune", [(WARNING, "P202"), (NOTICE, "P301")]),
        ("protected", [(WARNING, "P203"), (NOTICE, "P301")]),
        ("lock_only_edit", [(WARNING, "P201"), (WARNING, "P201"), (NOTICE, "P301")]),
        ("change_over_drift", [(WARNING, "P204"), (NOTICE, "P301")]),
    ],
)
def test_what_a_plan_annotates(name: str, expected: list[tuple[str, str]]) -> None:
    assert kinds(CASES[name]().plan) == expected


def test_an_annotation_stands_at_the_recipe_or_at_the_lock() -> None:
    lines = github(PlanView(CASES["deletion_with_prune"]().plan, whole="x")).splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "::warning file=compose.lock",
        "::notice file=compose.lock",
    ]
    (line,) = github(PlanView(CASES["one_scale"]().plan, whole="x")).splitlines()
    assert line == (
        "::notice file=recipes/rogue.yaml,title=P301::"
        "Rogue: replace: scale of Pixel Dust 0.6 -> 0.7"
    )


@pytest.mark.parametrize(("count", "shown"), [(9, 9), (10, 10), (11, 10), (40, 10)])
def test_ten_annotations_of_a_kind_and_the_last_counts_the_others(count: int, shown: int) -> None:
    many = [
        Finding(kind, "P301", f"number {n}", "a.yaml")
        for n in range(count)
        for kind in (NOTICE, WARNING, ERROR)
    ]
    lines = annotated(many, whole="plan.json").splitlines()
    for kind in (ERROR, WARNING, NOTICE):
        alike = [line for line in lines if line.startswith(f"::{kind} ")]
        assert len(alike) == shown
        if count > 10:
            rest = f"{count - 9} more of {count} are not shown: plan.json"
            assert alike[-1] == f"::{kind} title=compose::{rest}"


def test_sarif_of_a_plan_has_its_problems_at_relative_paths() -> None:
    (run,) = json.loads(sarif(PlanView(CASES["guard"]().plan)))["runs"]
    assert [(r["ruleId"], r["level"]) for r in run["results"]] == [
        ("P101", "error"),
        ("P204", "warning"),
        ("P204", "warning"),
    ]
    uris = [
        r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run["results"]
    ]
    assert uris == ["compose.lock", KNIGHT.path, ROGUE.path]
    rules = run["tool"]["driver"]["rules"]
    assert [rules[r["ruleIndex"]]["id"] for r in run["results"]] == ["P101", "P204", "P204"]
    prints = [r["partialFingerprints"]["composeProblem/v1"] for r in run["results"]]
    assert len(set(prints)) == 3
    again = json.loads(sarif(PlanView(CASES["guard"]().plan)))["runs"][0]["results"]
    assert [r["partialFingerprints"]["composeProblem/v1"] for r in again] == prints


def test_a_message_holds_no_link() -> None:
    (result,) = json.loads(log([Finding(ERROR, "P102", "[x](http://e.io)", "a.yaml")], {}))["runs"][
        0
    ]["results"]
    assert "](" not in result["message"]["text"]


# --- hostile texts in every other form ---------------------------------------------------

PLAIN = everywhere(["plain"])


def obeyed(line: str) -> bool:
    """Whether a CI runner takes this line of a log for an order."""
    return line.lstrip().startswith("::") or "##" in line


@settings(max_examples=size(150, 5000), deadline=None)
@given(st.lists(texts, min_size=1, max_size=5))
def test_no_text_does_anything_in_a_terminal_or_a_log(some: list[str]) -> None:
    hostile = everywhere(some)
    shown = text(PlanView(hostile))
    assert not UNSAFE.search(shown.replace("\n", ""))
    lines = shown.split("\n")
    assert len(lines) == len(text(PlanView(PLAIN)).split("\n"))
    assert not [line for line in lines if obeyed(line)]


@settings(max_examples=size(150, 5000), deadline=None)
@given(st.lists(texts, min_size=1, max_size=5))
def test_no_text_is_an_order_to_a_runner(some: list[str]) -> None:
    hostile = everywhere(some)
    commands = github(PlanView(hostile, whole="plan.json")).splitlines()
    expected = github(PlanView(PLAIN, whole="plan.json")).splitlines()
    assert [c.split(" ")[0] for c in commands] == [c.split(" ")[0] for c in expected]
    for printed in (as_json(PlanView(hostile)), sarif(PlanView(hostile))):
        assert not [line for line in printed.split("\n") if obeyed(line)]
        assert json.loads(printed)
    names = [action["name"] for action in json.loads(as_json(PlanView(hostile)))["actions"]]
    assert names == [action.name for action in hostile.actions]
    for result in json.loads(sarif(PlanView(hostile)))["runs"][0]["results"]:
        assert "](" not in result["message"]["text"]


def test_every_case_fits_the_published_schema() -> None:
    validator = jsonschema.Draft7Validator(json.loads(schema("plan")))
    for name, make in CASES.items():
        plain = json.loads(as_json(PlanView(make().plan)))
        validator.validate(plain)
        drifted = [action["drift"] for action in plain["actions"] if "drift" in action]
        assert drifted == [
            a.explanation.drift for a in make().plan.actions if a.explanation.drift
        ], name


def test_a_drifted_and_a_changed_recipe_are_told_apart_in_json() -> None:
    actions = json.loads(as_json(PlanView(CASES["change_over_drift"]().plan)))["actions"]
    assert actions[1]["reason"] == "scale of Pixel Dust 0.6 -> 0.7"
    assert actions[1]["drift"] == "changed on the target: scale of Pixel Dust 0.6 -> 0.45"
