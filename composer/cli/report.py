"""`compose report`: the whole project as pages to look at and to pass on."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli import suggestions
from composer.cli.extras import needing
from composer.cli.project import offline_target, open_project, open_target
from composer.cli.selection import output_option
from composer.cli.terminal import Meter, emit, suggest
from composer.output import gallery_summary as render
from composer.text import visible

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from composer.cli.options import TargetOptions
    from composer.targets.base import Target


@click.command("report")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    shell_complete=suggestions.any_file,
    help="Folder for the pages. It is created, or has the pages of an earlier report.",
)
@click.option(
    "--offline",
    is_flag=True,
    help="Show only what recipes and lock say. Don't contact the target.",
)
@click.option(
    "--no-compare",
    is_flag=True,
    help="Leave out how the LoRAs of each mix interact, which takes long the first time.",
)
@opt.target_options
@output_option("text", "json")
@opt.dry_running
def report_command(
    out: Path,
    offline: bool,
    no_compare: bool,
    target_options: TargetOptions,
    output_format: str,
    dry_run: bool,
) -> int:
    """Write web pages that show all compositions of the project.

    \b
    Examples:
      compose report --out site
      compose report --out site --offline

    A gallery with search, a page for each composition (its images, its mix, how to use it, the
    commits that changed its recipe) and a page for each LoRA. Images are those that compose
    preview and compose sweep have made. The pages need no server and load nothing from the
    network. A later run writes only what has changed.
    """
    with needing("the pages need", "preview"):
        from composer.project import publishing as publishing
    project = open_project()
    opened: AbstractContextManager[Target | str]
    if offline:
        opened = nullcontext(offline_target(project, target_options))
    else:
        opened = open_target(project, target_options, run_jobs=False, dry_run=dry_run)
    with opened as target, Meter("writing pages") as meter:
        report = project.report(target, compare=not no_compare)
        written = project.write_report(report, out, dry_run=dry_run, progress=meter.say)
    if output_format == "json":
        click.echo(render.as_json(report, written, dry_run=dry_run), nl=False)
        return 0
    emit(lambda color: render.text(report, written, dry_run=dry_run, color=color))
    if not dry_run:
        suggest(f"open {visible(written.index)} in a browser")
    return 0
