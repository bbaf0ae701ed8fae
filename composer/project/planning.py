"""From a project and a target to a plan; nothing is written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.lock import remember
from composer.planner import MARKERS, compare_locks, plan, unreadable, with_found
from composer.planner import plan_offline as plan_by_lock
from composer.project.advice import advice
from composer.project.base_lock import base_lock
from composer.project.reviewed_plan import ReviewedPlan
from composer.targets.base import observe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.model import Recipe
    from composer.planner import Options, Plan
    from composer.project.base_lock import Base
    from composer.project.options import PlanOptions
    from composer.project.project import Project
    from composer.targets.base import Target


def check_names(recipes: Sequence[Recipe], options: Options) -> None:
    """Raise `UsageError` where a name to upgrade is in no recipe."""
    names = {ref.name for recipe in recipes for ref in recipe.concepts}
    for name in sorted(options.upgrade):
        if name not in names:
            raise UsageError(f"--upgrade: no recipe has a concept named {name}")


def build_plan(project: Project, target: Target, options: Options) -> Plan:
    """The bare plan of what lock, journal and target say now."""
    memory = remember(project.root, target.key, project.state, lock=project.current_lock())
    observed = observe(target, project.recipes, memory, grace=target.grace)
    return plan(project.recipes, with_found(memory, observed), observed, options)


def plan_online(
    project: Project, target: Target, options: PlanOptions, *, base: str | None, advise: bool
) -> ReviewedPlan:
    """The plan, with prices and advice from the target if asked for."""
    before = base_lock(base, project.root) if base is not None else None
    planned = build_plan(project, target, options)
    prices = _prices(planned, target) if advise else {}
    advised = advice(planned, target) if advise else {}
    return ReviewedPlan(_compared(planned, project, before), options.allowed, prices, advised)


def plan_offline(
    project: Project, key: str, options: PlanOptions, *, base: str | None
) -> ReviewedPlan:
    """The plan by the lock alone."""
    before = base_lock(base, project.root) if base is not None else None
    planned = plan_by_lock(project.recipes, project.lockfile.target(key), key, options)
    return ReviewedPlan(_compared(planned, project, before), options.allowed)


def _prices(planned: Plan, target: Target) -> dict[str, float]:
    """What the trainings of models that exist would cost, by recipe; a remote target knows."""
    prices = {}
    for action in planned.changes if target.remote else ():
        if action.model is not None and action.content is not None and action.model.untrained:
            price = target.price(action.model.id, action.content.training)
            if price is not None:
                prices[action.path] = price
    return prices


def _compared(planned: Plan, project: Project, base: Base | None) -> Plan:
    """The plan with what every target's part of the lock says otherwise than the base's."""
    edits, notes = [MARKERS] if project.lockfile.conflicted else [], planned.notes
    if base is not None and base.flaw:
        edits.append(unreadable(base.flaw))
    elif base is not None:
        diff = compare_locks(project.recipes, base.lock, project.lockfile, planned.target)
        edits, notes = [*edits, *diff.edits], (*notes, *diff.notes)
    return replace(planned, lock_edits=tuple(edits), notes=notes)
