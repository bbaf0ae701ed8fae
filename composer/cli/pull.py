"""`compose pull`: a recipe's trained result, as a file where the user wants it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli import suggestions
from composer.cli.project import LOCAL, chosen_key, open_local, open_project
from composer.cli.terminal import Meter, emit
from composer.errors import UsageError, gravest
from composer.output import pull as render
from composer.project.pulling import COMFYUI
from composer.text import visible

if TYPE_CHECKING:
    from composer.cli.options import TargetOptions


@click.command("pull")
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...", shell_complete=suggestions.recipes)
@click.option(
    "-o",
    "--out",
    metavar="FILE|DIR",
    shell_complete=suggestions.any_file,
    help="A .safetensors file, or a folder. End the path with / to create the folder.",
)
@click.option(
    "--to",
    "program",
    type=click.Choice([COMFYUI]),
    help="Write to the folder models/loras of ComfyUI instead [env: COMFYUI_PATH].",
)
@click.option("--force", is_flag=True, help="Replace files whose contents differ.")
@opt.target_options
@click.option(
    "--output",
    "output_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Output format. Here -o means --out.",
)
@opt.dry_running
def pull_command(
    recipes: tuple[str, ...],
    out: str | None,
    program: str | None,
    force: bool,
    target_options: TargetOptions,
    output_format: str,
    dry_run: bool,
) -> int:
    """Write the trained results of recipes to files.

    \b
    Examples:
      compose pull "Pixel Rogue" -o rogue.safetensors
      compose pull -o models/

    RECIPE is a recipe's path or the name of its model. The default is all recipes. In a folder,
    each file is named after its model, as pixel-rogue.safetensors.

    --to comfyui finds ComfyUI by COMFYUI_PATH, else by a library in a folder models/loras, else in
    the usual places.

    Works with the local target only. The file may be a hard link to the stored result: don't edit
    it, as that would change the stored result too.
    """
    _check_place(out, program)
    project = open_project()
    key = chosen_key(project, target_options)
    if key != LOCAL:
        raise UsageError(
            f"pull works with the local target only, not with {visible(key)}",
            hint="give --target local, or download the model as that target documents it",
        )
    if program:
        folder = project.lora_folder(program, os.environ, library=target_options.library)
        out = f"{folder}{os.sep}"
    assert out is not None
    with (
        open_local(project, target_options, run_jobs=False, dry_run=dry_run) as target,
        Meter("writing results") as meter,
    ):
        pulled = project.pull(
            target, out, *recipes, force=force, dry_run=dry_run, progress=meter.say
        )
    if output_format == "json":
        click.echo(render.as_json(pulled, dry_run=dry_run), nl=False)
    else:
        emit(lambda color: render.text(pulled, color=color))
    return gravest(one.exit_status for one in pulled)


def _check_place(out: str | None, program: str | None) -> None:
    """Raise `UsageError` unless either a place or a program is named."""
    if (out is None) == (program is None):
        problem = (
            "-o can't be used with --to" if out else "Missing option '-o' / '--out', or '--to'"
        )
        raise UsageError(problem, hint="say where to: -o FILE, -o DIR/ or --to comfyui")
