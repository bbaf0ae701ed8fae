"""Hashing files in threads, while the rest of the program does something else.

`compose merge` starts it before it imports the weights library, which takes as long as hashing a
hundred megabytes: so this module needs no numpy.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Future
    from pathlib import Path
    from typing import Self

# Bytes that are hashed at a time. After each block a thread may have to wait for the interpreter's
# lock: with small ones, for longer than hashing them takes.
BLOCK = 4 * 1024 * 1024


def file_stamp(status: os.stat_result) -> str:
    """Size, times and inode as text: an inode may be too large for a column of SQLite."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def sha256_of(path: Path, stop: threading.Event | None = None) -> str:
    """The hash of a file's bytes in hex; "" once `stop` is set. Raises `OSError`."""
    digest, block = hashlib.sha256(), memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            if stop and stop.is_set():
                return ""
            digest.update(block[:count])
    return digest.hexdigest()


class Hashing:
    """The hashes of files, which are computed in threads until the context ends."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Files that can't be hashed are left to who asks for them."""
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(os.cpu_count(), "compose-hash")
        self._begun: dict[Path, tuple[str, Future[str]]] = {}
        for path in paths:
            with suppress(OSError, ValueError):
                status = path.stat()
                if stat.S_ISREG(status.st_mode):  # opening a pipe would wait forever
                    digest = self._pool.submit(sha256_of, path, self._stop)
                    self._begun[path] = file_stamp(status), digest

    def sha256_of(self, path: Path) -> str:
        """The hash of a file as it is now, by its times. Raises `OSError`."""
        stamp, digest = self._begun.get(path, ("", None))
        if digest is None or file_stamp(path.stat()) != stamp:
            return sha256_of(path)
        return digest.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Stop what is still hashed."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
