"""What lock and journal say, and the one write of the lock.

The commands that only look call `remember`; the ledger and `compose lock` write.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.errors import InvalidInput
from composer.files.atomic import write_atomically
from composer.files.repository import NotRegularError, is_link, read_inside
from composer.lock.candidates import overtaken, upgraded
from composer.lock.document import dump, parse
from composer.lock.journal import Journal
from composer.lock.merge import has_markers, merge_conflict
from composer.model import LOCK_NAME, KnownState, Lock

if TYPE_CHECKING:
    from pathlib import Path

    from composer.lock.journal import Story
    from composer.model import Entry, TargetLock

MAX_BYTES = 64 * 1024 * 1024


def read_lock(root: Path) -> Lock:
    """The lock of this root; empty if there is none. Raises `InvalidInput`.

    A lock with conflict markers is an error of its own: see `read_conflicted`.
    """
    text = lock_text(root)
    if text is not None and has_markers(text):
        raise InvalidInput(
            f"{LOCK_NAME}: git left a conflict in it",
            hint="compose lock --repair merges both sides",
        )
    return parse(text, source=LOCK_NAME) if text is not None else Lock()


def read_conflicted(root: Path) -> Lock:
    """The lock of this root, with both sides merged if git left a conflict in it.

    Raises `InvalidInput`.
    """
    text = lock_text(root)
    if text is not None and has_markers(text):
        return merge_conflict(root, text)
    return parse(text) if text is not None else Lock()


def lock_text(root: Path) -> str | None:
    """The lock's text, None if there is none.

    Raises `InvalidInput` for a link, for what is not a regular UTF-8 file, and above 64 MiB.
    """
    path = root / LOCK_NAME
    if is_link(path):  # a write would replace the link, and leave the file behind it as it was
        raise InvalidInput(
            f"{LOCK_NAME}: a link, which compose does not follow",
            hint="replace it by the file itself",
        )
    try:
        data = read_inside(path, root, limit=MAX_BYTES)
        if len(data) > MAX_BYTES:
            raise InvalidInput(f"{LOCK_NAME}: larger than 64 MiB", hint="restore it from git")
        return data.decode("utf-8")
    except FileNotFoundError:
        return None
    except NotRegularError as bad:
        raise InvalidInput(
            f"{LOCK_NAME}: not a file", hint="move it away; restore it from git"
        ) from bad
    except UnicodeDecodeError as bad:
        raise InvalidInput(f"{LOCK_NAME}: not UTF-8", hint="restore it from git") from bad


def write_lock(root: Path, lock: Lock) -> bool:
    """Write it, in one step; True if its bytes changed. The caller holds the file lock."""
    text, before = dump(lock), lock_text(root)
    unchanged = before is not None and before.replace("\r\n", "\n") == text
    if unchanged or (before is None and not lock.targets):
        return False
    write_atomically(root / LOCK_NAME, text.encode())
    return True


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
