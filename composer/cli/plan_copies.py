"""Files that get a plan too, besides what `compose plan` prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli.output_files import is_same, write_copy
from composer.cli.selection import gathered
from composer.errors import ComposeError, TargetError, UsageError
from composer.files.delivery import check_output_link
from composer.lock import LOCK_NAME
from composer.output.markdown import COMMENT, SUMMARY, Budget
from composer.project.sources import find
from composer.text import RECIPES_FOLDER, SETTINGS_NAME, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from composer.cli.selection import Command
    from composer.project import Selection


_INPUTS = {LOCK_NAME: "the lock", SETTINGS_NAME: "the settings file"}


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
            if any(is_same(file, other) for _, other, _, _ in wanted[:n]):
                raise UsageError(f"{option}: {file} is given for two formats")
        found = find(selection, Path.cwd())
        root = found.root
        recipes = [*found.chosen, *(root / RECIPES_FOLDER).rglob("*.y*ml")]
        for option, file, _, _ in self.files:
            check_output_link(file)
            if not file.parent.is_dir():
                folder = visible(str(file.parent))
                raise UsageError(f"{option}: {folder} is not a folder", hint="create it first")
            if file.is_dir():
                folder = visible(str(file))
                raise UsageError(f"{option}: {folder} is a folder", hint="name a file in it")
            inputs = (root / LOCK_NAME, root / SETTINGS_NAME, *recipes)
            ours = next((one for one in inputs if is_same(file, one)), None)
            if ours is not None:
                what = _INPUTS.get(ours.name, "a recipe")
                raise UsageError(
                    f"{option}: {file} is {what}, and would be overwritten",
                    hint="give another file",
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


def _into(name: str, help: str) -> Callable[[Command], Command]:
    kind = click.Path(path_type=Path)
    return click.option(f"--{name}-into", name, type=kind, metavar="FILE", help=help)


copy_options = gathered(
    Copies,
    "copies",
    _into("json", "Also write JSON to FILE."),
    _into("markdown", "Also write Markdown to FILE, short enough for a comment."),
    _into("summary", "Also write Markdown to FILE, short enough for a job summary (1 MiB)."),
)
