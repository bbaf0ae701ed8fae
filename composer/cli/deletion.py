"""`compose forget`, `prune` and `destroy`: taking out of the lock, and deleting on the target."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli import suggestions
from composer.cli.project import (
    chosen_key,
    files_of,
    open_local,
    open_project,
    open_target,
)
from composer.cli.selection import output_option, selection_options
from composer.cli.terminal import Progress, emit, suggest, tell
from composer.errors import ExitStatus, Refused, UsageError
from composer.output import deletions as render
from composer.output import results
from composer.output.plan_text import text
from composer.project import PlanOptions
from composer.text import counted, listed, visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from composer.cli.options import TargetOptions
    from composer.planner import Report
    from composer.project import Project, ReviewedPlan, Selection
    from composer.targets.base import Target


@click.command("forget")
@click.argument("what", nargs=-1, required=True, shell_complete=suggestions.recipes)
@opt.target_options
@output_option("text", "json")
@opt.writing_options
def forget_command(
    what: tuple[str, ...], target_options: TargetOptions, output_format: str, writing: opt.Writing
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
    if output_format == "json":
        shown = render.forgotten_json(forgotten, target=key, dry_run=writing.dry_run)
        click.echo(shown, nl=False)
        return 0
    emit(lambda color: render.forgotten(forgotten))
    again = [one.path for one in forgotten if not one.id and (project.root / one.path).exists()]
    if again and not writing.dry_run:
        suggest(f"delete {visible(listed(again))}, or the next compose apply sees new recipes")
    return 0


_yes = click.option("--yes", "-y", is_flag=True, help="Delete without asking.")


@click.command("destroy")
@click.argument("what", nargs=-1, shell_complete=suggestions.recipes)
@click.option(
    "--all", "everything", is_flag=True, help="Delete the compositions of all recipes in the lock."
)
@opt.target_options
@output_option("text", "json")
@_yes
@opt.writing_options
@opt.allow_large_change
def destroy_command(
    what: tuple[str, ...],
    everything: bool,
    target_options: TargetOptions,
    output_format: str,
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
        run = _Run(project, target, progress, output_format, writing.dry_run, yes)
        report = project.destroy(
            target,
            None if everything else what,
            options,
            dry_run=writing.dry_run,
            on_plan=run.show,
            on_step=progress.say,
        )
    return run.finish(report)


@click.command("prune")
@selection_options
@opt.target_options
@click.option(
    "--local",
    is_flag=True,
    help="Delete only local compositions that the lock doesn't name. Takes no PATHS.",
)
@output_option("text", "json")
@_yes
@opt.writing_options
@opt.guard_options
def prune_command(
    selection: Selection,
    target_options: TargetOptions,
    local: bool,
    output_format: str,
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
        allowed = ("local", "target", "library", "output_format", "yes", "dry_run", "lock_timeout")
        opt.refuse_all_but("--local", *allowed)
    project, dry_run = open_project(selection), writing.dry_run
    with writing.exclusive(project):
        if local:
            with open_local(project, target_options, run_jobs=True, dry_run=dry_run) as target:
                ids = project.prune_local(target, dry_run=True)
                files = files_of(project, target, ids)
                if not dry_run:
                    _ask(ids, yes=yes)
                    ids = project.prune_local(target)
            return _print_freed(ids, files, output_format, dry_run=dry_run)
        with (
            open_target(project, target_options, run_jobs=True, dry_run=dry_run) as target,
            Progress() as progress,
        ):
            run = _Run(project, target, progress, output_format, dry_run, yes)
            report = project.prune(
                target, options, dry_run=dry_run, on_plan=run.show, on_step=progress.say
            )
    return run.finish(report)


def _print_freed(
    ids: Sequence[str], files: Mapping[str, str], output_format: str, *, dry_run: bool
) -> int:
    if output_format == "json":
        click.echo(render.freed_json(ids, files=files, dry_run=dry_run), nl=False)
    else:
        emit(lambda color: render.freed(ids, dry_run=dry_run))
    return ExitStatus.DONE


@dataclass
class _Run:
    """A deletion as it is shown: its plan, a question to a person, and what came of it."""

    project: Project
    target: Target
    progress: Progress
    output_format: str
    dry_run: bool
    yes: bool
    _files: Mapping[str, str] = field(default_factory=dict)

    def show(self, plan: ReviewedPlan) -> None:
        """The plan of a dry run, and before a person is asked; or that nothing is to delete."""
        self.progress.begin(plan.actions)
        ids = render.ids_to_delete(plan.plan)
        asking = bool(ids) and not self.yes and not plan.refused
        if self.output_format == "json":
            self._files = files_of(self.project, self.target, ids)
            if self.dry_run:
                click.echo(render.planned_json(plan.plan, files=self._files), nl=False)
        elif not plan.actions and not plan.refused:
            tell("Nothing to delete.")
        if plan.actions and (self.dry_run or asking) and not self._is_told(asking):
            err = self.output_format == "json"
            emit(lambda color: text(replace(plan.without_guards(), color=color)), err=err)
        if asking and not self.dry_run:
            _ask(ids, yes=self.yes)

    def _is_told(self, asking: bool) -> bool:
        """JSON has the plan of a dry run, and nobody is asked anything."""
        return self.output_format == "json" and (self.dry_run or not asking)

    def finish(self, report: Report) -> int:
        """What came of it; of a dry run the plan has told it."""
        if self.dry_run:
            return report.exit_status
        if self.output_format == "json":
            click.echo(render.report_json(report, files=self._files), nl=False)
        elif report.outcomes:
            emit(lambda color: results.report(report, color=color))
        return report.exit_status


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
