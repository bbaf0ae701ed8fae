"""`compose output`: a recipe's model id, and how to use it; from the lock alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.project import chosen_key, open_project
from composer.cli.selection import output_option
from composer.errors import ExitStatus
from composer.lock import plain_content
from composer.output import results
from composer.output.style import aligned, dumped
from composer.targets.registry import kind_of_key
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from composer.cli.options import TargetOptions


@click.command("output")
@click.argument("recipe", required=False)
@opt.target_options
@output_option("text", "json")
def output_command(recipe: str | None, target_options: TargetOptions, output_format: str) -> int:
    """Print the model id of a recipe, its concepts, and how to generate an image with it.

    \b
    Examples:
      compose output "Pixel Rogue"
      compose output -o json

    RECIPE is a recipe's path or the name of its model. Without it, the names and ids of all
    recipes are printed.
    """
    project = open_project()
    key = chosen_key(project, target_options)
    if recipe is None:
        ids = dict(sorted(project.outputs(key).items()))
        click.echo(dumped(ids) if output_format == "json" else _table(ids), nl=False)
        return ExitStatus.DONE
    entry = project.output(key, recipe)
    if output_format == "json":
        assert entry.content is not None
        content = plain_content(entry.content)
        plain = {"name": entry.name, "id": entry.composition, "content": content}
        click.echo(dumped(plain), nl=False)
    else:
        use = kind_of_key(key).usage(key, entry.composition or "", project.state)
        click.echo(results.output(entry, use=use), nl=False)
    return ExitStatus.DONE


def _table(ids: Mapping[str, str]) -> str:
    return "".join(
        f"{line}\n" for line in aligned([[id, visible(name)] for name, id in ids.items()])
    )
