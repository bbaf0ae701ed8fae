"""Files that a command writes beside what it prints, never over a LoRA, a recipe or the lock."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from composer.cli.selection import gathered
from composer.errors import ComposeError, TargetError, UsageError
from composer.files.atomic import no_link
from composer.files.delivery import check_folder, check_output_link, replacing, unwritable
from composer.lock import LOCK_NAME
from composer.output.markdown import COMMENT, SUMMARY, Budget
from composer.project.sources import find
from composer.text import RECIPES_FOLDER, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from composer.cli.selection import Command
    from composer.project import Selection


PAGES = (".html", ".htm")
SOURCES = (".safetensors", ".yaml", ".yml", ".lock")  # LoRAs, recipes and the lock


def check_page(out: Path) -> None:
    """Raise `UsageError` where no page can be written, or something else might be lost."""
    _check(out)
    if out.suffix.lower() not in PAGES:
        raise UsageError(f"{visible(str(out))} does not end in .html", hint="name an .html file")


def check_report(out: Path, others: Sequence[Path]) -> None:
    """The same for a report, which must be none of the `others` that the command works on."""
    _check(out)
    if out.suffix.lower() in SOURCES or any(_is_same(out, other) for other in others):
        raise UsageError(f"{visible(str(out))} can't be the report", hint="name a .json file")


def write_copy(out: Path, text: str) -> None:
    """Write the whole text or nothing. Raises `TargetError`, naming the file."""
    if out.exists() and not out.is_file():  # a pipe or a terminal
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise unwritable(out, error) from error
        return
    with (
        replacing(Path(os.path.realpath(out)), name=out) as temporary,
        open(temporary, "w", encoding="utf-8", opener=no_link) as file,
    ):
        file.write(text)


def _check(out: Path) -> None:
    check_output_link(out)
    if out.is_dir():
        raise UsageError(f"{visible(str(out))} is a folder", hint="name a file in it")
    check_folder(out)


def _is_same(one: Path, two: Path) -> bool:
    """Through links and on file systems that don't tell case, too."""
    with suppress(OSError):
        return one.samefile(two)
    return one.resolve() == two.resolve()


# --- copies of a plan --------------------------------------------------------------------


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
                raise UsageError(f"{option}: {file} is given for two formats")
        root, chosen = find(selection, Path.cwd())
        recipes = [*chosen, *(root / RECIPES_FOLDER).rglob("*.y*ml")]
        for option, file, _, _ in self.files:
            check_output_link(file)
            if not file.parent.is_dir():
                folder = visible(str(file.parent))
                raise UsageError(f"{option}: {folder} is not a folder", hint="create it first")
            if file.is_dir():
                folder = visible(str(file))
                raise UsageError(f"{option}: {folder} is a folder", hint="name a file in it")
            ours = next((one for one in (root / LOCK_NAME, *recipes) if _is_same(file, one)), None)
            if ours is not None:
                what = "the lock" if ours.name == LOCK_NAME else "a recipe"
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
