"""The folder `.compose/` beside the lock: journal, file lock and the engine's store live there.

It is private to a machine, so it ignores itself in git, and it is never followed as a link: a
repository from a stranger must not make us write elsewhere.
"""

from __future__ import annotations

import errno
import getpass
import json
import os
import socket
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from composer.errors import InvalidInput, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = ".compose"


def state_dir(root: Path, *, create: bool = False) -> Path:
    """The path of `.compose/` in this root, made if asked.

    Raises `InvalidInput` if it is a link, or no folder.
    """
    state = root / NAME
    if os.path.lexists(state) and (state.resolve() != root.resolve() / NAME or not state.is_dir()):
        raise InvalidInput(
            f"{state} is a link or not a folder, and compose doesn't follow it",
            hint=f"remove it; compose makes its own {NAME}/",
        )
    if create:
        state.mkdir(parents=True, exist_ok=True)
        ignore = state / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
    return state


def write_atomically(path: Path, data: bytes, *, through: Path) -> None:
    """Replace a file in one step: temporary file in `through` (the same disk), fsync, rename."""
    temporary = through / f"{path.name}.{os.getpid()}.tmp"
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    if os.name == "posix":  # Windows can't open a folder, and needs no such step
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def only_one(root: Path, *, wait: float) -> Iterator[None]:
    """Hold this project's file lock: one apply at a time on a machine.

    Waits `wait` seconds for another to end. Raises `Refused`, saying who holds it since when, and
    `PermissionError` where the lock could not be written.
    The system frees it when a process dies.
    """
    if not os.access(root, os.W_OK):  # better now than after the work, when the lock is written
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(root))
    state = state_dir(root, create=True)
    holder = state / "apply.json"
    lock = FileLock(state / "apply.lock")
    try:
        lock.acquire(timeout=wait)
    except Timeout as busy:
        raise Refused(
            f"another compose is at work in {root}{_who(holder)}",
            hint="wait for it, or give --lock-timeout SECONDS",
        ) from busy
    try:
        holder.write_text(json.dumps(_me()), encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


def _me() -> dict[str, object]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user: a container's bare uid, or Windows
        user = "unknown"
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "user": user, "host": socket.gethostname(), "since": since}


def _who(holder: Path) -> str:
    try:
        who = json.loads(holder.read_text(encoding="utf-8"))
        return f": {who['user']}@{who['host']}, process {who['pid']}, since {who['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
