"""The one place where errors become words and an exit status.

Expected errors are one line: what, why, what to do. Anything else is a bug: its traceback goes to
a log file that the message names.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli.main import compose
from composer.errors import ComposeError, ExitStatus, InvalidInput
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence


def guarded(arguments: Sequence[str]) -> int:
    """Run `compose` with these arguments; the exit status."""
    try:
        status = compose.main(list(arguments), prog_name="compose", standalone_mode=False)
        if sys.stdout is not None:  # it may have been closed
            sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        return _misused(error)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return ExitStatus.INTERRUPTED
    except ComposeError as error:
        return _expected(error)
    except BrokenPipeError:
        return _reader_gone()
    except OSError as error:
        return _no_access(error)
    except Exception:
        return _bug()


def _misused(error: click.ClickException) -> int:
    click.echo(f"compose: {visible(error.format_message())}", err=True)
    context = getattr(error, "ctx", None)
    if context is not None:
        click.echo(f"try: {context.command_path} --help", err=True)
    return ExitStatus.USAGE


def _expected(error: ComposeError) -> int:
    if isinstance(error, InvalidInput) and error.problems:
        from composer.output import problems

        click.echo(problems.text(error.problems, files=error.files), err=True, nl=False)
        return error.exit_status
    hint = f"\n  {visible(error.hint)}" if error.hint else ""
    click.echo(f"compose: {visible(error.message)}{hint}", err=True)
    return error.exit_status


def _reader_gone() -> int:
    """Whoever read our output has enough of it (`compose models | head`)."""
    _silence_stdout()
    return 0


def _no_access(error: OSError) -> int:
    """A full disk, missing rights, a folder that is gone: the system says what, we say where."""
    place = f"{visible(str(error.filename))}: " if error.filename else ""
    click.echo(f"compose: {place}{error.strerror or error}", err=True)
    click.echo("  what was done so far is recorded; fix this and run the command again", err=True)
    _silence_stdout()
    return ExitStatus.FAILED


def _silence_stdout() -> None:
    """What is still in the buffer can't be written: nobody must fail on that at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bug() -> int:
    handle, name = tempfile.mkstemp(prefix="compose-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as log:
        traceback.print_exc(file=log)
    error = sys.exc_info()[1]
    click.echo(
        f"compose: internal error: {type(error).__name__}: {visible(str(error))[:200]}\n"
        f"  please report it with {Path(name)}",
        err=True,
    )
    return ExitStatus.FAILED
