"""File rights that bind this test, for the superuser too: a file of mode 000 can't be read."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_VERSION = 0x20080522  # of the two calls below (linux/capability.h)
_OVERRIDES = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
_GET_SECUREBITS, _SET_SECUREBITS = 27, 28  # of prctl (linux/prctl.h)
_NO_FIXUP = 1 << 2  # access() does not ask with all the rights that could be taken back


@contextmanager
def rights_bind() -> Iterator[None]:
    """Within this context, this thread has no more rights to a file than its mode says."""
    if os.name != "posix":
        pytest.skip("Windows has no modes")
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("the superuser of this system has every right")
    before, bits = _capabilities(), _prctl(_GET_SECUREBITS, 0)
    _prctl(_SET_SECUREBITS, bits | _NO_FIXUP)
    _set_capabilities([before[0] & ~_OVERRIDES, *before[1:]])
    try:
        yield
    finally:
        _set_capabilities(before)
        _prctl(_SET_SECUREBITS, bits)


@contextmanager
def closed(path: Path, mode: int = 0) -> Iterator[None]:
    """Within this context, `path` has this mode, which binds; at its end the one before."""
    before = path.stat().st_mode & 0o777
    path.chmod(mode)
    try:
        with rights_bind():
            yield
    finally:
        path.chmod(before)


def _capabilities() -> list[int]:
    """This thread's: effective, permitted and inheritable, the first 32 and then the others."""
    data = (ctypes.c_uint32 * 6)()
    _call("capget", _header(), data)
    return list(data)


def _set_capabilities(values: list[int]) -> None:
    _call("capset", _header(), (ctypes.c_uint32 * 6)(*values))


def _header() -> ctypes.Array[ctypes.c_uint32]:
    return (ctypes.c_uint32 * 2)(_VERSION, 0)


def _prctl(option: int, value: int) -> int:
    return _call("prctl", option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3)


def _call(name: str, *arguments: object) -> int:
    result: int = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
