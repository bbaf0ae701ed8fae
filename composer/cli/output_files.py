"""What a command writes beside what it prints: pages and reports, in the place of nothing of worth.

`inspect` and `merge` ask with `check_copy` before they work, and write with `write_copy`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import UsageError
from composer.files.delivery import check_folder, refuse_link_out, replacing, unwritable
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGES = (".html", ".htm")
SOURCES = (".safetensors", ".yaml", ".yml", ".lock")  # LoRAs, recipes and the lock


def check_page(out: Path) -> None:
    """Raise `UsageError` where no page can be written, or something else might be lost."""
    _check(out)
    if out.suffix.lower() not in PAGES:
        raise UsageError(f"{visible(str(out))} is no name for a page", hint="name a .html file")


def check_report(out: Path, others: Sequence[Path]) -> None:
    """The same for a report, which must be none of the `others` that the command works on."""
    _check(out)
    if out.suffix.lower() in SOURCES or any(_same(out, other) for other in others):
        raise UsageError(f"{visible(str(out))} is no name for a report", hint="name a .json file")


def write_copy(out: Path, text: str) -> None:
    """Write the whole text or nothing. Raises `TargetError`, naming the file."""
    if out.exists() and not out.is_file():  # a pipe or a terminal
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise unwritable(out, error) from error
        return
    with replacing(Path(os.path.realpath(out)), name=out) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _check(out: Path) -> None:
    refuse_link_out(out)
    if out.is_dir():
        raise UsageError(f"{visible(str(out))} is a folder", hint="name a file in it")
    check_folder(out)


def _same(one: Path, two: Path) -> bool:
    if one.exists() and two.exists():
        return os.path.samefile(one, two)
    return os.path.realpath(one) == os.path.realpath(two)
