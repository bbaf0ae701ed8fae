"""Plans as documents: what a forge shows of them, judged by a real Markdown renderer."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.documents import Document, rendered
from support.golden_cases import CASES, URL, entry, path_of, planned, there, wants
from support.hostile import everywhere, texts
from support.make_golden import GOLDEN, document, documents
from support.sizes import size

from composer.errors import Problem
from composer.output import problem_formats
from composer.output.markdown import BUDGETS, COMMENT, SUMMARY, Budget
from composer.output.plan_markdown import markdown
from composer.output.plan_view import PlanView, summary
from composer.planner import CHANGES, Plan, Verb
from composer.text import visible

DRIFT = "h3 Drift: what changed on the target, though neither recipe nor lock did"
# What a reader must find, in this order: headings (a dot is a name), tables with their rows, lists.
OUTLINES = {
    "first_plan": """h2 compose plan: 2 changes
        h3 Changes; h4 + create ·; table 2; list 2; h4 + create ·; table 1; list 2""",
    "nothing_to_do": "h2 compose plan: no changes; h3 No change; table 2",
    "one_scale": """h2 compose plan: 1 change
        h3 Changes; h4 ~ replace ·; table 1; list 3; h3 No change; table 1""",
    "forty_recipes": f"""h2 compose plan: 20 changes, refused as it stands; h3 Danger; list 1
        h3 Changes; {"h4 ~ replace ·; table 1; list 3;" * 10}
        {"h4 + create ·; table 1; list 2;" * 10} h3 No change; table 20""",
    "guard": f"""h2 compose plan: 2 changes, refused as it stands; h3 Danger; list 1
        h3 Changes; h4 + create ·; table 2; list 2; h4 + create ·; table 1; list 2
        {DRIFT}; table 2""",
    "drift": f"""h2 compose plan: 2 changes
        h3 Changes; h4 ~ replace ·; table 1; list 3; h4 ~ update ·; table 2; list 2
        {DRIFT}; table 2""",
    "change_over_drift": f"""h2 compose plan: 1 change
        h3 Changes; h4 ~ replace ·; table 1; list 3; {DRIFT}; table 1; h3 No change; table 1""",
    "hostile_names": f"""h2 compose plan: 12 changes, 2 blocked; h3 Danger; list 2
        h3 Changes; {"h4 + create ·; table 1; list 2;" * 11} h4 + create ·; table 5; list 2
        {DRIFT}; table 1""",
    "cut_comment": f"""h2 compose plan: 20 changes, refused as it stands; h3 Danger; list 1
        h3 Changes; {"h4 ~ replace ·; table 1; list 3;" * 10} h4 + create ·; table 1; list 2""",
    "blocked": """h2 compose plan: no changes, 2 blocked; h3 Danger; list 2
        h3 No change; table 1""",
    "deletion_with_prune": """h2 compose plan: 1 change; h3 Danger; list 1
        h3 Changes; h4 - delete ·; table 1; list 2; h3 No change; table 1""",
    "protected": """h2 compose plan: 1 change; h3 Danger; list 2
        h3 Changes; h4 ~ update ·; table 2; list 2; h3 No change; table 1""",
    "lock_only_edit": """h2 compose plan: 1 change, 2 lock-only edits
        h3 Changes; h4 ~ replace ·; table 3; list 4
        h3 Lock-only edits; quote; table 2; h3 Notes; list 1; h3 No change; table 1""",
    "move_and_rename": """h2 compose plan: 1 change
        h3 Changes; h4 ~ update ·; table 1; list 2; h3 No change; table 1""",
    "offline": """h2 compose plan: 2 changes
        h3 Changes; h4 ~ replace ·; table 1; list 3; h4 + create ·; table 1; list 3
        h3 No change; table 1""",
    "still_training": "h2 compose plan: no changes; h3 No change; table 2",
    "failed_training_with_a_price": """h2 compose plan: 1 change
        h3 Changes; h4 + train ·; table 1; list 3""",
    "adopted": """h2 compose plan: 2 changes
        h3 Changes; h4 ~ update ·; table 2; list 3; h4 + adopt ·; table 1; list 3""",
}


def outline(written: str) -> list[str]:
    lines = written.replace("\n", ";").split(";")
    return [line.strip() for line in lines if line.strip()]


@pytest.mark.parametrize("file", documents())
def test_the_documents_are_as_committed(file: str) -> None:
    """If a change of them is meant: PYTHONPATH=tests python -m support.make_golden."""
    assert documents()[file] == (GOLDEN / file).read_text(encoding="utf-8")


def test_no_document_is_left_over() -> None:
    files = (path for path in GOLDEN.rglob("*") if path.is_file())
    assert {path.relative_to(GOLDEN).as_posix() for path in files} == set(documents())


@pytest.mark.parametrize("name", CASES)
def test_a_document_has_this_structure(name: str) -> None:
    shown = rendered(document(CASES[name]()))
    assert shown.outline == outline(OUTLINES[name])
    assert shown.odd == []


@pytest.mark.parametrize("name", CASES)
def test_a_document_tells_the_plan(name: str) -> None:
    case = CASES[name]()
    shown = rendered(document(case))
    assert any(words.startswith(summary(case.plan)) for words in shown.words)
    if name != "cut_comment":
        _tells_every_action(case.plan, shown)
    last = document(case).rstrip("\n").split("\n")[-1]
    if case.plan.asked:
        assert last.startswith(f"Plan `sha256:{case.plan.digest}`")
        assert shown.code.count(f"sha256:{case.plan.digest}") == 1
    else:
        assert case.plan.digest not in document(case)
        assert all(
            "the target was not asked" in action.explanation.reason for action in case.plan.actions
        )


def _tells_every_action(plan: Plan, shown: Document) -> None:
    """Each answer is there with its name and its reason, in the table where it belongs."""
    drifted = [a for a in plan.actions if a.explanation.drift]
    quiet = [a for a in plan.actions if a.shown not in CHANGES and a.verb is not Verb.BLOCKED]
    tables = {tuple(table.head): table.rows for table in shown.tables}
    rows = tables.get(("recipe", "file", "drift", "this plan"), [])
    assert [row[2] for row in rows] == [visible(a.explanation.drift) for a in drifted]
    rows = tables.get(("recipe", "file", "answer", "why"), [])
    assert [(row[0], row[2]) for row in rows] == [(visible(a.name), str(a.shown)) for a in quiet]
    for action in plan.actions:
        assert (
            visible(action.name) in shown.code and visible(action.explanation.reason) in shown.code
        )


def test_a_change_has_its_concepts_before_and_after() -> None:
    changed = rendered(document(CASES["one_scale"]())).tables[0]
    assert (changed.head, changed.rows) == (
        ["concept", "before", "after"],
        [["Pixel Dust", "0.6", "0.7"]],
    )
    new = rendered(document(CASES["first_plan"]())).tables[0]
    assert new.rows == [["Ink Lines", "none", "0.8"], ["Watercolour", "none", "0.65"]]


def test_edits_of_the_lock_stand_in_a_table_of_their_own() -> None:
    (table,) = [t for t in rendered(document(CASES["lock_only_edit"]())).tables if "edit" in t.head]
    assert [row[2] for row in table.rows] == [
        "pin of Ink Lines lora_ink -> lora_dust",
        "composition model_rogue -> model_other",
    ]


# --- hostile texts -----------------------------------------------------------------------


PLAIN = rendered(markdown(PlanView(everywhere(["plain"]))))


@settings(max_examples=size(60, 3000), deadline=None)
@given(st.lists(texts, min_size=1, max_size=5))
def test_no_text_does_anything_in_a_document(some: list[str]) -> None:
    """The document with hostile texts is the one with plain texts, but for what is in code."""
    hostile = rendered(markdown(PlanView(everywhere(some))))
    assert hostile.odd == []
    assert (hostile.outline, hostile.words) == (PLAIN.outline, PLAIN.words)
    sizes = [[len(row) for row in table.rows] for table in hostile.tables]
    assert sizes == [[len(row) for row in table.rows] for table in PLAIN.tables]


@settings(max_examples=size(60, 3000), deadline=None)
@given(texts)
def test_a_name_is_shown_whole(name: str) -> None:
    """In a table, in a heading, wherever: what a reader sees is what was written."""
    shown = rendered(markdown(PlanView(everywhere([name]))))
    seen = visible(name) if visible(name).strip() else "(none)"
    (quiet,) = [table for table in shown.tables if "answer" in table.head]
    assert {row[0] for row in quiet.rows} == {row[3] for row in quiet.rows} == {seen}
    assert seen in shown.code


@given(st.lists(st.builds(Problem, texts, st.just(3), st.just(5), st.just("E101"), texts, texts)))
def test_no_problem_does_anything_in_a_document(listed: list[Problem]) -> None:
    shown = rendered(problem_formats.markdown(listed, files=4))
    assert shown.odd == []
    assert shown.outline[1:] == ([f"table {len(listed)}"] if listed else [])


# --- budgets -----------------------------------------------------------------------------


def many(count: int) -> Plan:
    """So many recipes: a quarter each is new, has another scale, drifted, or stays."""
    names = [f"Recipe {n:02}" for n in range(40)]
    pairs = cycle([(0.5, 0.5), (0.6, 0.5), (0.5, 0.4), (0.5, 0.5)])  # wanted, and on the target
    scales = dict(zip(names, pairs, strict=False))
    old = [name for n, name in enumerate(names) if n % 4]
    plan = planned(
        [wants(name, ink=scales[name][0]) for name in names],
        {path_of(name): entry(name, f"model_{name[-2:]}", ink=0.5) for name in old},
        [there(name, f"model_{name[-2:]}", ink=scales[name][1]) for name in old],
    )
    folders = range(count // len(names))
    actions = [replace(a, path=f"{folder:04}/{a.path}") for folder in folders for a in plan.actions]
    return replace(plan, actions=tuple(actions))


@pytest.mark.parametrize(("budget", "count"), [(COMMENT, 1000), (SUMMARY, 8000)])
def test_a_document_keeps_its_budget_and_says_what_was_cut(budget: Budget, count: int) -> None:
    plan = many(count)
    text = markdown(PlanView(plan, budget=budget, whole="plan.json"))
    assert budget.limit * 0.9 < budget.size(text) <= budget.limit
    shown = rendered(text[:3000])
    assert any(words == f"Cut to {budget}." for words in shown.words)
    assert "plan.json" in shown.code
    assert text.rstrip("\n").split("\n")[-1].startswith(f"Plan `sha256:{plan.digest}`")


def test_budgets_are_those_of_the_forge() -> None:
    assert (COMMENT.limit, COMMENT.size("ü水")) == (60_000, 2)
    assert (SUMMARY.limit, SUMMARY.size("ü水")) == (1_048_576, 5)
    assert list(BUDGETS) == ["comment", "summary"]


@settings(max_examples=size(40, 500), deadline=None)
@given(st.integers(3_000, 40_000))
def test_what_is_cut_is_the_least_important(limit: int) -> None:
    plan = MANY
    shown = rendered(markdown(PlanView(plan, budget=Budget(limit))))
    assert len(markdown(PlanView(plan, budget=Budget(limit)))) <= limit
    changes = sum(line.startswith("h4") for line in shown.outline)
    drift, quiet = (
        sum(len(t.rows) for t in shown.tables if column in t.head) for column in ("drift", "answer")
    )
    assert not changes or drift == sum(bool(a.explanation.drift) for a in plan.actions)
    assert not quiet or changes == len(plan.changes)
    lost = [len(plan.changes) - changes, len(plan.actions) - len(plan.changes) - quiet]
    words = " ".join(shown.words)
    assert (f"{lost[0]} of {len(plan.changes)} changes" in words) is bool(lost[0])
    assert ("recipes without a change" in words) is bool(lost[1])


MANY = many(80)


def test_everything_fits_a_summary_that_does_not_fit_a_comment() -> None:
    plan = many(400)
    assert not any(
        w.startswith("Cut") for w in rendered(markdown(PlanView(plan, budget=SUMMARY))).words
    )
    assert any(w.startswith("Cut") for w in rendered(markdown(PlanView(plan))).words)


def test_the_target_is_named() -> None:
    assert URL in rendered(document(CASES["first_plan"]())).code
