"""The journal of an apply: `journal.jsonl` in the state folder, one event a line, each fsynced.

    intent   a POST is about to be sent (token, recipe, name, content, at); once more, with a later
             `at`, where it got no answer
    found    the model of an intent whose answer was lost (token, recipe, made, at)
    expired  an intent's model did not appear within the grace, or was refused (token, recipe)
    entry    a recipe's entry as it now is; `settles` an intent, `made` the id of its model, `at`
             when it was answered; `upgraded` the pins that this run moved, each with the id before

It is what heals a run that was killed. Its cost doesn't depend on the lock's size.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from composer.errors import InvalidInput
from composer.files.atomic import write_atomically
from composer.lock.candidates import combined, overtaken, upgraded
from composer.lock.codec import Node, Plain, checked_id, checked_path, read_entry, read_intent
from composer.lock.document import read_lock
from composer.model import Candidate, CreatedRecord, Entry, Intent, KnownState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from composer.model import Lock, TargetLock

NAME = "journal.jsonl"


@dataclass(slots=True)
class Story:
    """What a journal tells about one target."""

    sides: dict[str, Entry] = field(default_factory=dict)  # by recipe path; newest leads
    made: dict[str, CreatedRecord] = field(default_factory=dict)
    made_for: dict[str, str] = field(default_factory=dict)  # id -> recipe path
    intents: dict[str, Intent] = field(default_factory=dict)  # open ones, by token
    upgraded: dict[str, dict[str, str]] = field(default_factory=dict)  # path -> pin -> id before


class Journal:
    """The file; it comes into being with its first event."""

    def __init__(self, state: Path) -> None:
        self.path = state / NAME

    def read(self) -> list[Plain]:
        """All whole events. A torn last line was never acted upon and is passed over.

        Raises `InvalidInput` if any other line is broken.
        """
        if not self.path.exists():
            return []
        *whole, _torn = self.path.read_bytes().split(b"\n")
        return [self._event(number, line) for number, line in enumerate(whole, start=1) if line]

    def _event(self, number: int, line: bytes) -> Plain:
        try:
            event = json.loads(line)
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                return event
        except (ValueError, RecursionError):
            pass
        raise self._broken(number, "no event of ours")

    def _broken(self, number: int, why: str) -> InvalidInput:
        return InvalidInput(
            f"{self.path}:{number}: {why}",
            hint="move the journal away; what it made carries the tag managed-by:compose",
        )

    def append(self, event: Plain) -> None:
        """Write one event, and return when it is on disk."""
        with self.path.open("ab") as file:
            self._cut_torn_line()
            file.write(json.dumps(event, ensure_ascii=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _cut_torn_line(self) -> None:
        """A line without its end is a write that was killed; what follows must not join it."""
        size = self.path.stat().st_size
        if size == 0:
            return
        with self.path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)

    def replace(self, events: Iterable[Plain]) -> None:
        """Keep these events alone; without any the file goes."""
        kept = [json.dumps(event, ensure_ascii=True) + "\n" for event in events]
        if kept:
            write_atomically(self.path, "".join(kept).encode())
        else:
            self.path.unlink(missing_ok=True)

    def paths(self, key: str) -> set[str]:
        """All recipes that it tells of."""
        return {event["recipe"] for event in self.read() if event["target"] == key}

    def story(self, key: str) -> Story:
        """What it tells about the target of this key. Raises `InvalidInput`."""
        story = Story()
        for number, event in enumerate(self.read(), start=1):
            try:
                if event["target"] == key:
                    checked_path(event["recipe"])
                    _tell(story, event)
            except InvalidInput as bad:
                raise self._broken(number, bad.message) from bad
            except (KeyError, TypeError, ValueError, AttributeError) as bad:
                raise self._broken(number, f"a broken event ({bad!r})") from bad
        return story


def _tell(story: Story, event: Plain) -> None:
    match event["event"]:
        case "intent":
            intent = read_intent(event)
            story.intents[intent.token] = intent
        case "expired":
            story.intents.pop(event["token"], None)
        case "found":
            _tell_found(story, story.intents.pop(event["token"]), event)
        case "entry":
            _tell_entry(story, event)


def _tell_entry(story: Story, event: Plain) -> None:
    path = checked_path(event["recipe"])
    before = story.sides.pop(path, None)
    story.upgraded[path] = {name: checked_id(id) for name, id in event.get("upgraded", {}).items()}
    if event["entry"] is not None:
        entry = read_entry(Node(event["entry"], "entry"))
        story.sides[path] = combined(entry, before) if before else entry
    intent = story.intents.pop(event.get("settles", ""), None)
    if intent:
        _made(story, intent, event)


def _tell_found(story: Story, intent: Intent, event: Plain) -> None:
    _made(story, intent, event)
    found = Candidate(checked_id(event["made"]), intent.name, intent.content, ours=True)
    side = story.sides.get(intent.path, Entry(intent.name))
    story.sides[intent.path] = replace(side, candidates=(*side.candidates, found))


def _made(story: Story, intent: Intent, event: Plain) -> None:
    id = checked_id(event["made"])
    story.made[id] = CreatedRecord(intent.name, intent.content, float(event.get("at", intent.at)))
    story.made_for[id] = intent.path


# --- with the lock -------------------------------------------------------------------------


def remember(root: Path, key: str, state: Path, *, lock: Lock | None = None) -> KnownState:
    """What lock and journal know about one target; nothing is written. Raises `InvalidInput`.

    `state` is the project's state folder, where the journal lies; `lock` the root's lock, where it
    is read already.
    """
    known = read_lock(root) if lock is None else lock
    return memory_of(known.target(key), Journal(state).story(key))


def memory_of(lock: TargetLock, story: Story) -> KnownState:
    """One target's part of the lock, with what the journal adds to it."""
    entries = dict(lock.recipes)
    for path, side in story.sides.items():
        if path in entries:
            side = upgraded(overtaken(entries[path], side), side, story.upgraded.get(path, {}))
        entries[path] = side
    marked = {path: _with_posts(path, entry, story) for path, entry in sorted(entries.items())}
    return KnownState(lock.owner, marked, story.made, tuple(story.intents.values()))


def _with_posts(path: str, entry: Entry, story: Story) -> Entry:
    """The entry, with each candidate marked whose POST the journal recorded."""
    candidates = (replace(c, ours=c.ours or c.id in story.made) for c in entry.candidates)
    return replace(entry, candidates=tuple(candidates))
