"""The files of a preview or a sweep in a folder: contact sheets, page, JSON, Markdown.

A run replaces what an earlier run on this machine wrote there and nobody has changed since; it
remembers that in the project's state folder. Any other file is kept, and named.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from composer.errors import Refused, UsageError
from composer.files.atomic import no_link, write_atomically
from composer.files.delivery import SLASHES, check_output_link, replacing, unwritable
from composer.files.state import why_unwritable
from composer.images.embedding import embedded
from composer.images.sheets import sheet_files
from composer.output.preview_html import preview_page
from composer.output.preview_json import as_json
from composer.output.preview_markdown import markdown
from composer.output.preview_view import COMMENT_FILE, DATA, PAGE, PreviewView
from composer.recipes import slug
from composer.renderers.cache import FOLDER
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from composer.previews.report import PreviewReport
    from composer.project.project import Project

_FIXED = (PAGE, DATA, COMMENT_FILE)
_LONGEST = 1024 * 1024  # characters of what is remembered of one folder
_HINT = "--force replaces it; or name another folder"


def check_folder(project: Project, out: str, *, force: bool) -> None:
    """Raise `UsageError` for what can't be the folder, `Refused` for files that would be lost.

    What is only known once there are images, as the names of the sheets, `write_preview` checks.
    """
    folder = _folder(out)
    if why := why_unwritable(Path(os.path.abspath(folder))):
        raise UsageError(
            f"{visible(out)} can't be written: {why}", hint="name a folder that you may write to"
        )
    if folder.is_dir() and not force:
        known = _Written(project, folder)
        for name in _FIXED:
            known.check(name)


def write_preview(
    project: Project,
    report: PreviewReport,
    out: str,
    *,
    force: bool = False,
    image_url: str = "",
    progress: Callable[[float], None] = lambda share: None,
) -> PreviewView:
    """Write all files; what they show, as formats take it.

    `image_url` stands before the sheets' names in Markdown, `progress` is told 0..1. Raises as
    `check_folder`, and `TargetError` for a file that can't be written.
    """
    folder = _folder(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    shown = out if out.endswith(SLASHES) else f"{out}/"
    view = PreviewView(report, _stems(project, report), shown, image_url)
    known = _Written(project, folder)
    if not force:
        for name in file_names(view):
            known.check(name)
    for number, (name, data) in enumerate(_files(view), 1):
        known.remember(name, data)
        _write(folder / name, data)
        progress(number / len(file_names(view)))
    known.remember_current(*file_names(view))
    return view


def _folder(out: str) -> Path:
    """Raises `UsageError` for what can't be one."""
    if not out:  # most likely a variable of a script that is not set
        raise UsageError("the name of the folder is empty", hint="name a folder, as preview/")
    folder = Path(out)
    check_output_link(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"{visible(out)} is not a folder", hint="name a folder, as preview/")
    return folder


def _stems(project: Project, report: PreviewReport) -> dict[str, str]:
    """The sheets' file names without an ending, by the recipes' paths.

    No two recipes of the project have the same one, whichever of them are in the report.
    """
    stems: dict[str, str] = {}
    for recipe in project.recipes:
        stem, number = slug(recipe.name), 1
        while stem in stems:
            number += 1
            stem = f"{slug(recipe.name)}-{number}"
        stems[stem] = recipe.path
    shown = {one.grid.path for one in report.grids}
    return {path: stem for stem, path in stems.items() if path in shown}


def file_names(view: PreviewView) -> list[str]:
    """All files of a preview in its folder."""
    sheets = [f"{stem}.{ending}" for stem in view.sheets.values() for ending in ("png", "webp")]
    return [*sheets, *_FIXED]


def _files(view: PreviewView) -> Iterator[tuple[str, bytes]]:
    """All files, the sheets first: one after the other, as they are large."""
    for result in view.report.grids:
        stem = view.sheets[result.grid.path]
        for file_format, data in sheet_files(result).items():
            yield f"{stem}.{file_format}", data
    yield PAGE, preview_page(view.report, embedded(view.report)).encode()
    yield COMMENT_FILE, markdown(view).encode()
    yield DATA, as_json(view).encode()


def _write(file: Path, data: bytes) -> None:
    with (
        replacing(file, name=file) as temporary,
        open(temporary, "r+b", opener=no_link) as stream,
    ):
        stream.write(data)


# --- what was written --------------------------------------------------------------------


class _Written:
    """What this machine wrote into a folder: for each file the digests that it may have.

    A digest is remembered before its file is written, so that a kill leaves no file unknown.
    """

    def __init__(self, project: Project, folder: Path) -> None:
        self._project, self._folder = project, folder
        key = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]
        self._file = project.state / FOLDER / "written" / f"{key}.json"
        self._digests = self._read()

    def check(self, name: str) -> None:
        """Raise `Refused` for a file that is there and is none of these."""
        file = self._folder / name
        if os.path.lexists(file) and _digest(file) not in self._digests.get(name, ()):
            raise Refused(f"{visible(str(file))} already exists", hint=_HINT)

    def remember(self, name: str, data: bytes) -> None:
        """That this file may have these bytes from now on."""
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._digests.setdefault(name, []):
            self._digests[name].append(digest)
            self._store()

    def remember_current(self, *names: str) -> None:
        """That these files have the bytes that they have now; those that are gone are forgotten."""
        for name in {*names, *self._digests}:
            digest = _digest(self._folder / name)
            if not digest:
                self._digests.pop(name, None)
            elif name in names:
                self._digests[name] = [digest]
        self._store()

    def _read(self) -> dict[str, list[str]]:
        try:
            with open(self._file, encoding="utf-8", opener=no_link) as file:
                plain = json.loads(file.read(_LONGEST))
            return {str(name): [str(one) for one in known] for name, known in plain.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return {}

    def _store(self) -> None:
        self._project.prepare_state()
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(self._file, json.dumps(self._digests).encode())


def _digest(file: Path) -> str:
    """Of a regular file, which is no link; else empty."""
    with suppress(OSError):
        if not file.is_symlink() and file.is_file():
            return hashlib.sha256(file.read_bytes()).hexdigest()
    return ""
