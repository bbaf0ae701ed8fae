"""`compose schema` and `compose completion`: texts for editors and shells."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from composer.cli.completion import SHELLS, script
from composer.cli.project import open_project
from composer.cli.selection import library_option
from composer.errors import UsageError
from composer.files.schemas import schema
from composer.recipes.schema import with_names as recipe_schema_with

if TYPE_CHECKING:
    from pathlib import Path

SCHEMAS = (
    *("recipe", "lock", "plan", "outcomes", "status", "models", "inspect"),
    *("problems", "pins", "repair", "doctor", "merge", "import", "pull", "forget", "deletions"),
    *("report", "init", "settings", "preview", "promotion"),
)


@click.command("schema")
@click.argument("name", type=click.Choice(SCHEMAS), metavar="NAME")
@click.option(
    "--with-names",
    is_flag=True,
    help="For recipe: let editors offer the names of the library's LoRAs, or those in the lock.",
)
@library_option
def schema_command(name: str, with_names: bool, library: Path | str | None) -> int:
    """Print the JSON Schema of a recipe, the lock, the settings, or a command's JSON output.

    \b
    Examples:
      compose schema recipe --with-names
      compose schema plan

    \b
    NAME is one of:
      recipe     a recipe file
      lock       compose.lock
      plan       plan -o json
      outcomes   apply -o json
      status     status -o json
      models     models -o json
      inspect    inspect -o json
      problems   validate -o json
      pins       lock -o json
      repair     lock --repair -o json
      doctor     doctor -o json
      merge      merge --json-into
      import     import -o json
      pull       pull --output json
      forget     forget -o json
      deletions  prune -o json, and destroy -o json
      report     report -o json
      init       init -o json
      settings   compose.toml
      preview    preview -o json, and sweep -o json
      promotion  sweep --promote -o json
    """
    if with_names or library is not None:
        if name != "recipe" or not with_names:
            wrong = "--library" if name == "recipe" else "--with-names"
            raise UsageError(
                f"{wrong} is for compose schema recipe --with-names", hint=f"leave out {wrong}"
            )
        project = open_project(may_be_empty=True, check=False)
        names = project.lora_names(library, os.environ)
        click.echo(recipe_schema_with(names), nl=False)
    else:
        click.echo(schema(name), nl=False)
    return 0


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(shell: str) -> int:
    """Print a shell completion script.

    \b
    Examples:
      compose completion zsh
      eval "$(compose completion bash)"
    """
    click.echo(script(shell), nl=False)
    return 0
