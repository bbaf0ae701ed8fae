"""One apply, and one preview, at a time for each project on this machine: file locks, and who holds
them.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import socket
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from composer.errors import ComposeError, Refused
from composer.files.atomic import sweep, write_atomically
from composer.files.state import prepare_state, why_unwritable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def only_one(root: Path, state: Path, *, wait: float) -> Iterator[None]:
    """Hold this project's file lock, so that one apply at a time runs on this machine.

    Waits up to `wait` seconds for another process. Raises `Refused`, naming that process,
    `InvalidInput` as `prepare_state` does, and `ComposeError` if `root` is not writable.
    The system releases the lock when a process dies.
    """
    if why := why_unwritable(root):  # say so before the work, not when the lock is written
        raise ComposeError(
            f"the project {root} can't be written: {why}",
            hint="nothing was changed; run it on a copy that you may write to",
        )
    with _held(root, state, "apply", f"another compose is running in {root}", wait):
        yield


@contextmanager
def only_one_rendering(root: Path, state: Path, *, wait: float) -> Iterator[None]:
    """The same for the images of previews; an apply may run meanwhile, and `root` be read-only."""
    with _held(root, state, "preview", f"another compose is rendering images of {root}", wait):
        yield


@contextmanager
def _held(root: Path, state: Path, name: str, busy: str, wait: float) -> Iterator[None]:
    """Hold the lock of this name in the state folder; `busy` says that another process does."""
    prepare_state(state, root)
    holder = state / f"{name}.json"
    lock = FileLock(state / f"{name}.lock")
    try:
        lock.acquire(timeout=wait)
    except Timeout as error:
        raise Refused(
            f"{busy}{_holder_name(holder)}",
            hint="wait for it, or give --lock-timeout SECONDS",
        ) from error
    try:
        sweep(holder, now=math.inf)  # nobody else writes it now
        write_atomically(holder, json.dumps(_this_process()).encode())
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


def _this_process() -> dict[str, object]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such user: a container's bare uid, or Windows
        user = "unknown"
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "user": user, "host": socket.gethostname(), "since": since}


def _holder_name(holder: Path) -> str:
    try:
        other = json.loads(holder.read_text(encoding="utf-8"))
        return f": {other['user']}@{other['host']}, process {other['pid']}, since {other['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
