"""The formats of a plan, by name: `compose plan -o` offers them, in this order.

A new format is one function from a `PlanView` to a string, in a file of its own (a contract in
pyproject.toml names it too), and its line in `PLAN_FORMATS`; a line in `INVALID_FORMATS` as well,
if it shows recipes that can't be read.
Annotations and SARIF are here: both show the plan's findings. `invalid` is what stands in a
review's place where recipes or lock can't be read, and there is no plan.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from composer.errors import Problem
from composer.output import problem_formats
from composer.output.findings import ERROR, NOTICE, WARNING, Finding, annotated, log
from composer.output.markdown import COMMENT
from composer.output.plan_json import as_json
from composer.output.plan_markdown import markdown
from composer.output.plan_text import text
from composer.output.plan_view import LOCK_ONLY
from composer.text import LOCK_NAME, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from composer.errors import InvalidInput
    from composer.output.markdown import Budget
    from composer.output.plan_view import PlanView
    from composer.planner import Action, Plan


UNREADABLE = "E401"
GUARD, BLOCKED, LOCK_EDIT, DELETION, UNPROTECTED, DRIFT, CHANGE = (
    "P101", "P102", "P201", "P202", "P203", "P204", "P301",
)  # fmt: skip
RULES = MappingProxyType(
    {
        **problem_formats.RULES,
        UNREADABLE: "The lock or the journal can't be read",
        GUARD: "apply refuses this plan",
        BLOCKED: "The target blocks a recipe",
        LOCK_EDIT: "The lock changed but no recipe did",
        DELETION: "Compositions are deleted",
        UNPROTECTED: "Protection is removed",
        DRIFT: "A composition changed on the target",
        CHANGE: "A composition changes",
    }
)


def findings(view: PlanView) -> list[Finding]:
    """Errors: what apply refuses or can't do. Warnings: danger and drift. Notices: changes."""
    plan = view.plan
    return [
        *(Finding(ERROR, GUARD, visible(g.message), LOCK_NAME) for g in view.refused),
        *(_at(a, ERROR, BLOCKED, a.explanation.reason) for a in plan.blocked),
        *_warnings(plan),
        *(_at(a, NOTICE, CHANGE, f"{a.shown}: {a.explanation.reason}") for a in plan.changes),
    ]


def _warnings(plan: Plan) -> Iterator[Finding]:
    for edit in plan.lock_edits:
        message = visible(f"{edit.name}: {LOCK_ONLY}: {edit.words}")
        yield Finding(WARNING, LOCK_EDIT, message, LOCK_NAME)
    for action in plan.actions:
        if action.transition.deletes:
            yield _at(action, WARNING, DELETION, f"deletes {', '.join(action.transition.deletes)}")
    for action in plan.actions:
        if action.update.protect is False:
            yield _at(action, WARNING, UNPROTECTED, "protection taken off")
    for action in plan.actions:
        if action.explanation.drift:
            yield _at(action, WARNING, DRIFT, f"drift: {action.explanation.drift}")


def _at(action: Action, kind: str, rule: str, words: str) -> Finding:
    """At the recipe's file; where that is gone, at the lock, which still names it."""
    file = visible(action.path) if action.recipe is not None else LOCK_NAME
    return Finding(kind, rule, visible(f"{action.name}: {words}"), file)


def github(view: PlanView) -> str:
    """Annotations beside the files of a pull request."""
    return annotated(findings(view), whole=view.whole)


def sarif(view: PlanView) -> str:
    """A SARIF log of errors and warnings: a change that somebody wants is no problem."""
    return log([f for f in findings(view) if f.kind != NOTICE], RULES)


PLAN_FORMATS: Mapping[str, Callable[[PlanView], str]] = MappingProxyType(
    {"text": text, "json": as_json, "markdown": markdown, "github": github, "sarif": sarif}
)


# What stands in the place of a plan: a function of the problems, the files read and the budget.
INVALID_FORMATS: Mapping[str, Callable[[Sequence[Problem], int, Budget], str]] = MappingProxyType(
    {
        "json": lambda listed, files, budget: problem_formats.as_json(listed),
        "markdown": lambda listed, files, budget: problem_formats.markdown(
            listed, files=files, budget=budget
        ),
        "github": lambda listed, files, budget: f"{problem_formats.github(listed)}\n",
        "sarif": lambda listed, files, budget: problem_formats.sarif(listed, RULES),
    }
)


def invalid(bad: InvalidInput, output_format: str, budget: Budget = COMMENT) -> str:
    """What is wrong with recipes or lock, where a review looks for the plan.

    Empty for text: the command line prints that on stderr. JSON has the schema `problems`.
    """
    hint = visible(bad.hint or "")
    unread = Problem(LOCK_NAME, 0, 0, UNREADABLE, visible(bad.message), hint)
    render = INVALID_FORMATS.get(output_format)
    return render(bad.problems or (unread,), bad.files, budget) if render else ""
