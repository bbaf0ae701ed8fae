"""The files that `compose plan` writes beside what it prints, never over the lock or a recipe."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli.options import gathered
from composer.cli.output_files import write_copy
from composer.errors import ComposeError, TargetError, UsageError
from composer.files.delivery import refuse_link_out
from composer.lock import LOCK_NAME
from composer.output.markdown import COMMENT, SUMMARY, Budget
from composer.project.sources import RECIPES, find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from composer.cli.options import Command
    from composer.project import Selection


@dataclass(frozen=True, slots=True)
class Copies:
    """Files that get the plan too, each in its own format and size."""

    json: Path | None
    markdown: Path | None
    summary: Path | None

    @property
    def files(self) -> Iterator[tuple[str, Path, str, Budget]]:
        """Each that is given: its option, the file, its format and size."""
        for option, file, output_format, budget in (
            ("--json-into", self.json, "json", COMMENT),
            ("--markdown-into", self.markdown, "markdown", COMMENT),
            ("--summary-into", self.summary, "markdown", SUMMARY),
        ):
            if file:
                yield option, file, output_format, budget

    def check(self, selection: Selection) -> None:
        """Raises `UsageError` where a copy would be written over the lock or a recipe."""
        if not any(self.files):
            return
        wanted = list(self.files)
        for n, (option, file, _, _) in enumerate(wanted):
            if any(_is_same(file, other) for _, other, _, _ in wanted[:n]):
                raise UsageError(f"{option}: {file} is to hold another format already")
        root, chosen = find(selection, Path.cwd())
        recipes = [*chosen, *(root / RECIPES).rglob("*.y*ml")]
        for option, file, _, _ in self.files:
            refuse_link_out(file)
            if any(_is_same(file, ours) for ours in (root / LOCK_NAME, *recipes)):
                raise UsageError(
                    f"{option}: {file} is the lock or a recipe", hint="give another file"
                )

    def write(self, render: Callable[[str, Budget], str]) -> None:
        """What `render` gives for a format and a budget; nothing where it gives nothing.

        Raises `ComposeError` for a path that can't be written.
        """
        for option, file, output_format, budget in self.files:
            text = render(output_format, budget)
            try:
                write_copy(file, text) if text else None
            except TargetError as bad:
                raise ComposeError(
                    f"{option}: {bad.message}",
                    hint="name a file in a folder that exists; a plan changes nothing else",
                ) from bad


def _is_same(file: Path, ours: Path) -> bool:
    """Through links and on file systems that don't tell case, too."""
    with suppress(OSError):
        return file.samefile(ours)
    return file.resolve() == ours.resolve()


def _into(name: str, help: str) -> Callable[[Command], Command]:
    kind = click.Path(path_type=Path)
    return click.option(f"--{name}-into", name, type=kind, metavar="FILE", help=help)


copy_options = gathered(
    Copies,
    "copies",
    _into("json", "Write the JSON to this file too."),
    _into("markdown", "Write the Markdown of a comment to this file too."),
    _into("summary", "Write the Markdown of a job summary, up to 1 MiB, to this file too."),
)
