"""`compose models`: what the target has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.project import open_project, open_target
from composer.cli.selection import output_option, path_argument
from composer.cli.terminal import emit
from composer.output import results
from composer.text import visible

if TYPE_CHECKING:
    from composer.cli.options import TargetOptions
    from composer.project import Selection


def _known(context: click.Context, parameter: click.Parameter, type: str | None) -> str | None:
    from composer.lora import families

    types = [*sorted(families.lora_types()), *sorted(families.composition_types())]
    if type is not None and type not in types:
        raise click.BadParameter(f"{visible(type)!r} is not one of {', '.join(map(repr, types))}")
    return type


@click.command("models")
@path_argument
@opt.target_options
@click.option("--type", "type_", metavar="TYPE", callback=_known, help="Only models of this type.")
@output_option("text", "json")
def models_command(
    selection: Selection, target_options: TargetOptions, type_: str | None, output_format: str
) -> int:
    """List the LoRAs and compositions on the target, newest first.

    \b
    Examples:
      compose models
      compose models --type flux.1-lora -o json

    PATHS choose the project, by default that of the current folder; they don't filter the list.
    """
    project = open_project(selection)
    with open_target(project, target_options, run_jobs=False) as target:
        listed, rejected = target.list_models(*([type_] if type_ else [])), target.rejected
    if output_format == "json":
        click.echo(results.models_json(listed, rejected=rejected), nl=False)
    else:
        emit(lambda color: results.models(listed, rejected=rejected, color=color))
    return 0
