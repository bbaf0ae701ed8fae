"""`compose forget`, `prune` and `destroy`: taking out of the lock, and deleting on the target."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli import suggestions
from composer.cli.project import chosen_key, open_local, open_project, open_target
from composer.cli.selection import selection_options
from composer.cli.terminal import Progress, emit, tell
from composer.errors import ExitStatus, Refused, UsageError
from composer.output import results
from composer.output.plan_text import text
from composer.project import PlanOptions
from composer.text import counted, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.cli.options import TargetOptions
    from composer.planner import Report
    from composer.project import ReviewedPlan, Selection


@click.command("forget")
@click.argument("what", nargs=-1, required=True, shell_complete=suggestions.recipes)
@opt.target_options
@opt.writing_options
def forget_command(
    what: tuple[str, ...], target_options: TargetOptions, writing: opt.Writing
) -> int:
    """Remove recipes or ids from the lock, without deleting anything.

    \b
    Examples:
      compose forget "Pixel Rogue"
      compose forget MODEL_ID --dry-run

    WHAT is a recipe's path, the name of its model, or an id.
    """
    project = open_project()
    key = chosen_key(project, target_options)
    with writing.exclusive(project):
        forgotten = project.forget(key, *what, dry_run=writing.dry_run)
    for one in forgotten:
        id = f"{one.id} of " if one.id else ""
        tell(f"forget {id}{visible(one.name)} ({visible(one.path)})")
    return 0


_yes = click.option("--yes", "-y", is_flag=True, help="Delete without asking.")


@click.command("destroy")
@click.argument("what", nargs=-1, shell_complete=suggestions.recipes)
@click.option(
    "--all", "everything", is_flag=True, help="Delete the compositions of all recipes in the lock."
)
@opt.target_options
@_yes
@opt.writing_options
@opt.allow_large_change
def destroy_command(
    what: tuple[str, ...],
    everything: bool,
    target_options: TargetOptions,
    yes: bool,
    writing: opt.Writing,
    allow_large_change: bool,
) -> int:
    """Delete what recipes made on the target, earlier compositions too.

    \b
    Examples:
      compose destroy "Pixel Rogue" --dry-run
      compose destroy --all

    WHAT is a recipe's path, the name of its model, or the id of an orphan (compose doctor lists
    them). Deletes only unprotected models that compose created. Lists them and asks first; where
    nobody can be asked, it needs --yes.
    """
    if what and everything:
        raise UsageError("recipes can't be used with --all", hint="leave out one of the two")
    if not what and not everything:
        raise UsageError(
            "no recipes are given", hint="compose status lists them; --all deletes those of all"
        )
    project = open_project()
    options = PlanOptions(allow_empty=True, allow_large_change=allow_large_change)
    with (
        writing.exclusive(project),
        open_target(project, target_options, run_jobs=True, dry_run=writing.dry_run) as target,
        Progress() as progress,
    ):
        report = project.destroy(
            target,
            None if everything else what,
            options,
            dry_run=writing.dry_run,
            on_plan=partial(_show, progress=progress, dry_run=writing.dry_run, yes=yes),
            on_step=progress.say,
        )
    return _finish(report, dry_run=writing.dry_run)


@click.command("prune")
@selection_options
@opt.target_options
@click.option(
    "--local",
    is_flag=True,
    help="Delete only local compositions that the lock doesn't name. Takes no PATHS.",
)
@_yes
@opt.writing_options
@opt.guard_options
def prune_command(
    selection: Selection,
    target_options: TargetOptions,
    local: bool,
    yes: bool,
    writing: opt.Writing,
    options: PlanOptions,
) -> int:
    """Delete compositions that were replaced or whose recipe file was deleted.

    \b
    Examples:
      compose prune --dry-run
      compose prune --local

    Deletes only unprotected models that compose created. Lists them and asks first; where nobody
    can be asked, it needs --yes.

    PATHS are recipe files or folders. The default is the folder recipes/.
    """
    if local:
        allowed = ("local", "target", "library", "yes", "dry_run", "lock_timeout")
        opt.refuse_all_but("--local", *allowed)
    project, dry_run = open_project(selection), writing.dry_run
    with writing.exclusive(project):
        if local:
            with open_local(project, target_options, run_jobs=True, dry_run=dry_run) as target:
                if not dry_run:
                    _ask(project.prune_local(target, dry_run=True), yes=yes)
                return _print_freed(project.prune_local(target, dry_run=dry_run), dry_run=dry_run)
        with (
            open_target(project, target_options, run_jobs=True, dry_run=dry_run) as target,
            Progress() as progress,
        ):
            report = project.prune(
                target,
                options,
                dry_run=dry_run,
                on_plan=partial(_show, progress=progress, dry_run=dry_run, yes=yes),
                on_step=progress.say,
            )
    return _finish(report, dry_run=dry_run)


def _print_freed(ids: Sequence[str], *, dry_run: bool) -> int:
    if ids:
        verb = "Would delete" if dry_run else "Deleted"
        tell(f"{verb} {counted(len(ids), 'local result')}: {', '.join(ids)}.")
    else:
        tell("Nothing to delete.")
    return ExitStatus.DONE


def _show(plan: ReviewedPlan, *, progress: Progress, dry_run: bool, yes: bool) -> None:
    """The plan of a dry run, and before a person is asked; or that there is nothing to delete."""
    progress.begin(plan.actions)
    steps = [action.transition for action in plan.actions]
    ids = [id for step in steps for id in (*step.deletes, *step.deletes_untrained)]
    asking = bool(ids) and not yes and not plan.refused
    if plan.actions and (dry_run or asking):
        emit(lambda color: text(replace(plan.without_guards(), color=color)))
    elif not plan.actions and not plan.refused:
        tell("Nothing to delete.")
    if asking and not dry_run:
        _ask(ids, yes=yes)


def _ask(ids: Sequence[str], *, yes: bool) -> None:
    """Raise `Refused` unless the user wants these deleted, by `--yes` or by the answer."""
    if yes or not ids:
        return
    what = counted(len(ids), "model")
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused(
            f"nothing was deleted: {what} would be, and nobody can be asked",
            hint="give --yes to delete without asking; --dry-run lists what would go",
        )
    if not click.confirm(f"Delete {what} for good?", err=True):
        raise Refused("nothing was deleted", hint="--dry-run lists what would go")


def _finish(report: Report, *, dry_run: bool) -> int:
    if report.outcomes and not dry_run:  # a dry run's plan shows them already
        emit(lambda color: results.report(report, color=color))
    return report.exit_status
