"""`compose output`: a recipe's model id, or how to use it; no target is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli import suggestions
from composer.cli.project import chosen_key, open_project
from composer.cli.selection import output_option
from composer.cli.terminal import emit, suggest
from composer.errors import ExitStatus, UsageError
from composer.lock import plain_content
from composer.output import results
from composer.output.style import dumped

if TYPE_CHECKING:
    from composer.cli.options import TargetOptions


@click.command("output")
@click.argument("recipe", required=False, shell_complete=suggestions.recipes)
@click.option(
    "--usage",
    metavar="PROGRAM",
    shell_complete=suggestions.programs,
    help="Print how to make an image with the model, as a text to paste. The local target knows"
    " diffusers, comfyui, a1111, fal and replicate, the Scenario API scenario.",
)
@opt.target_options
@output_option("text", "json")
def output_command(
    recipe: str | None, usage: str | None, target_options: TargetOptions, output_format: str
) -> int:
    """Print the model id of a recipe, or how to use it.

    \b
    Examples:
      compose output "Pixel Rogue" --usage diffusers
      compose output -o json

    RECIPE is a recipe's path or the name of its model. Without it, the names and ids of all
    recipes are printed.
    """
    project = open_project()
    key = chosen_key(project, target_options)
    if recipe is None:
        if usage:
            raise UsageError("--usage needs a recipe", hint="compose output lists their names")
        ids = dict(sorted(project.outputs(key).items()))
        if output_format == "json":
            click.echo(dumped(ids), nl=False)
        else:
            emit(lambda color: results.outputs(ids, color=color))
            if not ids:
                suggest("compose apply makes the models of the recipes")
        return ExitStatus.DONE
    entry = project.output(key, recipe)
    text = project.usage(key, recipe, usage) if usage else f"{entry.composition}\n"
    if output_format == "json":
        assert entry.content is not None
        content = plain_content(entry.content)
        plain = {"name": entry.name, "id": entry.composition, "content": content}
        click.echo(dumped({**plain, **({"usage": text} if usage else {})}), nl=False)
    else:
        click.echo(text, nl=False)
    return ExitStatus.DONE
