"""Previews in a review: rendered by `compose preview`, and shown in a comment of their own."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from composer.forge.base import read_json
from composer.forge.review import keep_comment, marker
from composer.forge.run import commands_stopped, compose, say
from composer.forge.sheet_branch import BRANCH, digest_of, push
from composer.text import shorten, visible_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from composer.forge.base import Forge
    from composer.forge.sheet_branch import Remote

_UNKNOWN = "0" * 64  # in preview.md, for the folder's name, which is known after the sheets
_SHEET = re.compile(r"[a-z0-9-]+\.webp")
_MAX_REASON = 1000  # characters


def folder_url(forge: type[Forge], web: str, folder: str = _UNKNOWN) -> str:
    """The address of a folder of the branch; `web` is that of the repository's pages."""
    return f"{web}{forge.raw_path}/{BRANCH}/{folder}/"


def render(arguments: Sequence[str], out: Path, image_url: str, folder: str) -> str:
    """Run `compose preview` in a folder, into the folder `out`; why it failed, or empty."""
    shutil.rmtree(out, ignore_errors=True)
    command = ["preview", "--out", str(out), "--image-url", image_url, *arguments]
    with commands_stopped():
        completed = compose(command, folder)
        for line in visible_lines(completed.out).splitlines():
            say(line)
    if completed.status == 0:
        return ""
    last = visible_lines(completed.messages.strip()).splitlines()[-3:]
    return shorten(f"exit status {completed.status}: {' '.join(last)}", _MAX_REASON)


def show(forge: Forge, remote: Remote, number: int, name: str, out: Path) -> Iterator[str]:
    """Push the contact sheets, and keep the comment that shows them; what was done, in words."""
    report, document = read_json(out / "previews.json", "a preview"), out / "preview.md"
    body, quiet = "## compose preview: it failed\n\nThe log of the run says why.\n", True
    if report is not None and document.is_file():
        sheets = {file.name: file.read_bytes() for file in _sheets(out)}
        if sheets:
            pushed = push(remote, sheets)
            yield f"{'pushed' if pushed else 'found'} the contact sheets on {BRANCH}"
        unknown, known = (
            folder_url(type(forge), forge.web, f) for f in (_UNKNOWN, digest_of(sheets))
        )
        body = document.read_text(encoding="utf-8").replace(unknown, known)
        quiet = not report["recipes"]
    yield keep_comment(forge, number, marker("preview", name), body, quiet=quiet)


def _sheets(out: Path) -> list[Path]:
    files = (file for file in sorted(out.iterdir()) if _SHEET.fullmatch(file.name))
    return [file for file in files if file.is_file() and not file.is_symlink()]
