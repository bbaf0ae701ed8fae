"""A disk that fails: of all calls that change files in some folders one returns an error.

    with failing_disk(project, state) as disk:                          only counts
    with failing_disk(project, state, Failure(7, ENOSPC)) as disk:      the 7th call fails
    disk.calls                                                          what was called, in order
    disk.fired                                                          how many of them failed

It stands below all that the program uses: the functions of `os`, the files that Python opens, and
the file layer of SQLite.
"""

from __future__ import annotations

import _sqlite3
import builtins
import ctypes
import errno
import io
import os
import sqlite3
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# What a disk that is full still does.
GIVES_SPACE = frozenset({"unlink", "truncate", "rename"})


@dataclass(frozen=True, slots=True)
class Failure:
    """The call number `at` fails with this error number; if it is `lasting`, so do those after it.

    On a disk that stays full only those fail that need space.
    """

    at: int
    number: int
    lasting: bool = False

    def __str__(self) -> str:
        since = " from then on" if self.lasting else ""
        return f"{errno.errorcode[self.number]} at call {self.at}{since}"

    def meets(self, count: int, call: str) -> bool:
        """Whether it is met by this call, which is the `count`-th."""
        if count <= self.at or not self.lasting:
            return count == self.at
        return self.number != errno.ENOSPC or call not in GIVES_SPACE


@dataclass
class Disk:
    """Counts the calls on files in these folders, and fails one."""

    folders: tuple[str, ...]
    failure: Failure | None = None
    calls: list[str] = field(default_factory=list)
    fired: int = 0

    def __post_init__(self) -> None:
        self._guard = threading.Lock()

    def call(self, call: str, path: str | int) -> OSError | None:
        """The error of this call on this path or descriptor, if it is to fail."""
        name = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else path
        name = os.path.abspath(os.fsdecode(name))
        if not f"{name}{os.sep}".startswith(self.folders):
            return None
        with self._guard:
            self.calls.append(f"{call} {os.path.basename(name)}")
            if self.failure is None or not self.failure.meets(len(self.calls), call):
                return None
            self.fired += 1
            return OSError(self.failure.number, os.strerror(self.failure.number), name)


_disks: list[Disk] = []  # the one that is in use, which SQLite's callbacks look for


@contextmanager
def failing_disk(*folders: Path, failure: Failure | None = None) -> Iterator[Disk]:
    """Count the calls on files below these folders, and let one fail."""
    disk = Disk(tuple(f"{os.path.realpath(folder)}{os.sep}" for folder in folders), failure)
    _wrap_sqlite()
    with ExitStack() as patches:
        for name, call in _CALLS.items():
            patches.enter_context(
                patch.object(os, name, partial(_called, disk, call, getattr(os, name)))
            )
        patches.enter_context(patch.object(os, "open", partial(_os_open, disk, os.open)))
        for module in (io, builtins):
            patches.enter_context(patch.object(module, "open", partial(_open, disk, open)))
        _disks.append(disk)
        try:
            yield disk
        finally:
            _disks.remove(disk)


# --- Python's own calls ------------------------------------------------------------------

_CALLS = {
    "fsync": "fsync",
    "link": "link",
    "mkdir": "mkdir",
    "posix_fallocate": "write",
    "pwrite": "write",
    "remove": "unlink",
    "replace": "rename",
    "rename": "rename",
    "unlink": "unlink",
}


def _called(
    disk: Disk, call: str, real: Callable[..., Any], path: Any, *rest: Any, **more: Any
) -> Any:
    if error := disk.call(call, path if isinstance(path, int) else os.fspath(path)):
        raise error
    return real(path, *rest, **more)


def _os_open(
    disk: Disk, real: Callable[..., int], path: Any, flags: int, *rest: Any, **more: Any
) -> int:
    writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes and (error := disk.call("open", os.fspath(path))):
        raise error
    return real(path, flags, *rest, **more)


def _open(
    disk: Disk, real: Callable[..., Any], file: Any, mode: str = "r", *rest: Any, **more: Any
) -> Any:
    """As `open`; what is opened for writing is a file of this disk."""
    if not set(mode) & set("wax+"):
        return real(file, mode, *rest, **more)
    if not isinstance(file, int) and (error := disk.call("open", os.fspath(file))):
        raise error
    raw = _File(disk, file, mode.replace("b", "").replace("t", ""))
    buffering = rest[0] if rest else more.pop("buffering", -1)
    if "b" in mode and buffering == 0:
        return raw
    buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    return buffered if "b" in mode else io.TextIOWrapper(buffered, *rest[1:], **more)


class _File(io.FileIO):
    """A file on this disk; one that becomes full takes half of a write before the error."""

    def __init__(self, disk: Disk, file: Any, mode: str) -> None:
        super().__init__(file, mode)
        self._disk = disk
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        error, self._error = self._error, None
        if error is None and (error := self._disk.call("write", self.fileno())):
            half = bytes(data)[: len(data) // 2]
            if error.errno == errno.ENOSPC and half:
                self._error = error
                return super().write(half)
        if error:
            raise error
        return super().write(data)


# --- SQLite's ----------------------------------------------------------------------------

# The parts of `sqlite3_vfs` and `sqlite3_io_methods` (sqlite3.h), counted in pointers.
_VFS_OPEN, _VFS_DELETE = 5, 6
_WRITE, _TRUNCATE, _SYNC, _SIZE = 3, 4, 5, 19
_CODES = {"write": 3, "truncate": 6, "fsync": 4, "unlink": 10}  # the second byte of an SQLITE_IOERR
_Open = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 3, ctypes.c_int, ctypes.c_void_p)
_Delete = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)
_Write = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
)
_Truncate = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64)
_Sync = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_kept: list[object] = []  # what SQLite points to
_names: dict[int, str] = {}  # by the address of SQLite's open file


def _code(call: str, path: str) -> int:
    """SQLite's result for this call; 0 if it does not fail."""
    error = _disks[-1].call(call, path) if _disks else None
    if error is None:
        return 0
    if call == "open":
        return sqlite3.SQLITE_CANTOPEN
    if call == "write" and error.errno == errno.ENOSPC:
        return sqlite3.SQLITE_FULL
    return sqlite3.SQLITE_IOERR | _CODES[call] << 8


@cache
def _wrap_sqlite() -> None:
    """Put our functions before those of SQLite's file layer, for good; they count if a disk is in
    use."""
    find = ctypes.CDLL(_sqlite3.__file__).sqlite3_vfs_find
    find.restype, find.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    vfs = (ctypes.c_void_p * 7).from_address(find(None))
    real_open, real_delete = _Open(vfs[_VFS_OPEN]), _Delete(vfs[_VFS_DELETE])
    methods = cache(_methods)

    def opened(vfs: int, name: int | None, file: int, flags: int, out: int) -> int:
        path = os.fsdecode(ctypes.string_at(name)) if name else ""  # SQLite keeps the pointer
        if path and (code := _code("open", path)):
            return code
        code = real_open(vfs, name, file, flags, out)
        address = ctypes.c_void_p.from_address(file)
        if code == 0 and path and _disks and address.value:
            _names[file] = path
            address.value = methods(address.value)
        return int(code)

    def deleted(vfs: int, name: bytes, sync: int) -> int:
        return _code("unlink", os.fsdecode(name)) or int(real_delete(vfs, name, sync))

    functions = _Open(opened), _Delete(deleted)
    _kept.extend(functions)
    vfs[_VFS_OPEN], vfs[_VFS_DELETE] = (ctypes.cast(f, ctypes.c_void_p).value for f in functions)


def _methods(address: int) -> int:
    """The address of a copy of these methods of a file, with ours in place of three."""
    slots = (ctypes.c_void_p * _SIZE)(*(ctypes.c_void_p * _SIZE).from_address(address))
    for slot, call, type in (
        (_WRITE, "write", _Write),
        (_TRUNCATE, "truncate", _Truncate),
        (_SYNC, "fsync", _Sync),
    ):
        function = type(partial(_method, type(slots[slot]), call))
        _kept.append(function)
        slots[slot] = ctypes.cast(function, ctypes.c_void_p).value
    _kept.append(slots)
    return ctypes.addressof(slots)


def _method(real: Callable[..., int], call: str, file: int, *rest: int) -> int:
    return _code(call, _names[file]) or int(real(file, *rest))
