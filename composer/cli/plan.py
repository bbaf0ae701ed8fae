"""`compose plan`: what apply would do, and why, in every format that a review needs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli import suggestions
from composer.cli.plan_copies import copy_options
from composer.cli.project import offline_target, open_project, open_target
from composer.cli.selection import change_selection_options, output_option
from composer.cli.terminal import emit
from composer.errors import ExitStatus, InvalidInput, UsageError
from composer.lock import read_conflicted, read_lock
from composer.output.markdown import BUDGETS
from composer.output.plan_formats import PLAN_FORMATS, invalid
from composer.output.plan_view import WHOLE

if TYPE_CHECKING:
    from composer.cli.options import TargetOptions
    from composer.cli.plan_copies import Copies
    from composer.project import PlanOptions, Project, Selection
    from composer.project.planning import ReviewedPlan


@click.command("plan")
@change_selection_options
@opt.target_options
@output_option(*PLAN_FORMATS)
@copy_options
@click.option(
    "--markdown-size",
    "budget",
    type=click.Choice([*BUDGETS]),
    default="comment",
    show_default=True,
    help="Size limit of -o markdown: comment (60,000 characters) or summary (1 MiB).",
)
@click.option(
    "--base",
    metavar="FILE|GIT_REF",
    shell_complete=suggestions.any_file,
    help="Compare the lock with an earlier one: a lock file or a git revision. Reports ids that "
    "changed while their recipe stayed the same.",
)
@click.option(
    "--offline",
    is_flag=True,
    help="Compare recipes with the lock only. Don't contact the target.",
)
@click.option("--detailed-exitcode", is_flag=True, help="Exit 2 if there are changes.")
@opt.list_all
@opt.plan_options
def plan_command(
    selection: Selection,
    target_options: TargetOptions,
    output_format: str,
    copies: Copies,
    budget: str,
    base: str | None,
    offline: bool,
    detailed_exitcode: bool,
    list_all: bool,
    options: PlanOptions,
) -> int:
    """Show what apply would do for every recipe, and why.

    \b
    Examples:
      compose plan
      compose plan recipes/pixel-rogue.yaml --json-into plan.json

    Changes nothing on the target or in the lock.

    PATHS are recipe files or folders. The default is the folder recipes/.
    """
    if offline and options.upgrade:
        raise UsageError(
            "--upgrade can't be used with --offline",
            hint="--upgrade asks the target for LoRAs: leave out --offline",
        )
    try:
        copies.check(selection)
        project = open_project(selection, read=read_lock if base is None else read_conflicted)
        plan = _planned(project, target_options, options, base, offline=offline)
    except InvalidInput as bad:
        # A plan.json would hold no plan, so none is written.
        shown = partial(invalid, bad)
        copies.write(lambda name, size: "" if name == "json" else shown(name, size))
        click.echo(shown(output_format, BUDGETS[budget]), nl=False)
        raise
    whole = copies.json.name if copies.json else WHOLE
    next_step = f"compose apply{target_options.flags}"
    view = replace(
        plan, next_step=next_step, whole=whole, budget=BUDGETS[budget], list_all=list_all
    )
    _print(view, copies, output_format)
    plan.check(options)
    if plan.blocked:
        return ExitStatus.FAILED
    return ExitStatus.PENDING if detailed_exitcode and plan.changes else 0


def _print(view: ReviewedPlan, copies: Copies, output_format: str) -> None:
    copies.write(lambda name, budget: PLAN_FORMATS[name](replace(view, budget=budget)))
    if output_format == "text":
        emit(lambda color: PLAN_FORMATS["text"](replace(view, color=color)))
    else:
        click.echo(PLAN_FORMATS[output_format](view), nl=False)


def _planned(
    project: Project,
    target_options: TargetOptions,
    options: PlanOptions,
    base: str | None,
    *,
    offline: bool,
) -> ReviewedPlan:
    if offline:
        key = offline_target(project, target_options)
        click.echo(err=True)
        return project.plan_offline(key, options, base=base)
    with open_target(project, target_options, run_jobs=False) as target:
        return project.plan(target, options, base=base)
