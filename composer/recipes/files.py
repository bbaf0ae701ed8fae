"""Opens a recipe file, and only a file that may be one: regular, small, inside the project.

A recipe may come from a stranger's branch: a link out of the project, a pipe or a device is
refused before anything is opened.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from composer.errors import InvalidInput
from composer.recipes.parsing import MAX_BYTES, too_large
from composer.text import UNSAFE, visible

# No wait at a pipe, no link followed at the last moment, no line ends changed (Windows).
_FLAGS = os.O_RDONLY
for _flag in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT"):
    _FLAGS |= getattr(os, _flag, 0)


class Refusal(InvalidInput):
    """Why a file is not read: a problem without its place."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.problem = (code, message, hint)


def relative(file: Path, root: Path) -> str | None:
    """The file's path below the root, with `/`, links not resolved; None if it is not below it."""
    file = Path(os.path.abspath(file))
    path = _below(file, Path(os.path.abspath(root)))
    # The root may have been named through a link (/tmp on macOS is one).
    return path or _below(Path(os.path.realpath(file.parent), file.name), _real(root))


def _below(file: Path, root: Path) -> str | None:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else None


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def read(file: Path, root: Path) -> bytes:
    """The bytes of a recipe file; Refusal if it may not be read or can't be."""
    path = relative(file, root)
    if path is None or _below(_real(file), _real(root)) is None:
        how = "is not inside" if path is None else "is a link that leads out of"
        hint = "a recipe must be inside its project; copy the file there"
        raise Refusal("E303", f"the file {how} {visible(str(root))}", hint)
    if UNSAFE.search(path) or "\\" in path or path[1:2] == ":":  # c:x is a drive on Windows
        message = "the file's path contains a control character, a backslash or a drive letter"
        raise Refusal("E304", message, "rename it")
    try:
        return _bytes(_real(file))
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise Refusal("E301", f"the file can't be read: {why}", "") from error


def _bytes(path: Path) -> bytes:
    _check(os.stat(path))
    with open(os.open(path, _FLAGS), "rb") as stream:
        _check(os.fstat(stream.fileno()))
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:  # it grew just now
        raise Refusal("E302", *too_large(len(data)))
    return data


def _check(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Refusal("E301", "this is not a regular file", "a recipe must be a plain text file")
    if status.st_size > MAX_BYTES:
        raise Refusal("E302", *too_large(status.st_size))
