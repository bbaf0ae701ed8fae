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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from composer.errors import InvalidInput
from composer.files.event_file import EventFile
from composer.lock.candidates import combined, overtaken, upgraded
from composer.lock.codec import Node, Plain, checked_id, checked_path, read_entry, read_intent
from composer.lock.document import read_lock
from composer.model import Candidate, CreatedRecord, Entry, Intent, KnownState

if TYPE_CHECKING:
    from pathlib import Path

    from composer.model import Lock, TargetLock

NAME = "journal.jsonl"
_HINT = "move the file away; the models that it names have the tag managed-by:compose"


@dataclass(slots=True)
class JournalContent:
    """What the journal says about one target."""

    entries: dict[str, Entry] = field(default_factory=dict)  # by recipe path; the newest counts
    made: dict[str, CreatedRecord] = field(default_factory=dict)
    made_for: dict[str, str] = field(default_factory=dict)  # id -> recipe path
    intents: dict[str, Intent] = field(default_factory=dict)  # open ones, by token
    upgraded: dict[str, dict[str, str]] = field(default_factory=dict)  # path -> pin -> id before


class Journal(EventFile):
    """The journal's file in the folder `state`. Any thread may add to it."""

    def __init__(self, state: Path) -> None:
        super().__init__(state / NAME, _HINT)

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
                raise self.invalid(number, bad.message) from bad
            except KeyError as bad:
                raise self.invalid(number, f"the event has no {json.dumps(bad.args[0])}") from bad
            except (TypeError, ValueError, OverflowError, AttributeError) as bad:
                raise self.invalid(number, "a value of the event has the wrong type") from bad
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
