"""The ledger: lock and journal of one project for one target, as an apply writes them.

It records what an apply does, each event on disk before the next request, and folds it all into the
lock at the end.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from composer.files.atomic import sweep
from composer.files.state import prepare_state
from composer.lock.candidates import with_replaced
from composer.lock.codec import Plain, plain_entry, plain_intent
from composer.lock.document import read_lock, write_lock
from composer.lock.journal import Journal, known_state
from composer.model import Entry, Intent, Lock, TargetLock
from composer.text import LOCK_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from composer.model import Content

T = TypeVar("T")


def steady_clock() -> Callable[[], float]:
    """Seconds since 1970 that pass evenly, whatever is done to the system's clock from now on."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


UNDER_WAY = 60.0  # seconds after which a request has taken effect, or won't


def latest_effect(at: float, uptime: float | None, *, now: float, up: float) -> float:
    """The latest that a killed run's request may have taken effect, by the clock that says `now`.

    That is up to a minute after it was sent, and before this run. When it was sent is told by two
    clocks, of which the later counts: the time of day (`at`) may have been set since, and the time
    since the machine started (`uptime`, now `up`) starts at 0 again with each start.
    """
    age = now - at
    if uptime is not None:
        age = min(age, up - uptime if uptime <= up else up)
    return now - max(age - UNDER_WAY, 0.0)


class Ledger:
    """Records one run; the caller holds the file lock. All methods may be called by any thread."""

    def __init__(
        self,
        root: Path,
        key: str,
        state: Path,
        *,
        write: bool = True,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`state` is the project's state folder; `clock` replaces both of the machine's clocks.

        Without `write` nothing is written, and no folder is made. Raises `InvalidInput`.
        """
        self.root = root
        self.key = key
        self.clock = clock or steady_clock()
        self.uptime = clock or time.monotonic
        self._journal = Journal(state)
        if write:
            prepare_state(state, root)
            for file in (root / LOCK_NAME, self._journal.path):
                sweep(file, now=math.inf)  # nobody else writes them now
        self._lock = read_lock(root)
        self._before = dict(self._lock.target(key).recipes)
        self._marked: set[str] = set()
        self._open: set[str] = set()
        self._unsure: set[str] = set()  # recipes of events that may be in the journal or not
        self._guard = threading.Lock()
        self.refresh()

    def refresh(self) -> None:
        """Read lock and journal again, after open intents were recovered."""
        content = self._journal.content(self.key)
        self.known_state = known_state(self._lock.target(self.key), content)
        self._entries = dict(self.known_state.entries)
        self._index_ids()
        self._made_for = dict(content.made_for)
        self._candidates = {path: e.candidates for path, e in self.known_state.entries.items()}

    def entry(self, path: str) -> Entry | None:
        """The entry as it is now."""
        return self._entries.get(path)

    def locked(self, path: str) -> Entry | None:
        """The entry as compose.lock had it when this run began."""
        return self._before.get(path)

    def is_of_another(self, id: str, path: str) -> bool:
        """Whether the entry of another recipe than this one names the id."""
        with self._guard:
            return bool(self._named_by.get(id, set()) - {path})

    def _index_ids(self) -> None:
        """Which recipes' entries name an id; looking through all entries for each takes long."""
        self._named_by: dict[str, set[str]] = {}
        for path, entry in self._entries.items():
            self._name_ids(path, entry)

    def _name_ids(self, path: str, entry: Entry) -> None:
        for id in entry.ids:
            self._named_by.setdefault(id, set()).add(path)

    def _unname_ids(self, path: str) -> None:
        for id in self._entries[path].ids if path in self._entries else ():
            self._named_by[id].discard(path)

    def move(self, moves: Mapping[str, str]) -> None:
        """Move recipes to other paths: old -> new, all at once (two may have swapped)."""
        with self._guard:
            _move(self._entries, moves)
            self._index_ids()
            _move(self._before, moves)
            _move(self._candidates, moves)

    def intend(self, path: str, name: str, content: Content) -> Intent:
        """Record that a POST is about to be sent."""
        token = secrets.token_hex(8)
        intent = Intent(token, path, name, content, self.clock(), self.uptime())
        self._append({"event": "intent", **plain_intent(intent)})
        return intent

    def unanswered(self, intent: Intent) -> Intent:
        """Record that the POST got no answer and may have taken effect: its grace begins now."""
        later = replace(intent, at=self.clock(), uptime=self.uptime())
        self._append({"event": "intent", **plain_intent(later)})
        return later

    def expire(self, intent: Intent) -> None:
        """Record that the intent's model does not exist, and will not."""
        self._append({"event": "expired", "recipe": intent.path, "token": intent.token})

    def record_found(self, intent: Intent, id: str) -> None:
        """Record the model of an intent whose answer was lost, as a candidate of its recipe."""
        event: Plain = {"event": "found", "recipe": intent.path, "token": intent.token}
        self._append({**event, "made": id, "at": self.clock()})

    def record(
        self, path: str, entry: Entry, *, closes: Intent | None = None, made: str = ""
    ) -> None:
        """Record an entry. `made`: the id in the answer to the POST of the intent `closes`."""
        event: Plain = {"event": "entry", "recipe": path, "entry": plain_entry(entry)}
        if closes:
            event.update(settles=closes.token, made=made, at=self.clock())
        if moved := self._moved_pins(path, entry):
            event["upgraded"] = moved
        self._append(event)
        with self._guard:
            self._unname_ids(path)
            self._entries[path] = replace(entry, candidates=())
            self._name_ids(path, entry)
            if closes:
                self._made_for[made] = path

    def _moved_pins(self, path: str, entry: Entry) -> dict[str, str]:
        """The pins that differ from the lock, each with the lock's id."""
        before = dict(self._before[path].pins) if path in self._before else {}
        return {n: before[n] for n, id in entry.pins if n in before and before[n] != id}

    def forget(self, path: str) -> None:
        """Remove an entry; the models that it names are not touched."""
        self._append({"event": "entry", "recipe": path, "entry": None})
        with self._guard:
            self._unname_ids(path)
            self._entries.pop(path, None)

    def has_created(self, id: str) -> bool:
        """Whether the journal has the record of this id's POST, from this run or an earlier one."""
        with self._guard:
            return id in self._made_for

    def marked(self, id: str) -> None:
        """A model that compose made has its tag now, or is deleted: the record may be removed."""
        with self._guard:
            self._marked.add(id)

    def keep_open(self, path: str) -> None:
        """Keep this recipe's events in the journal: its candidates are still open."""
        with self._guard:
            self._open.add(path)

    def _append(self, event: Plain) -> None:
        try:
            self._journal.append({**event, "target": self.key})
        except BaseException:
            with self._guard:
                self._unsure.add(event["recipe"])
            raise

    def close(self, *, handled: Collection[str], owner: str | None = None) -> bool:
        """Fold the journal into the lock: True if the lock's bytes changed.

        Events of recipes that weren't `handled` stay, and those of any recipe until all that it
        made is marked, or that an event could not be written for; so do open intents and other
        targets' events.
        """
        with self._guard:
            unmarked = {p for id, p in self._made_for.items() if id not in self._marked}
            paths = {*self._entries, *self._made_for.values(), *self._journal.paths(self.key)}
            waiting = {*self.known_state.entries} - set(handled)
            undealt = {path for path in self._open if self._candidates.get(path)}
            done = paths - waiting - unmarked - undealt - self._unsure
            changed = self._write_lock(owner, done - self._open)
            self._fold_away(done)
            return changed

    def _fold_away(self, done: set[str]) -> None:
        """Keep events of other targets, of recipes that aren't done, and of open intents."""
        events, open_intents = self._journal.read(), self._journal.content(self.key).intents
        kept = [
            event
            for event in events
            if event["target"] != self.key
            or event.get("token") in open_intents
            or event["recipe"] not in done
        ]
        if not kept or len(kept) != len(events):  # an incomplete line alone is removed, too
            self._journal.replace(kept)

    def _write_lock(self, owner: str | None, done: Collection[str]) -> bool:
        targets = dict(self._lock.targets)
        targets[self.key] = TargetLock(owner or self.known_state.owner, self._final_entries(done))
        if not targets[self.key].recipes:
            del targets[self.key]
        return write_lock(self.root, Lock(targets))

    def _final_entries(self, done: Collection[str]) -> dict[str, Entry]:
        """Entries in order; an id that is an entry's own is in no entry's `replaced`.

        For an entry that is still open, all ids that the lock named before stay in `replaced`:
        nothing else has them.
        """
        own = {e.composition for e in self._entries.values()}
        own |= {e.next.composition for e in self._entries.values() if e.next}
        final = {}
        for path, entry in sorted(self._entries.items()):
            before = self._before.get(path) if path not in done else None
            others = [c for c in before.current if c.id not in self._marked] if before else []
            final[path] = with_replaced(entry, others, own)
        return final


def _move(by_path: dict[str, T], moves: Mapping[str, str]) -> None:
    by_path.update({new: by_path.pop(old) for old, new in moves.items() if old in by_path})
