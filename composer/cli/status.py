"""`compose status`: whether recipes, lock and target agree, and how each model is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.project import files_of, open_project, open_target
from composer.cli.selection import output_option, selection_options
from composer.cli.terminal import emit, suggest
from composer.errors import ExitStatus
from composer.output import results
from composer.targets.base import KeepsResults
from composer.text import visible

if TYPE_CHECKING:
    from composer.cli.options import TargetOptions
    from composer.project import Selection


@click.command("status")
@selection_options
@opt.target_options
@output_option("text", "json")
@click.option(
    "--detailed-exitcode",
    is_flag=True,
    help="Exit 2 if a composition was changed or deleted on the target.",
)
def status_command(
    selection: Selection, target_options: TargetOptions, output_format: str, detailed_exitcode: bool
) -> int:
    """Show whether each recipe matches the lock and the target.

    \b
    Examples:
      compose status
      compose status --target local --detailed-exitcode

    Changes nothing.

    PATHS are recipe files or folders. The default is the folder recipes/.
    """
    project = open_project(selection)
    with open_target(project, target_options, run_jobs=False) as target:
        plan = project.status(target).plan
        size = target.size() if isinstance(target, KeepsResults) else 0
        ids = map(results.composition_of, plan.actions) if output_format == "json" else ()
        files = files_of(project, target, filter(None, ids))
    if output_format == "json":
        click.echo(results.status_json(plan, files=files), nl=False)
    else:
        sizes = [f"results: {size / 1e6:,.1f} MB in {visible(str(project.state))}"] if size else []
        footer = [*results.drift(plan), *sizes]
        emit(lambda color: results.status(plan, footer=footer, color=color))
        if not footer[: -len(sizes) or None] and results.differs(plan):
            suggest("compose plan shows what an apply would do")
    drifted = any(action.explanation.drift for action in plan.actions)
    return ExitStatus.PENDING if detailed_exitcode and drifted else 0
