"""What the database notes of LoRA files, so that they are not read again: how a note is found.

The library writes notes, through the store. `NotedTitles` reads them all at once, for a command
that needs names alone and opens no target.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from composer.errors import BadLora, ComposeError
from composer.lora.signature import StatSignature
from composer.targets.local.database import DATABASE, open_for_reading
from composer.version import __version__

if TYPE_CHECKING:
    from pathlib import Path


def note_signature(text: str) -> str:
    """The signature of a note, which is valid for one version of compose."""
    return f"{text} {__version__}"


def note_key(path: Path) -> str:
    """The path as text that SQLite accepts, whatever bytes it has."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


class NotedTitles:
    """The titles in the files of one library that are as they were when they were noted."""

    def __init__(self, state: Path, library: Path) -> None:
        """`state` is the project's state folder. Without a database that can be read there are no
        notes; nothing is written."""
        self._library = library
        self._titles: dict[tuple[str, str], str | None] = {}
        try:
            with closing(open_for_reading(state / DATABASE)) as db:
                for row in db.execute("SELECT path, stamp, title FROM notes"):
                    self._titles[row["path"], row["stamp"]] = row["title"]
        except (ComposeError, OSError, sqlite3.Error):
            return

    def find(self, path: Path) -> tuple[str | None] | None:
        """The title, which may be missing, of a file; None if nothing is known of it as it is."""
        try:
            signature = StatSignature.of(path, self._library)
        except (BadLora, OSError):
            return None
        key = note_key(path), note_signature(signature.text)
        return (self._titles[key],) if key in self._titles else None
