"""The group of all commands, each imported only when it is called."""

from __future__ import annotations

import importlib
import logging
import sys

import click

from composer.version import __version__

# Command -> (module of `composer.cli`, what the list of commands says).
COMMANDS = {
    "validate": ("validate", "Check recipes; nothing is sent anywhere."),
    "plan": ("plan", "Show what apply would do, and why, for every recipe."),
    "apply": ("apply", "Make the target what the recipes say."),
    "status": ("status", "Show whether recipes, lock and target agree."),
    "models": ("models", "List the models of the target."),
    "output": ("output", "Print a recipe's model id, and how to use it."),
    "lock": ("lock", "Pin the LoRAs that recipes name, without applying; repair the lock."),
    "inspect": ("inspect", "Show what LoRAs are, and what they do to each other in a mix."),
    "merge": ("merge", "Make one LoRA of several files, without a recipe."),
    "pull": ("pull", "Put a recipe's trained result where you want it."),
    "import": ("import_", "Write recipes for compositions that exist."),
    "forget": ("deletion", "Take a recipe or an id out of the lock; nothing is deleted."),
    "prune": ("deletion", "Delete earlier compositions that nothing needs any more."),
    "destroy": ("deletion", "Delete the compositions of recipes."),
    "doctor": ("doctor", "Check the project and this machine for problems."),
    "serve": ("serve", "Answer clients of the Scenario API with the embedded engine."),
    "schema": ("schema", "Print the JSON Schema of recipes, the lock, plans or inspections."),
    "completion": ("schema", "Print the shell's completion script."),
}


class _Lazy(click.Group):
    """A group that knows its commands by name and imports them late."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"composer.cli.{COMMANDS[name][0]}")
        command = getattr(module, f"{name}_command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from composer.text import did_you_mean

            near = did_you_mean(args[0], COMMANDS)
            hint = f" Did you mean {near}?" if near else ""
            raise click.UsageError(f"{error.message.rstrip('.')}.{hint}", ctx) from error


def _listen(level: int) -> None:
    """What our rooms log goes to stderr; other people's libraries stay silent."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("composer")
    logger.handlers = [handler]
    logger.setLevel(level)


@click.group(
    cls=_Lazy,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name="compose")
@click.option("-v", "--verbose", is_flag=True, help="Say more, on stderr.")
@click.option("--debug", is_flag=True, help="Say everything, on stderr; never a secret.")
@click.pass_context
def compose(ctx: click.Context, verbose: bool, debug: bool) -> None:
    """Composed LoRA models, declared in YAML, reviewed in git, made exactly once."""
    if verbose or debug:
        _listen(logging.DEBUG if debug else logging.INFO)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
