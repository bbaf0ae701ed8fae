"""`compose plan`: what apply would do, and why, in every form that a review needs."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.advice import advice
from composer.cli.base_lock import base_lock
from composer.cli.plan_copies import Copies
from composer.cli.planning import check_locked, looked_at, options_of
from composer.cli.project import open_project
from composer.cli.targets import open_target
from composer.cli.terminal import emit
from composer.errors import InvalidInput, Problem, UsageError
from composer.lock import NAME as LOCK
from composer.output import plan_findings, problems
from composer.output.budget import BUDGETS, Budget
from composer.output.plan_formats import PLAN_FORMATS
from composer.output.plan_view import WHOLE, PlanView
from composer.planner import MARKERS, lock_news, plan_offline, unreadable
from composer.targets.selection import offline_choice
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from composer.cli.base_lock import Base
    from composer.cli.options import Command, Selection, TargetOptions
    from composer.cli.project import Project
    from composer.planner import Options, Plan
    from composer.targets.base import Target

    _Asked = tuple[Plan, dict[str, float], dict[str, str]]  # with prices and advice, by recipe

CHANGES, BLOCKED = 2, 1


def _into(form: str, help: str) -> Callable[[Command], Command]:
    kind = click.Path(path_type=Path)
    return click.option(f"--{form}-into", type=kind, metavar="FILE", help=help)


@click.command("plan")
@opt.selection_options
@opt.target_options
@opt.output_option(*PLAN_FORMATS)
@_into("json", "Write the JSON here too.")
@_into("markdown", "Write the Markdown of a comment here too.")
@_into("summary", "Write the Markdown of a job's summary, up to 1 MiB, here too.")
@click.option(
    "--budget",
    type=click.Choice([*BUDGETS]),
    default="comment",
    show_default=True,
    help="How large the Markdown may be: 60,000 characters, or 1 MiB.",
)
@click.option("--base", metavar="FILE|GIT_REF", help="Tell lock-only edits against the lock there.")
@click.option("--offline", is_flag=True, help="Recipes against the lock alone; nothing is sent.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 if there are changes.")
@click.option("--locked", is_flag=True, help="Refuse if a pin would be added or moved.")
@opt.upgrading
@opt.pruning
@opt.allowing
@opt.allowing_large
def plan_command(
    selection: Selection,
    wish: TargetOptions,
    form: str,
    json_into: Path | None,
    markdown_into: Path | None,
    summary_into: Path | None,
    budget: str,
    base: str | None,
    offline: bool,
    detailed_exitcode: bool,
    locked: bool,
    upgrade: tuple[str, ...],
    prune: bool,
    allow_empty: bool,
    allow_large: bool,
) -> int:
    """Show what apply would do for every recipe, and why. Nothing is written.

    PATHS are recipe files or folders; without any, the folder recipes/.
    """
    if offline and upgrade:
        raise UsageError("--upgrade asks the target, and --offline doesn't")
    room, copies = BUDGETS[budget], Copies(json_into, markdown_into, summary_into)
    try:
        copies.spare(selection)
        project = open_project(selection)
        options = options_of(project, upgrade=upgrade, prune=prune)
        before = base_lock(base, project.root) if base is not None else None
        planned, prices, advised = (
            _offline(project, wish, options) if offline else _asked(project, wish, options)
        )
        planned = _compared(planned, project, before)
    except InvalidInput as bad:
        copies.write(partial(_invalid, bad))
        click.echo(_invalid(bad, form, room), nl=False)
        raise
    allowed = opt.allowed(allow_empty=allow_empty, allow_large=allow_large)
    whole = json_into.name if json_into else WHOLE
    next_step = f"compose apply{wish.flags}"
    view = PlanView(planned, allowed, prices, advised, next_step, whole, room)
    copies.write(lambda form, room: PLAN_FORMATS[form](replace(view, budget=room)))
    if form == "text":
        emit(lambda color: PLAN_FORMATS["text"](replace(view, color=color)))
    else:
        click.echo(PLAN_FORMATS[form](view), nl=False)
    if locked:
        check_locked(planned)
    if planned.blocked:
        return BLOCKED
    return CHANGES if detailed_exitcode and planned.changes else 0


def _asked(project: Project, wish: TargetOptions, options: Options) -> _Asked:
    with open_target(project, wish, run_jobs=False) as target:
        planned = looked_at(project, target, options)
        return planned, _prices(planned, target), advice(planned, target)


def _prices(planned: Plan, target: Target) -> dict[str, float]:
    """What the trainings of models that exist would cost, by recipe; a remote target knows."""
    prices = {}
    for action in planned.changes if target.remote else ():
        if action.model is not None and action.content is not None and action.model.untrained:
            price = target.price(action.model.id, action.content.training)
            if price is not None:
                prices[action.path] = price
    return prices


def _offline(project: Project, wish: TargetOptions, options: Options) -> _Asked:
    key, reason = offline_choice(wish, project.lock.targets, os.environ)
    click.echo(f"Target: {visible(key)} ({reason}), not asked: --offline\n", err=True)
    return plan_offline(project.recipes, project.lock.target(key), key, options), {}, {}


def _compared(planned: Plan, project: Project, base: Base | None) -> Plan:
    """The plan with what every target's part of the lock says otherwise than the base's."""
    edits, notes = [MARKERS] if project.lock.conflicted else [], planned.notes
    if base is not None and base.flaw:
        edits.append(unreadable(base.flaw))
    elif base is not None:
        news = lock_news(project.recipes, base.lock, project.lock, planned.target)
        edits, notes = [*edits, *news.edits], (*notes, *news.notes)
    return replace(planned, lock_edits=tuple(edits), notes=notes)


def _invalid(bad: InvalidInput, form: str, budget: Budget) -> str:
    """What is wrong with recipes or lock, where a review looks; stderr has it as text besides."""
    hint = visible(bad.hint or "")
    unread = Problem(LOCK, 0, 0, plan_findings.UNREADABLE, visible(bad.message), hint)
    found = bad.problems or (unread,)
    if form == "github":
        return f"{problems.github(found)}\n"
    if form == "sarif":
        return problems.sarif(found, plan_findings.RULES)
    if form == "markdown":
        return problems.markdown(found, files=bad.files, budget=budget)
    return ""
