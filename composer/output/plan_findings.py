"""A plan as findings: what a reviewer should see beside the files, the gravest first."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from composer.output.annotations import ERROR, NOTICE, WARNING, Finding, annotated
from composer.output.plan_view import LOCK_ONLY
from composer.output.sarif import log
from composer.recipes.codes import CODES
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.output.plan_view import PlanView
    from composer.planner import Action, Plan

LOCK = "compose.lock"
UNREADABLE = "E401"
GUARD, BLOCKED, LOCK_EDIT, DELETION, UNPROTECTED, DRIFT, CHANGE = (
    "P101", "P102", "P201", "P202", "P203", "P204", "P301",
)  # fmt: skip
RULES = MappingProxyType(
    {
        **CODES,
        UNREADABLE: "The lock or the journal can't be read",
        GUARD: "A plan that apply would refuse",
        BLOCKED: "A recipe that something on the target blocks",
        LOCK_EDIT: "The lock was changed, and no recipe asks for it",
        DELETION: "Compositions are deleted",
        UNPROTECTED: "A protection is taken off",
        DRIFT: "A composition changed on the target behind the lock's back",
        CHANGE: "A change of a composition",
    }
)


def findings(view: PlanView) -> list[Finding]:
    """Errors: what apply refuses or can't do. Warnings: danger and drift. Notices: changes."""
    plan = view.plan
    return [
        *(Finding(ERROR, GUARD, visible(g.message), LOCK) for g in view.refused),
        *(_at(a, ERROR, BLOCKED, a.explanation.reason) for a in plan.blocked),
        *_warnings(plan),
        *(_at(a, NOTICE, CHANGE, f"{a.shown}: {a.explanation.reason}") for a in plan.changes),
    ]


def _warnings(plan: Plan) -> Iterator[Finding]:
    for edit in plan.lock_edits:
        said = visible(f"{edit.name}: {LOCK_ONLY}: {edit.words}")
        yield Finding(WARNING, LOCK_EDIT, said, LOCK)
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
    file = visible(action.path) if action.recipe is not None else LOCK
    return Finding(kind, rule, visible(f"{action.name}: {words}"), file)


def github(view: PlanView) -> str:
    """Annotations beside the files of a pull request."""
    return annotated(findings(view), whole=view.whole)


def sarif(view: PlanView) -> str:
    """A SARIF log of errors and warnings: a change that somebody wants is no problem."""
    return log([f for f in findings(view) if f.kind != NOTICE], RULES)
