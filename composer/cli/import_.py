"""`compose import`: recipes and lock entries for compositions that exist on the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.project import open_project, open_target
from composer.errors import ExitStatus, UsageError
from composer.text import visible

if TYPE_CHECKING:
    from composer.cli.options import TargetOptions
    from composer.project.importing import Imported


@click.command("import")
@click.argument("ids", nargs=-1, metavar="[MODEL_ID]...")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Import every composition that the lock does not name.",
)
@opt.target_options
@opt.writing_options
def import_command(
    ids: tuple[str, ...],
    everything: bool,
    target_options: TargetOptions,
    writing: opt.Writing,
) -> int:
    """Write recipes and lock entries for compositions that exist on the target.

    \b
    Examples:
      compose import MODEL_ID
      compose import --all --dry-run

    Writes to recipes/. Skips a composition that a recipe can't express, says why, and exits 1.
    """
    if ids and everything:
        raise UsageError("ids can't be used with --all", hint="leave out one of the two")
    if not ids and not everything:
        raise UsageError("no ids are given", hint="compose models lists them; --all imports all")
    project = open_project(may_be_empty=True)
    with (
        writing.exclusive(project),
        open_target(project, target_options, run_jobs=False, dry_run=writing.dry_run) as target,
    ):
        imported = project.import_models(
            target, None if everything else ids, dry_run=writing.dry_run
        )
    if not imported:
        click.echo("Nothing to import.", err=True)
    for one in imported:
        click.echo(_line(one), err=not one.path)
    return ExitStatus.FAILED if any(one.skipped for one in imported) else 0


def _line(one: Imported) -> str:
    name, reason = visible(one.name), visible(one.reason)
    if one.path:
        return f"+ {one.path}  {one.id}  {name}"
    if one.skipped:
        return f"skipped {one.id} ({name}): {reason}" if name else f"skipped {one.id}: {reason}"
    return f"= {one.id}  {name}: {reason}"
