"""Files that a command writes beside what it prints, never over what it reads."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.files.atomic import no_link
from composer.files.delivery import check_folder, check_output_link, replacing, unwritable
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence


PAGES = (".html", ".htm")
SOURCES = (".safetensors", ".yaml", ".yml", ".lock", ".toml")  # LoRAs, recipes, lock, settings


def check_page(out: Path) -> None:
    """Raise `UsageError` where no page can be written, or something else might be lost."""
    _check(out)
    if out.suffix.lower() not in PAGES:
        raise UsageError(f"{visible(str(out))} does not end in .html", hint="name an .html file")


def check_report(out: Path, others: Sequence[Path]) -> None:
    """The same for a report, which must be none of the `others` that the command works on."""
    _check(out)
    if out.suffix.lower() in SOURCES or any(is_same(out, other) for other in others):
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


def is_same(one: Path, two: Path) -> bool:
    """Through links and on file systems that don't tell case, too."""
    with suppress(OSError):
        return one.samefile(two)
    return one.resolve() == two.resolve()
