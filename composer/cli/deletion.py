"""`compose forget`, `prune` and `destroy`: taking out of the lock, and deleting on the target."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.project import chosen_key, open_local, open_project, open_target
from composer.cli.terminal import Progress, emit
from composer.errors import UsageError
from composer.output import results
from composer.output.plan_text import text
from composer.project import PlanOptions
from composer.text import visible

if TYPE_CHECKING:
    from composer.cli.options import TargetOptions
    from composer.planner import Report
    from composer.project import ReviewedPlan, Selection


@click.command("forget")
@click.argument("what", nargs=-1, required=True)
@opt.target_options
@opt.dry_running
@opt.lock_timeout
def forget_command(
    what: tuple[str, ...], target_options: TargetOptions, dry_run: bool, lock_timeout: float
) -> int:
    """Remove recipes or single ids from compose.lock, without deleting anything.

    \b
    Examples:
      compose forget "Pixel Rogue"
      compose forget model_eyVcnFJcR92BxBkz7N6g5w --dry-run

    WHAT is a recipe's path, the name of its model, or an id.
    """
    project = open_project()
    key = chosen_key(project, target_options)
    with nullcontext() if dry_run else project.exclusive(lock_timeout):
        forgotten = project.forget(key, *what, dry_run=dry_run)
    for one in forgotten:
        id = f"{one.id} of " if one.id else ""
        click.echo(f"forget {id}{visible(one.name)} ({visible(one.path)})")
    return 0


@click.command("destroy")
@click.argument("what", nargs=-1)
@click.option(
    "--all", "everything", is_flag=True, help="Delete the compositions of all recipes in the lock."
)
@opt.target_options
@opt.dry_running
@opt.allow_large_change
@opt.lock_timeout
def destroy_command(
    what: tuple[str, ...],
    everything: bool,
    target_options: TargetOptions,
    dry_run: bool,
    allow_large_change: bool,
    lock_timeout: float,
) -> int:
    """Delete the compositions of recipes on the target, earlier ones included.

    \b
    Examples:
      compose destroy "Pixel Rogue" --dry-run
      compose destroy --all

    WHAT is a recipe's path, the name of its model, or the id of a composition that no lock
    entry names; compose doctor lists those.

    Only what compose created is deleted, and nothing that is protected.
    """
    if bool(what) == everything:
        raise UsageError("name recipes, or give --all, one of the two")
    project = open_project()
    options = PlanOptions(allow_empty=True, allow_large_change=allow_large_change)
    with (
        nullcontext() if dry_run else project.exclusive(lock_timeout),
        open_target(project, target_options, run_jobs=not dry_run) as target,
        Progress() as progress,
    ):
        report = project.destroy(
            target,
            None if everything else what,
            options,
            dry_run=dry_run,
            on_plan=_Shown(dry_run=dry_run),
            on_step=progress.say,
        )
    return _finish(report)


@click.command("prune")
@opt.selection_options
@opt.target_options
@click.option(
    "--local",
    is_flag=True,
    help="Delete the local results that no lock entry names, and nothing else.",
)
@opt.dry_running
@opt.allow_empty
@opt.allow_large_change
@opt.lock_timeout
def prune_command(
    selection: Selection,
    target_options: TargetOptions,
    local: bool,
    dry_run: bool,
    allow_empty: bool,
    allow_large_change: bool,
    lock_timeout: float,
) -> int:
    """Delete earlier compositions, and those whose recipe file is gone.

    \b
    Examples:
      compose prune --dry-run
      compose prune --local

    Only what compose created is deleted, and nothing that is protected.

    PATHS are recipe files or folders. The default is the folder recipes/.
    """
    project = open_project(selection)
    options = PlanOptions(allow_empty=allow_empty, allow_large_change=allow_large_change)
    with nullcontext() if dry_run else project.exclusive(lock_timeout):
        if local:
            with open_local(project, target_options, run_jobs=not dry_run) as target:
                freed = project.prune_local(target, dry_run=dry_run)
            would = "would free" if dry_run else "freed"
            click.echo(f"{would} {len(freed)}: {', '.join(freed) or '-'}")
            return 0
        with (
            open_target(project, target_options, run_jobs=not dry_run) as target,
            Progress() as progress,
        ):
            report = project.prune(
                target,
                options,
                dry_run=dry_run,
                on_plan=_Shown(dry_run=dry_run),
                on_step=progress.say,
            )
    return _finish(report)


class _Shown:
    """Shows a dry run's plan, and says where there is nothing to delete."""

    def __init__(self, *, dry_run: bool) -> None:
        self.dry_run = dry_run

    def __call__(self, plan: ReviewedPlan) -> None:
        if self.dry_run and (plan.actions or plan.refused):
            emit(lambda color: text(replace(plan, color=color)))
        elif not plan.actions and not plan.refused:
            click.echo("Nothing to delete.")


def _finish(report: Report) -> int:
    if report.outcomes:
        emit(lambda color: results.report(report, color=color))
    return report.exit_status
