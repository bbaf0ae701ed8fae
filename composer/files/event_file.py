"""An append-only file of events, one JSON object a line: what a run that is killed leaves behind.

The journal of an apply and that of image jobs are such files. Each event is on disk when `append`
returns. What a killed write left at the end is not read, and is removed by the next event.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from composer.errors import InvalidInput
from composer.files.atomic import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Event: TypeAlias = dict[str, Any]  # its key `event` says what happened


@dataclass(slots=True)
class _Batch:
    """Events of several threads that are written together, and what came of it."""

    lines: list[bytes] = field(default_factory=list)
    is_done: bool = False
    error: BaseException | None = None


class EventFile:
    """The file at `path`, which its first event creates. Any thread may add to it.

    `hint` says what to do about a line that is not an event.
    """

    def __init__(self, path: Path, hint: str) -> None:
        self.path = path
        self._hint = hint
        self._next = _Batch()
        self._is_writing = False
        self._changed = threading.Condition()  # guards both

    def read(self) -> list[Event]:
        """All complete events. An incomplete last line is ignored: nothing was done after it.

        Raises `InvalidInput` if any other line is invalid, or the file can't be read.
        """
        try:
            *whole, _incomplete = self.path.read_bytes().split(b"\n")
        except (FileNotFoundError, NotADirectoryError):  # no file, or no folder for the state
            return []
        except OSError as bad:
            raise unreadable(str(self.path), bad) from bad
        return [self._event(number, line) for number, line in enumerate(whole, start=1) if line]

    def _event(self, number: int, line: bytes) -> Event:
        try:
            event = json.loads(line)
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                return event
        except (ValueError, RecursionError):
            pass
        raise self.invalid(number, "not a journal event")

    def invalid(self, number: int, why: str) -> InvalidInput:
        """The error for this line, from 1."""
        return InvalidInput(f"{self.path}:{number}: {why}", hint=self._hint)

    def append(self, event: Event) -> None:
        """Write one event, and return when it is on disk. Raises what the system does.

        What other threads add while the disk is busy is written together with it, by one fsync:
        with many requests at once, one for each event would be what they wait for.
        """
        line = json.dumps(event, ensure_ascii=True).encode() + b"\n"
        with self._changed:
            batch = self._next
            batch.lines.append(line)
            self._changed.wait_for(lambda: batch.is_done or not self._is_writing)
            is_ours = not batch.is_done
            if is_ours:
                self._next, self._is_writing = _Batch(), True
        if is_ours:
            try:
                self._write(batch)
            finally:
                with self._changed:
                    batch.is_done, self._is_writing = True, False
                    self._changed.notify_all()
        if batch.error:
            raise batch.error

    def _write(self, batch: _Batch) -> None:
        """Write the events of a batch; where that fails, it fails for each of them."""
        try:
            with self.path.open("ab") as file:
                self._cut_incomplete_line()
                file.write(b"".join(batch.lines))
                file.flush()
                os.fsync(file.fileno())
        except BaseException as error:
            batch.error = error

    def _cut_incomplete_line(self) -> None:
        """Remove what a killed write left, so that the next event has a line of its own."""
        size = self.path.stat().st_size
        if size == 0:
            return
        with self.path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)

    def replace(self, events: Iterable[Event]) -> None:
        """Keep only these events; without any the file is removed."""
        kept = [json.dumps(event, ensure_ascii=True) + "\n" for event in events]
        if kept:
            write_atomically(self.path, "".join(kept).encode())
        else:
            self.path.unlink(missing_ok=True)


def unreadable(name: str, why: OSError) -> InvalidInput:
    """The error for a file of this name that the system doesn't let compose read."""
    is_folder = isinstance(why, IsADirectoryError)
    todo = "move the folder away" if is_folder else "check its permissions and its disk"
    hint = f"{todo}, then run the command again"
    return InvalidInput(f"{name} can't be read: {why.strerror or why}", hint=hint)
