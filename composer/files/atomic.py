"""Replacing a file in one step: readers see either the old bytes or the new ones.

The lock, the journal, the server's credentials, merged weights and reports are written this way.
The temporary file lies beside the final one and has a name that nobody can guess. It is opened
only if nothing of that name exists, so a planted link is never followed.
"""

from __future__ import annotations

import logging
import os
import re
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

STALE = 3600.0  # seconds without a write after which a temporary file counts as left behind
_NO_LINK = 0  # flags of every opening here: a link is an error, and bytes are bytes
for _flag in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT"):
    _NO_LINK |= getattr(os, _flag, 0)


def write_atomically(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Replace the file at `path` with `data`; on return it is on disk.

    An existing file keeps its permissions; a new one gets `mode` less the umask. Raises `OSError`,
    which names `path`, not the temporary file that is gone by then.
    """
    try:
        with (
            replacing(path, mode=mode) as temporary,
            open(temporary, "r+b", opener=no_link) as file,
        ):
            file.write(data)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def replacing(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """An empty temporary file beside `path`, which replaces it when the context ends.

    Open it again with the opener `no_link`: somebody may have put a link in its place meanwhile.

    If the context ends with an error, the temporary file is removed. Those that killed processes
    left for this `path` are removed after an hour. Raises `OSError`.
    """
    sweep(path, now=time.time())
    temporary = path.with_name(f"{_prefix(path)}{unguessable()}.compose.tmp")
    os.close(create(temporary, mode=mode))
    try:
        yield temporary
        sync_file(temporary)
        _keep_mode(path, temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        _remove(temporary)


def unguessable() -> str:
    """A part of a file's name that nobody can know beforehand."""
    return os.urandom(8).hex()  # as `secrets.token_hex`, which takes 2 ms to import


def _remove(temporary: Path) -> None:
    """Remove it if it is still there; where that fails, say where it is."""
    try:
        temporary.unlink(missing_ok=True)
    except OSError as error:
        log.warning(
            "the temporary file %s can't be removed (%s): delete it",
            visible(str(temporary)),
            error.strerror or error,
        )


def create(path: Path, *, mode: int = 0o666) -> int:
    """A descriptor for writing a new file. Raises `OSError`, also where a link is in its place."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, mode)


def no_link(path: str, flags: int) -> int:
    """An opener for `open` that raises `OSError` where `path` is a link, and follows none.

    Windows has no such flag; there making a link takes a right that few users have.
    """
    return os.open(path, flags | _NO_LINK, 0o666)


def sweep(path: Path, *, now: float) -> None:
    """Remove temporary files for `path` that nobody has written to for an hour.

    `now` is in seconds, as `time.time` gives it.
    """
    temporary_name = re.compile(rf"{re.escape(_prefix(path))}[0-9a-f]+\.compose\.tmp")
    for file in path.parent.glob(".*.compose.tmp"):
        with suppress(OSError):
            status = file.lstat()
            age = now - max(status.st_mtime, status.st_ctime)
            if age > STALE and temporary_name.fullmatch(file.name):
                file.unlink()


def sync_file(path: Path) -> None:
    """Wait until the file's bytes are on disk. Raises `OSError`, also for a link."""
    handle = no_link(str(path), os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)  # Windows syncs only what was opened for writing
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Wait until a rename in this folder is on disk, where the system supports that."""
    with suppress(OSError):  # Windows opens no folder, and some file systems don't sync one
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _prefix(path: Path) -> str:
    """How the names of temporary files for `path` begin; short, as file names have a limit."""
    return f".{path.name[:32]}."


def _keep_mode(path: Path, temporary: Path) -> None:
    """Give the temporary file the permissions of the regular file that it will replace.

    A hard link to another file keeps that file's permissions.
    """
    with suppress(OSError), open(temporary, "rb", opener=no_link) as file:
        is_hard_link = os.fstat(file.fileno()).st_nlink > 1
        if not is_hard_link and path.is_file() and not path.is_symlink():
            mode = path.stat().st_mode & 0o777
            os.fchmod(file.fileno(), mode) if hasattr(os, "fchmod") else temporary.chmod(mode)
