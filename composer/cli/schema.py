"""`compose schema` and `compose completion`: texts for editors and shells."""

from __future__ import annotations

import click

from composer.cli.completion import SHELLS, script
from composer.files.schemas import schema

SCHEMAS = (
    *("recipe", "lock", "plan", "outcomes", "status", "models", "inspect"),
    *("problems", "pins", "repair", "doctor", "merge", "import", "init", "settings"),
)


@click.command("schema")
@click.argument("name", type=click.Choice(SCHEMAS), metavar="NAME")
def schema_command(name: str) -> int:
    """Print the JSON Schema of a recipe, the lock, the settings, or a command's JSON output.

    \b
    Examples:
      compose schema recipe
      compose schema plan

    \b
    NAME is one of:
      recipe    a recipe file
      lock      compose.lock
      plan      plan -o json
      outcomes  apply -o json
      status    status -o json
      models    models -o json
      inspect   inspect -o json
      problems  validate -o json
      pins      lock -o json
      repair    lock --repair -o json
      doctor    doctor -o json
      merge     merge --json-into
      import    import -o json
      init      init -o json
      settings  compose.toml
    """
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
