"""Tells a GitHub runner things: lines of its log, and files that its environment names."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from composer.output.findings import command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def say(line: str) -> None:
    """Write a line to the log and flush it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def annotate(kind: str, title: str, message: str, file: str = "") -> None:
    """Show an error, a warning or a notice, beside a file if one is given."""
    place = {"file": file} if file else {}
    say(command(kind, message, **place, title=title))


@contextmanager
def commands_stopped() -> Iterator[None]:
    """Within this, the runner treats no line of the log as a command, whoever wrote it."""
    token = secrets.token_hex(16)
    say(f"::stop-commands::{token}")
    try:
        yield
    finally:
        say(f"::{token}::")


def set_outputs(values: Mapping[str, str], env: Mapping[str, str] = os.environ) -> None:
    """Set outputs of the step. A value may hold any text: nobody can guess its delimiter."""
    end = secrets.token_hex(16)
    _append(env["GITHUB_OUTPUT"], "".join(f"{n}<<{end}\n{v}\n{end}\n" for n, v in values.items()))


def add_summary(markdown: str, env: Mapping[str, str] = os.environ) -> None:
    """Append Markdown to the summary page of the run."""
    _append(env["GITHUB_STEP_SUMMARY"], markdown)


def _append(file: str, text: str) -> None:
    with Path(file).open("a", encoding="utf-8", newline="\n") as opened:
        opened.write(text)
