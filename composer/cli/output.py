"""`compose output`: a recipe's model id, and how to use it; from the lock alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.project import chosen_key, open_project
from composer.errors import ComposeError
from composer.lock import plain_content
from composer.output import results
from composer.output.style import aligned
from composer.project.sources import find_path, trained
from composer.targets.registry import kind_of_key
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from composer.cli.options import TargetOptions


@click.command("output")
@click.argument("recipe", required=False)
@opt.target_options
@opt.output_option("text", "json")
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
    entries = project.entries(key)
    if recipe is None:
        ids = trained(entries)
        click.echo(
            json.dumps(ids, indent=2, sort_keys=True) if output_format == "json" else _table(ids)
        )
        return 0
    entry = entries[find_path(entries, recipe)]
    if entry.composition is None or entry.content is None:
        raise ComposeError(f"{entry.name} has no trained model yet", hint="run compose apply")
    if output_format == "json":
        content = plain_content(entry.content)
        output = {"name": entry.name, "id": entry.composition, "content": content}
        click.echo(json.dumps(output, indent=2))
    else:
        use = kind_of_key(key).usage(key, entry.composition, project.state)
        click.echo(results.output(entry, use=use), nl=False)
    return 0


def _table(ids: Mapping[str, str]) -> str:
    return "\n".join(aligned([[id, visible(name)] for name, id in sorted(ids.items())]))
