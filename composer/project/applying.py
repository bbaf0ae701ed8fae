"""Making the target what the recipes say: recover, plan, check, carry out."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.executor import Settings, Stopped, recover
from composer.executor import apply as carry_out
from composer.lock import Ledger
from composer.planner import Report
from composer.planner import plan as build_plan
from composer.project.approval import check_approved
from composer.project.reviewed_plan import ReviewedPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from composer.planner import Plan, Step
    from composer.project.options import ApplyOptions
    from composer.project.project import Project
    from composer.targets.base import Target


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told of the plan and of each step, and the event that ends the work."""

    on_plan: Callable[[ReviewedPlan], None]
    on_step: Callable[[Step], None]
    stop: threading.Event | None = None


def apply(
    project: Project,
    target: Target,
    approved: ReviewedPlan | Plan | None,
    options: ApplyOptions,
    watcher: Watcher,
) -> Report:
    """See `Project.apply`."""
    settings = _settings(target, options)
    stop = watcher.stop or threading.Event()
    with project.exclusive(options.lock_timeout):
        ledger = Ledger(project.root, target.key, project.state)
        try:
            observed = recover(project.recipes, target, ledger, grace=settings.grace, stop=stop)
        except Stopped:
            return Report(interrupted=True)
        planned = build_plan(project.recipes, ledger.memory, observed, options)
        watcher.on_plan(ReviewedPlan(planned, options.allowed))
        bare = approved.plan if isinstance(approved, ReviewedPlan) else approved
        planned.guard(options.allowed)
        check_approved(planned, options, bare)
        return carry_out(planned, target, ledger, settings, say=watcher.on_step, stop=stop)


def _settings(target: Target, options: ApplyOptions) -> Settings:
    """The executor's settings, with the target's own times where none are given."""
    return Settings(
        grace=target.grace if options.grace is None else options.grace,
        poll_interval=options.poll_interval or target.poll_interval,
        timeout=options.timeout,
        parallelism=options.parallelism,
        no_wait=options.no_wait,
        max_cost=options.max_cost,
    )
