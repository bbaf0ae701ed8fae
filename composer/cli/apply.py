"""`compose apply`: make the target what the recipes say."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.project import files_of, open_project, open_target
from composer.cli.selection import change_selection_options, output_option
from composer.cli.signals import graceful
from composer.cli.terminal import Progress, emit, is_live, suggest, tell
from composer.errors import ExitStatus
from composer.output import results
from composer.output.plan_formats import PLAN_FORMATS
from composer.text import visible

if TYPE_CHECKING:
    from composer.cli.options import TargetOptions
    from composer.project import ApplyOptions, Project, Selection
    from composer.project.planning import ReviewedPlan


@click.command("apply")
@change_selection_options
@opt.applying_target_options
@output_option("text", "json")
@opt.apply_options
@opt.list_all
@opt.dry_running
def apply_command(
    selection: Selection,
    target_options: TargetOptions,
    output_format: str,
    options: ApplyOptions,
    list_all: bool,
    dry_run: bool,
) -> int:
    """Create, train and update compositions until the target matches the recipes.

    \b
    Examples:
      compose apply
      compose apply recipes/pixel-rogue.yaml --expect plan.json

    Writes the ids to compose.lock. Run it again and nothing changes.

    PATHS are recipe files or folders. The default is the folder recipes/.
    """
    project = open_project(selection)
    options = project.options(options)
    if dry_run:
        return _only_shown(project, target_options, options, output_format, list_all=list_all)
    with (
        project.exclusive(options.lock_timeout),
        graceful() as interruption,
        open_target(
            project,
            target_options,
            run_jobs=True,
            parallelism=options.parallelism,
            sleep=interruption.sleep,
        ) as target,
        Progress() as progress,
    ):
        report = project.apply(
            target,
            options=options,
            on_plan=partial(_show_before, progress=progress, list_all=list_all),
            on_step=progress.say,
            stop=interruption.event,
        )
        shown = results.ids_of(report) if output_format == "json" else results.made_ids(report)
        files = files_of(project, target, shown)
    if output_format == "json":
        click.echo(results.report_json(report, files=files), nl=False)
    else:
        brief = progress.is_many and not list_all and is_live(sys.stdout)
        emit(lambda color: results.report(report, files=files, color=color, brief=brief))
        in_git = (project.root / ".git").exists()
        if step := results.after_apply(report, files=files, in_git=in_git):
            suggest(step)
    return interruption.status(report.exit_status)


def _only_shown(
    project: Project,
    target_options: TargetOptions,
    options: ApplyOptions,
    output_format: str,
    *,
    list_all: bool,
) -> int:
    with open_target(project, target_options, run_jobs=False, dry_run=True) as target:
        plan = project.plan(target, options, advise=False)
    if output_format == "json":
        click.echo(plan.to_json(), nl=False)
    else:
        view = replace(plan.without_guards(), list_all=list_all)
        emit(lambda color: PLAN_FORMATS["text"](replace(view, color=color)))
    plan.plan.guard(options.allowed)
    plan.check(options)
    return ExitStatus.FAILED if plan.blocked else 0


def _show_before(plan: ReviewedPlan, *, progress: Progress, list_all: bool) -> None:
    """The plan on stderr if anything happens or is refused, else only what a reader should know.

    Many changes are counted: the report has a line for each.
    """
    progress.begin(plan.actions)
    if list_all or plan.changes or plan.blocked or plan.refused:
        counts_only = progress.is_many and not list_all
        view = replace(plan.without_guards(), list_all=list_all, counts_only=counts_only)
        emit(lambda color: PLAN_FORMATS["text"](replace(view, color=color)) + "\n", err=True)
        return
    for action in plan.actions:
        for note in action.notes:
            tell(f"note: {visible(action.name)}: {visible(note)}", err=True)
