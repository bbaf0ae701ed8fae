"""A folder of pages that compose writes, and writes again: only what changed, and nothing else.

A manifest in the folder lists the files and what each was made from. A file that the manifest does
not list is never replaced or removed, and a folder with other files in it and no manifest is not
written to.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from composer.errors import Refused, UsageError
from composer.files import atomic
from composer.files.delivery import check_folder, check_output_link, unwritable
from composer.files.repository import is_link, read_inside
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MANIFEST = "compose-site.json"
ABOUT = "Written by compose, which replaces and removes the files listed here."
FORMAT_VERSION = 1
_LARGEST = 64 * 1024 * 1024  # bytes of a manifest
# A folder and a name: nothing that leads elsewhere, is hidden, or means something to a system.
_NAME = re.compile(r"(?:[a-z][a-z0-9-]{0,31}/)?[a-z0-9][a-z0-9-]{0,127}\.(?:html|css|js|json|webp)")


class Site:
    """The folder, open for writing; `opened` makes it. First `plan`, then write what that names."""

    def __init__(self, folder: Path, before: Mapping[str, str], *, dry_run: bool) -> None:
        self.folder = folder
        self.written: list[str] = []
        self.kept: list[str] = []
        self.removed: list[str] = []
        self._before, self._now = dict(before), dict[str, str]()
        self._dry_run = dry_run

    def plan(self, files: Mapping[str, str]) -> list[str]:
        """All files that the site has, each with a digest of what it is made from; the names of
        those to write, as they are missing or were made from something else."""
        self._now = dict(files)
        for name, digest in files.items():
            is_there = self._before.get(name) == digest and (self.folder / name).is_file()
            (self.kept if is_there else self.written).append(name)
        if self.written and not self._dry_run:  # a run that is killed leaves files of which nobody
            unknown = dict.fromkeys(self.written, "")  # knows what they were made from
            _put_manifest(self.folder, {**self._before, **unknown})
        return self.written

    def write(self, name: str, data: bytes) -> None:
        """Replace this file, which is ours. Raises `UsageError`, `TargetError`."""
        if self._dry_run:
            return
        assert _NAME.fullmatch(name), name
        path = self.folder / name
        if name not in self._before and os.path.lexists(path):
            raise _not_ours(path)
        try:
            if path.parent != self.folder and not path.parent.exists():
                path.parent.mkdir()
            _refuse_links(self.folder, path.parent)
            _replace(path, data, self.folder)
        except OSError as error:
            raise unwritable(path, error) from error

    def finish(self) -> None:
        """Remove what earlier runs wrote and this one did not want, and write the manifest."""
        for name in sorted(self._before.keys() - self._now.keys()):
            path = self.folder / name
            if not _NAME.fullmatch(name) or not path.is_file() or _leads_away(self.folder, path):
                continue
            self.removed.append(name)
            if not self._dry_run:
                self._remove(path)
        if not self._dry_run and (self._now != self._before or self.removed):
            _put_manifest(self.folder, self._now)

    def _remove(self, path: Path) -> None:
        try:
            path.unlink()
        except OSError as error:
            raise unwritable(path, error) from error
        if path.parent != self.folder:
            with suppress(OSError):  # others are left in it
                path.parent.rmdir()


@contextmanager
def opened(folder: Path, *, dry_run: bool = False) -> Iterator[Site]:
    """The site in this folder, which is created if it is missing; finished at the end.

    Raises `UsageError` for a place that can't be one, `Refused` for a folder of other files.
    """
    check_output_link(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"{visible(str(folder))} is not a folder", hint="name another with --out")
    if not folder.exists():
        check_folder(folder)
    before = _manifest(folder)
    if not dry_run:
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        atomic.sweep(folder / "page", now=time.time())
    site = Site(folder, before, dry_run=dry_run)
    yield site
    site.finish()


def _manifest(folder: Path) -> dict[str, str]:
    """What the manifest lists; nothing for a new folder. Raises `Refused`, `UsageError`."""
    file, others = folder / MANIFEST, []
    if folder.is_dir():
        others = [name for name in os.listdir(folder) if not name.endswith(".compose.tmp")]
    if not others:
        return {}
    if MANIFEST not in others:
        raise Refused(
            f"{visible(str(folder))} has files that compose did not write",
            hint="name an empty folder, or one that does not exist yet",
        )
    try:
        plain = json.loads(read_inside(file, folder, limit=_LARGEST))
        files = plain["files"]
        if plain["formatVersion"] != FORMAT_VERSION:
            raise ValueError
        return {str(name): str(digest) for name, digest in files.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{visible(str(file))} can't be read as the list of a site's files",
            hint="delete that folder, or name another one",
        ) from error


def _put_manifest(folder: Path, files: Mapping[str, str]) -> None:
    plain = {"about": ABOUT, "formatVersion": FORMAT_VERSION, "files": dict(sorted(files.items()))}
    text = json.dumps(plain, indent=1) + "\n"
    try:
        _replace(folder / MANIFEST, text.encode(), folder)
    except OSError as error:
        raise unwritable(folder / MANIFEST, error) from error


def _replace(path: Path, data: bytes, folder: Path) -> None:
    """As `atomic.write_atomically`, but the disk may take its time: pages can be made again."""
    temporary = folder / f".page.{atomic.unguessable()}.compose.tmp"
    try:
        with open(atomic.create(temporary), "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _leads_away(folder: Path, path: Path) -> bool:
    return is_link(path) or (path.parent != folder and is_link(path.parent))


def _refuse_links(folder: Path, parent: Path) -> None:
    if parent != folder and (is_link(parent) or not parent.is_dir()):
        raise _not_ours(parent)


def _not_ours(path: Path) -> Refused:
    return Refused(
        f"{visible(str(path))} was not written by compose",
        hint="move it away, or name another folder",
    )
