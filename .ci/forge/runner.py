"""How a GitHub runner is told things: lines of its log, files that the environment names."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from texts import command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def say(line: str) -> None:
    """A line of the log, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def annotate(kind: str, title: str, message: str, file: str = "") -> None:
    """An error, a warning or a notice, at a file if there is one."""
    say(command(kind, message, {"file": file, "title": title}))


@contextmanager
def obeying_nothing() -> Iterator[None]:
    """Within, no line of the log is an order to the runner, whoever wrote it."""
    token = secrets.token_hex(16)
    say(f"::stop-commands::{token}")
    try:
        yield
    finally:
        say(f"::{token}::")


def outputs(values: Mapping[str, str], env: Mapping[str, str] = os.environ) -> None:
    """Outputs of the step; a value may hold anything, as its end can't be guessed."""
    end = secrets.token_hex(16)
    _append(env["GITHUB_OUTPUT"], "".join(f"{n}<<{end}\n{v}\n{end}\n" for n, v in values.items()))


def summary(markdown: str, env: Mapping[str, str] = os.environ) -> None:
    """Markdown for the page of the run."""
    _append(env["GITHUB_STEP_SUMMARY"], markdown)


def _append(file: str, text: str) -> None:
    with Path(file).open("a", encoding="utf-8", newline="\n") as opened:
        opened.write(text)
