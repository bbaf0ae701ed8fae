"""A file that several threads read or write at once, each at places of its own.

`container` reads through this, and `writer` writes. Each piece is one system call, where the system
has such calls: it lets go of the interpreter once, and no thread waits for another's place.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import FileIO

AT_ONCE = hasattr(os, "preadv") and hasattr(os, "pwrite")  # Windows has neither


class Positioned:
    """An open, unbuffered file."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._turn = threading.Lock()  # elsewhere a file has one place, which every call moves

    def reserve(self, size: int) -> None:
        """Tell the system how large the file will be: where it finds the room at once, writing
        takes a third less time. What it can't do, and what doesn't fit, `write` will find."""
        if hasattr(os, "posix_fallocate"):
            with suppress(OSError):
                os.posix_fallocate(self._file.fileno(), 0, size)

    def read_into(self, start: int, buffer: memoryview) -> bool:
        """Fill the buffer from the byte `start` on; False where the file ends too early."""
        while (count := self._read(start, buffer)) < len(buffer):
            if not count:
                return False
            start, buffer = start + count, buffer[count:]
        return True

    def write(self, start: int, data: memoryview) -> None:
        """Write all of the data from the byte `start` on. Raises `OSError`."""
        while (count := self._write(start, data)) < len(data):
            start, data = start + count, data[count:]

    def _read(self, start: int, buffer: memoryview) -> int:
        if AT_ONCE:
            return os.preadv(self._file.fileno(), [buffer], start)
        with self._turn:
            self._file.seek(start)
            return self._file.readinto(buffer) or 0

    def _write(self, start: int, data: memoryview) -> int:
        if AT_ONCE:
            return os.pwrite(self._file.fileno(), data, start)
        with self._turn:
            self._file.seek(start)
            return self._file.write(data) or 0
