"""The group of all commands, each imported only when it is called, and the exit status of a run.

Expected errors are one line: what, why, what to do. Anything else is an internal error: its
traceback goes to a log file that the message names.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from composer.cli.terminal import emit, prepare_streams, reader_left, tell
from composer.errors import BadLora, ComposeError, ExitStatus, InvalidInput
from composer.text import visible
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence


# Command -> (module of `composer.cli`, what the list of commands and the README say).
COMMANDS = {
    "init": ("init", "Create a project: a first recipe, and what else it needs."),
    "validate": ("validate", "Check recipes for problems, without contacting a target."),
    "plan": ("plan", "Show what apply would do for every recipe, and why."),
    "apply": (
        "apply",
        "Create, train and update compositions until the target matches the recipes.",
    ),
    "status": ("status", "Show whether each recipe matches the lock and the target."),
    "models": ("models", "List the LoRAs and compositions on the target."),
    "output": ("output", "Print a recipe's model id, or how to use it."),
    "lock": ("lock", "Record the ids of the LoRAs in the recipes."),
    "inspect": ("inspect", "Show what LoRAs contain, and whether they interfere."),
    "merge": ("merge", "Merge LoRA files into one, without a recipe."),
    "preview": ("preview", "Show what recipes change, in images: before and after."),
    "sweep": ("sweep", "Try a recipe with one or two LoRAs at several scales, in images."),
    "pull": ("pull", "Write the trained results of recipes to files."),
    "import": ("import_", "Write recipes for models on the target, or for ComfyUI workflows."),
    "forget": ("deletion", "Remove recipes or ids from the lock, without deleting anything."),
    "prune": (
        "deletion",
        "Delete compositions that were replaced or whose recipe file was deleted.",
    ),
    "destroy": ("deletion", "Delete what recipes made on the target, earlier compositions too."),
    "report": ("report", "Write web pages that show all compositions of the project."),
    "doctor": ("doctor", "Check the project, this machine and the target for problems."),
    "serve": ("serve", "Serve the local target as a Scenario API."),
    "schema": ("schema", "Print the JSON Schema of a recipe, the lock, or a command's output."),
    "completion": ("schema", "Print a shell completion script."),
}
# They only read: output that nobody reads to its end is no failure.
READING = (
    *("validate", "plan", "status", "models", "output", "inspect"),
    *("doctor", "schema", "completion", ""),
)


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
        if _VERBOSITY[0] not in command.params:
            command.params += _VERBOSITY
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands by their names: none is imported to be listed."""
        named = [(n, words) for n, (_, words) in COMMANDS.items() if n.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*(CompletionItem(name, help=words) for name, words in named), *options]

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


class _ToStderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


def _listen(level: int) -> None:
    """What composer logs goes to stderr; other libraries stay silent."""
    handler = _ToStderr()
    plain = "%(message)s" if level == logging.WARNING else "%(levelname)s %(name)s: %(message)s"
    handler.setFormatter(logging.Formatter(plain))
    logger = logging.getLogger("composer")
    logger.handlers = [handler]
    logger.setLevel(level)


def _listen_more(context: click.Context, option: click.Parameter, given: bool) -> None:
    """The same options after the command's name: the louder of the two places counts."""
    level = logging.DEBUG if option.name == "debug" else logging.INFO
    if given and level < logging.getLogger("composer").level:
        _listen(level)


_VERBOSE_HELP = "Print progress and retries to stderr."
_DEBUG_HELP = "Log every request to stderr. Secrets are removed."
_flag = partial(click.Option, is_flag=True, expose_value=False, callback=_listen_more)
_VERBOSITY: list[click.Parameter] = [
    _flag(["-v", "--verbose"], help=_VERBOSE_HELP),
    _flag(["--debug"], help=_DEBUG_HELP),
]


@click.group(
    cls=_Lazy,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name="compose")
@click.option("-v", "--verbose", is_flag=True, help=_VERBOSE_HELP)
@click.option("--debug", is_flag=True, help=_DEBUG_HELP)
@click.pass_context
def compose(ctx: click.Context, verbose: bool, debug: bool) -> None:
    """Build blended LoRA models from YAML recipes.

    Each model is built once, on this machine or on Scenario.

    \b
    Examples:
      compose plan
      compose apply
    """
    _listen(logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


# --- errors and exit statuses ------------------------------------------------------------


def guarded(arguments: Sequence[str]) -> int:
    """Run `compose` with these arguments; the exit status."""
    prepare_streams()
    command = next((word for word in arguments if word in COMMANDS), "")
    writes = command not in READING and not {"--dry-run", "--help", "-h"} & {*arguments}
    try:
        status = compose.main(list(arguments), prog_name="compose", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        status = done.exit_code
    except Exception as error:
        return _failed(error, command, writes=writes)
    except KeyboardInterrupt:
        return _failed(click.Abort(), command, writes=writes)
    status = status if isinstance(status, int) else 0
    return _unread() if writes and status == 0 and reader_left() else status


def _failed(error: Exception, command: str, *, writes: bool) -> int:
    """Say on stderr what went wrong; the exit status."""
    if isinstance(error, click.Abort):
        click.echo("interrupted", err=True)
        return ExitStatus.INTERRUPTED
    if isinstance(error, click.ClickException):
        return _misused(error)
    if isinstance(error, ComposeError):
        return _expected(error, command)
    return _no_access(error, writes=writes) if isinstance(error, OSError) else _bug()


def _misused(error: click.ClickException) -> int:
    """click's own usage errors; a list of choices takes several lines, which become one."""
    words = " ".join(visible(line.strip()) for line in error.format_message().splitlines())
    tell(f"compose: {words}", err=True)
    context = getattr(error, "ctx", None)
    click.echo(f"try: {context.command_path if context else 'compose'} --help", err=True)
    return ExitStatus.USAGE


def _expected(error: ComposeError, command: str) -> int:
    if isinstance(error, InvalidInput) and error.problems:
        from composer.output import problems

        text = partial(problems.text, error.problems, files=error.files)
        emit(lambda color: text(color=color), err=True)
        return error.exit_status
    each = error.errors if isinstance(error, BadLora) else ()
    for one in (*each, error):
        hint = f"\n  {visible(one.hint)}" if one.hint and not (each and one is error) else ""
        tell(f"compose: {visible(one.message)}{hint}", err=True)
    if error.exit_status == ExitStatus.USAGE:
        click.echo(f"try: compose {command} --help".replace("  ", " "), err=True)
    return error.exit_status


def _unread() -> int:
    """A command that writes did its work, but nobody read all it printed."""
    tell("compose: the output was closed before its end", err=True)
    tell("  what was done is recorded; compose status shows the state", err=True)
    return ExitStatus.FAILED


def _no_access(error: OSError, *, writes: bool) -> int:
    """A full disk, missing rights, a folder that is gone: the system says what, we say where."""
    gone = isinstance(error, FileNotFoundError) and not error.filename  # what os.getcwd raises
    place = "the current folder" if gone else visible(str(error.filename or ""))
    step = "go to a folder that exists" if gone else _STEPS.get(error.errno or 0, "fix this")
    recorded = "what was done so far is recorded; " * writes
    tell(f"compose: {place and f'{place}: '}{error.strerror or error}", err=True)
    tell(f"  {recorded}{step}, then run the command again", err=True)
    return ExitStatus.FAILED


_STEPS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "change its permissions or use another folder"),
}


def _bug() -> int:
    import tempfile
    import traceback

    handle, name = tempfile.mkstemp(prefix="compose-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as log:
        traceback.print_exc(file=log)
    error = sys.exc_info()[1]
    click.echo(
        f"compose: internal error: {type(error).__name__}: {visible(str(error))[:200]}\n"
        f"  please report it with {Path(name)}",
        err=True,
    )
    return ExitStatus.FAILED
