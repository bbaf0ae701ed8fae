"""Hashes of large files, noted so that each is computed once: a base model has 34 GB."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from composer.files.atomic import write_atomically
from composer.lora.hashing import file_stamp, sha256_of
from composer.lora.signature import RACY

if TYPE_CHECKING:
    from pathlib import Path

NAME = "base-models.json"  # in the folder of previews
_LARGE = 1_000_000  # bytes from which on a hash is noted
_MOST = 1000  # notes, of which the newest are kept


class HashNotes:
    """The hashes of files by path and signature, in `folder`; without one, in memory alone."""

    def __init__(self, folder: Path | None = None) -> None:
        self._path = folder / NAME if folder else None
        self._notes = self._read()
        self._is_changed = False

    def hash(self, path: Path) -> str:
        """The sha256 of the file in hex. Raises `OSError`."""
        status, key = path.stat(), str(path)
        if status.st_size < _LARGE:
            return sha256_of(path)
        stamp, noted = file_stamp(status), self._notes.get(key)
        if noted and noted[0] == stamp:
            return noted[1]
        found = sha256_of(path)
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) >= RACY:
            self._notes[key] = (stamp, found)
            self._is_changed = True
        return found

    def save(self) -> None:
        """Write what is new. Whoever can't write hashes again another time."""
        if self._path is not None and self._is_changed:
            newest = dict(list(self._notes.items())[-_MOST:])
            with suppress(OSError):
                write_atomically(self._path, json.dumps(newest).encode(), mode=0o600)

    def _read(self) -> dict[str, tuple[str, str]]:
        if self._path is None:
            return {}
        try:
            notes = json.loads(self._path.read_bytes())
            return {str(path): (str(stamp), str(hash)) for path, (stamp, hash) in notes.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}
