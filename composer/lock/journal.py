"""The journal of an apply: `journal.jsonl` in the state folder, one event a line, all fsynced.

    intent   a POST is about to be sent (token, recipe, name, content, at, uptime); once more, with
             a later time, where it got no answer
    found    the model of an intent whose answer was lost (token, recipe, made, at)
    expired  an intent's model did not appear within the grace, or was refused (token, recipe)
    entry    a recipe's entry as it now is; `settles` an intent, `made` the id of its model, `at`
             when it was answered; `upgraded` the pins that this run moved, each with the id before

The next run continues from it if this one is killed. Its cost does not depend on the lock's size.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from composer.errors import InvalidInput
from composer.files.atomic import write_atomically
from composer.lock.candidates import combined, overtaken, upgraded
from composer.lock.codec import Node, Plain, checked_id, checked_path, read_entry, read_intent
from composer.lock.document import read_lock, unreadable
from composer.model import Candidate, CreatedRecord, Entry, Intent, KnownState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from composer.model import Lock, TargetLock

NAME = "journal.jsonl"


@dataclass(slots=True)
class JournalContent:
    """What the journal says about one target."""

    entries: dict[str, Entry] = field(default_factory=dict)  # by recipe path; the newest counts
    made: dict[str, CreatedRecord] = field(default_factory=dict)
    made_for: dict[str, str] = field(default_factory=dict)  # id -> recipe path
    intents: dict[str, Intent] = field(default_factory=dict)  # open ones, by token
    upgraded: dict[str, dict[str, str]] = field(default_factory=dict)  # path -> pin -> id before


@dataclass(slots=True)
class _Batch:
    """Events of several threads that are written together, and what came of it."""

    lines: list[bytes] = field(default_factory=list)
    is_done: bool = False
    error: BaseException | None = None


class Journal:
    """The journal's file, which its first event creates. Any thread may add to it."""

    def __init__(self, state: Path) -> None:
        self.path = state / NAME
        self._next = _Batch()
        self._is_writing = False
        self._changed = threading.Condition()  # guards both

    def read(self) -> list[Plain]:
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

    def _event(self, number: int, line: bytes) -> Plain:
        try:
            event = json.loads(line)
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                return event
        except (ValueError, RecursionError):
            pass
        raise self._invalid(number, "not a journal event")

    def _invalid(self, number: int, why: str) -> InvalidInput:
        return InvalidInput(
            f"{self.path}:{number}: {why}",
            hint="move the file away; the models that it names have the tag managed-by:compose",
        )

    def append(self, event: Plain) -> None:
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

    def replace(self, events: Iterable[Plain]) -> None:
        """Keep only these events; without any the file is removed."""
        kept = [json.dumps(event, ensure_ascii=True) + "\n" for event in events]
        if kept:
            write_atomically(self.path, "".join(kept).encode())
        else:
            self.path.unlink(missing_ok=True)

    def paths(self, key: str) -> set[str]:
        """The paths of all recipes in the events for the target of this key."""
        return {event["recipe"] for event in self.read() if event["target"] == key}

    def content(self, key: str) -> JournalContent:
        """What the events say about the target of this key. Raises `InvalidInput`."""
        content = JournalContent()
        for number, event in enumerate(self.read(), start=1):
            try:
                if event["target"] == key:
                    checked_path(event["recipe"])
                    _apply(content, event)
            except InvalidInput as bad:
                raise self._invalid(number, bad.message) from bad
            except KeyError as bad:
                raise self._invalid(number, f"the event has no {json.dumps(bad.args[0])}") from bad
            except (TypeError, ValueError, OverflowError, AttributeError) as bad:
                raise self._invalid(number, "a value of the event has the wrong type") from bad
        return content


def _apply(content: JournalContent, event: Plain) -> None:
    match event["event"]:
        case "intent":
            posted = read_intent(event)
            content.intents[posted.token] = posted
        case "expired":
            content.intents.pop(event["token"], None)
        case "found":
            intent = content.intents.pop(event["token"], None)
            if intent is None:
                raise InvalidInput("a model was found for no open request")
            _apply_found(content, intent, event)
        case "entry":
            _apply_entry(content, event)


def _apply_entry(content: JournalContent, event: Plain) -> None:
    path = checked_path(event["recipe"])
    before = content.entries.pop(path, None)
    content.upgraded[path] = {
        name: checked_id(id) for name, id in event.get("upgraded", {}).items()
    }
    if event["entry"] is not None:
        entry = read_entry(Node(event["entry"], "entry"))
        content.entries[path] = combined(entry, before) if before else entry
    intent = content.intents.pop(event.get("settles", ""), None)
    if intent:
        _record_created(content, intent, event)


def _apply_found(content: JournalContent, intent: Intent, event: Plain) -> None:
    _record_created(content, intent, event)
    candidate = Candidate(checked_id(event["made"]), intent.name, intent.content, ours=True)
    entry = content.entries.get(intent.path, Entry(intent.name))
    content.entries[intent.path] = replace(entry, candidates=(*entry.candidates, candidate))


def _record_created(content: JournalContent, intent: Intent, event: Plain) -> None:
    id = checked_id(event["made"])
    at = Node(event.get("at", intent.at), "at").number()
    content.made[id] = CreatedRecord(intent.name, intent.content, at)
    content.made_for[id] = intent.path


# --- with the lock -------------------------------------------------------------------------


def remember(root: Path, key: str, state: Path, *, lock: Lock | None = None) -> KnownState:
    """What lock and journal say about one target; nothing is written. Raises `InvalidInput`.

    `state` is the project's state folder, where the journal is; `lock` the root's lock, if it has
    been read already.
    """
    whole = read_lock(root) if lock is None else lock
    return known_state(whole.target(key), Journal(state).content(key))


def known_state(lock: TargetLock, content: JournalContent) -> KnownState:
    """The entries of one target in the lock, with what the journal adds to them."""
    entries = dict(lock.recipes)
    for path, newer in content.entries.items():
        entry = newer
        if path in entries:
            moved = content.upgraded.get(path, {})
            entry = upgraded(overtaken(entries[path], newer), newer, moved)
        entries[path] = entry
    marked = {path: _with_posts(entry, content) for path, entry in sorted(entries.items())}
    return KnownState(lock.owner, marked, content.made, tuple(content.intents.values()))


def _with_posts(entry: Entry, content: JournalContent) -> Entry:
    """The entry, with each candidate marked whose POST the journal recorded."""
    candidates = (replace(c, ours=c.ours or c.id in content.made) for c in entry.candidates)
    return replace(entry, candidates=tuple(candidates))
