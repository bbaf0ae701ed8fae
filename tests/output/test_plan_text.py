"""A plan as text: what changes is listed, what doesn't is counted, and the last line says how."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from support.golden_cases import CASES, ENTRIES, KNIGHT, MODELS, planned, wants

from composer.lora.inspection import Advice, Level
from composer.model import TargetLock
from composer.output.plan_json import as_json
from composer.output.plan_markdown import markdown
from composer.output.plan_text import text
from composer.output.plan_view import PlanView
from composer.planner import CHANGES, Verb, plan_offline

CHANGED = planned([KNIGHT, wants("Rogue", dust=0.7)], ENTRIES, MODELS)
MOVED = planned([replace(KNIGHT, path="recipes/b/knight.yaml")], ENTRIES, MODELS)


def test_what_does_not_change_is_counted_and_listed_only_where_all_is_asked_for() -> None:
    short, whole = (text(PlanView(CHANGED, list_all=every)) for every in (False, True))
    assert "Knight" not in short and "2 recipes: 1 to replace, 1 unchanged.\n" in short
    assert "= keep     Knight  recipes/knight.yaml  up to date\n" in whole
    assert short.splitlines()[-2:] == whole.splitlines()[-2:]


def test_a_plan_without_a_change_is_its_count_alone() -> None:
    assert text(PlanView(CASES["nothing_to_do"]().plan)) == "2 recipes: 2 unchanged.\n"


def test_a_move_is_counted_as_one_and_its_two_paths_widen_no_column() -> None:
    both = planned(
        [replace(KNIGHT, path="b/knight.yaml"), wants("Rogue", dust=0.7)], ENTRIES, MODELS
    )
    assert "1 moved" in text(PlanView(MOVED))
    assert text(PlanView(both)).splitlines()[:3] == [
        "> move     Knight  recipes/knight.yaml -> b/knight.yaml",
        "~ replace  Rogue   recipes/rogue.yaml  scale of Pixel Dust 0.6 -> 0.7",
        "             0.60 -> 0.70  Pixel Dust",
    ]


@pytest.mark.parametrize("note", ["notes", "drift"])
def test_an_unchanged_recipe_with_something_to_say_is_listed(note: str) -> None:
    quiet = CASES["nothing_to_do"]().plan
    extra = {"notes": ("look here",)} if note == "notes" else {"drift": "tag x taken off"}
    first, *others = quiet.actions
    loud = replace(first, explanation=replace(first.explanation, **extra))
    shown = text(PlanView(replace(quiet, actions=(loud, *others))))
    assert first.shown is Verb.KEEP
    assert re.findall("^= keep +(\\w+)", shown, re.MULTILINE) == [first.name]


def test_the_last_line_applies_exactly_this_plan() -> None:
    digest = CHANGED.digest[:8]
    last = text(PlanView(CHANGED, next_step="compose apply --target local")).splitlines()[-1]
    how = f"compose apply --target local --expect {digest}"
    assert last == f"Plan {digest}. To apply exactly this plan: {how}"


def test_no_command_is_proposed_that_would_be_refused() -> None:
    refused = CASES["guard"]().plan
    shown = text(PlanView(refused))
    assert "--expect" not in shown and shown.count("apply would refuse") == 2
    flags = {guard.flag for guard in refused.guards}
    assert "--expect" in text(PlanView(refused, allowed=flags))


def test_offline_there_is_no_digest_and_no_drift() -> None:
    shown = text(PlanView(plan_offline([KNIGHT], TargetLock(recipes=ENTRIES), "local")))
    assert "Plan " not in shown and "To ask the target: compose plan\n" in shown


@pytest.mark.parametrize("level", Level)
def test_advice_stands_below_changes_alone_and_only_where_it_matters(level: Level) -> None:
    advice = {action.path: Advice(level, "they do") for action in CHANGED.actions}
    view = PlanView(CHANGED, advice=advice, list_all=True)
    needed = level not in (Level.INDEPENDENT, Level.SILENT)
    assert text(view).count("advice: they do") == needed
    assert markdown(view).count("- advice: `they do`") == needed
    actions = json.loads(as_json(view))["actions"]  # programs get every level
    assert {action["adviceLevel"] for action in actions} == {str(level)}


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_plan_has_changes_exactly_where_its_list_shows_one(name: str) -> None:
    """So `--detailed-exitcode` is 2 exactly where a reader sees a change."""
    plan = CASES[name]().plan
    shown, listed = (
        re.findall(r"^[-+~=>!] (left alone|\w+)  ", text(view), re.MULTILINE)
        for view in (PlanView(plan), PlanView(plan, list_all=True))
    )
    assert any(Verb(verb) in CHANGES for verb in shown) is bool(plan.changes)
    assert len(listed) == len(plan.actions)
