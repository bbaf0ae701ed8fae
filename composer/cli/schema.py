"""`compose schema` and `compose completion`: texts for editors and shells."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from composer.cli.main import compose
from composer.errors import UsageError
from composer.files.schemas import schema

SCHEMAS = (
    *("recipe", "lock", "plan", "outcomes", "status", "models", "inspect"),
    *("problems", "pins", "repair", "doctor", "merge"),
)
SHELLS = ("bash", "zsh", "fish")


@click.command("schema")
@click.argument("name", type=click.Choice(SCHEMAS))
def schema_command(name: str) -> int:
    """Print the JSON Schema of a recipe, the lock, or a command's JSON output.

    \b
    Examples:
      compose schema recipe
      compose schema plan

    Most schemas have the name of their command. The others: problems (validate), outcomes
    (apply), pins (lock), repair (lock --repair), merge (merge --json-into).
    """
    click.echo(schema(name), nl=False)
    return 0


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(shell: str) -> int:
    """Print the completion script of a shell.

    \b
    Examples:
      compose completion zsh
      eval "$(compose completion bash)"
    """
    completion = get_completion_class(shell)
    if completion is None:
        raise UsageError(f"no completion for {shell}")
    click.echo(completion(compose, {}, "compose", "_COMPOSE_COMPLETE").source())
    return 0
