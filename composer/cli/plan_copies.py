"""The files that `compose plan` writes beside what it prints, never over the lock or a recipe."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.cli.project import RECIPES, find
from composer.errors import ComposeError, UsageError
from composer.lock import NAME as LOCK
from composer.output.budget import COMMENT, SUMMARY, Budget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from composer.cli.options import Selection


@dataclass(frozen=True, slots=True)
class Copies:
    """Files that get the plan too, each in its own form and size."""

    json: Path | None
    markdown: Path | None
    summary: Path | None

    @property
    def files(self) -> Iterator[tuple[str, Path, str, Budget]]:
        """Each that is wanted: its option, the file, its form and size."""
        for option, file, form, budget in (
            ("--json-into", self.json, "json", COMMENT),
            ("--markdown-into", self.markdown, "markdown", COMMENT),
            ("--summary-into", self.summary, "markdown", SUMMARY),
        ):
            if file:
                yield option, file, form, budget

    def spare(self, selection: Selection) -> None:
        """Raises `UsageError` where a copy would be written over the lock or a recipe."""
        if not any(self.files):
            return
        wanted = list(self.files)
        for n, (option, file, _, _) in enumerate(wanted):
            if any(_is_same(file, other) for _, other, _, _ in wanted[:n]):
                raise UsageError(f"{option}: {file} is to hold another form already")
        root, chosen = find(selection)
        recipes = [*chosen, *(root / RECIPES).rglob("*.y*ml")]
        for option, file, _, _ in self.files:
            if any(_is_same(file, ours) for ours in (root / LOCK, *recipes)):
                raise UsageError(
                    f"{option}: {file} is the lock or a recipe", hint="give another file"
                )

    def write(self, render: Callable[[str, Budget], str]) -> None:
        """What `render` gives for a form and a budget; nothing where it gives nothing.

        Raises `ComposeError` for a path that can't be written.
        """
        for option, file, form, budget in self.files:
            text = render(form, budget)
            try:
                file.write_text(text, encoding="utf-8") if text else None
            except OSError as bad:
                raise ComposeError(
                    f"{option}: {file} can't be written: {bad.strerror or bad}",
                    hint="give a file in a folder that there is; a plan changes nothing else",
                ) from bad


def _is_same(file: Path, ours: Path) -> bool:
    """Through links and on file systems that don't tell case, too."""
    with suppress(OSError):
        return file.samefile(ours)
    return file.resolve() == ours.resolve()
