"""The lock's file: JSON, version 2, equal bytes on every platform.

`read_lock` and `write_lock` are for the file in a project's root, `parse` and `dump` for its text.
Only the ledger and `compose lock` write it.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from composer.errors import InvalidInput
from composer.files.atomic import write_atomically
from composer.files.event_file import unreadable
from composer.files.repository import NotRegularError, is_link, read_inside
from composer.lock.codec import Node, Plain, checked_path, parse_json, plain_entry, read_entry
from composer.model import Lock, TargetLock
from composer.text import LOCK_NAME

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 2
ABOUT = "Written by compose. Commit it; do not edit it."
MAX_BYTES = 64 * 1024 * 1024
# How the lines begin that git writes around the two versions of a conflict.
OURS, BASE, MIDDLE, THEIRS = MARKERS = ("<<<<<<<", "|||||||", "=======", ">>>>>>>")
RESTORE = (
    f"restore the last valid version (git checkout HEAD -- {LOCK_NAME}; HEAD^ if HEAD is a merge),"
    " then run compose apply"
)

# Invisible in a diff, or not valid in UTF-8: written as an escape.
_UNSEEN = re.compile(
    "[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


# --- the file ------------------------------------------------------------------------------


def read_lock(root: Path) -> Lock:
    """The lock of this root; empty if there is none. Raises `InvalidInput`.

    `read_conflicted` reads a lock with conflict markers.
    """
    text = lock_text(root)
    if text is not None and has_markers(text):
        raise InvalidInput(
            f"{LOCK_NAME} has git conflict markers",
            hint="merge both sides: compose lock --repair",
        )
    return parse(text, source=LOCK_NAME) if text is not None else Lock()


def lock_text(root: Path) -> str | None:
    """The lock's text, None if there is none.

    Raises `InvalidInput` for a link, for what is not a regular UTF-8 file or can't be read, and
    above 64 MiB.
    """
    path = root / LOCK_NAME
    if is_link(path):  # a write would replace the link, and leave the file behind it as it was
        raise InvalidInput(
            f"{LOCK_NAME} is a link, which compose does not follow",
            hint="replace it with the file itself",
        )
    try:
        refuse_large(path.stat().st_size, LOCK_NAME, hint=RESTORE)
        data = read_inside(path, root, limit=MAX_BYTES)
        refuse_large(len(data), LOCK_NAME, hint=RESTORE)  # it may have grown meanwhile
        return data.decode("utf-8")
    except FileNotFoundError:
        return None
    except NotRegularError as bad:
        raise InvalidInput(
            f"{LOCK_NAME} is not a file", hint=f"move it away, and {RESTORE}"
        ) from bad
    except UnicodeDecodeError as bad:
        raise InvalidInput(f"{LOCK_NAME} is not UTF-8", hint=RESTORE) from bad
    except OSError as bad:
        raise unreadable(LOCK_NAME, bad) from bad


def read_file(file: Path, source: str, *, hint: str) -> bytes:
    """The bytes of another file with a lock.

    Raises `InvalidInput` above 64 MiB, and where it can't be read.
    """
    try:
        refuse_large(file.stat().st_size, source, hint=hint)
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as bad:
        raise unreadable(source, bad) from bad
    refuse_large(len(data), source, hint=hint)
    return data


def refuse_large(size: int, source: str, *, hint: str) -> None:
    """Raise `InvalidInput` if a lock of this size, in bytes, is not read."""
    if size > MAX_BYTES:
        raise InvalidInput(f"{source} is larger than 64 MiB", hint=hint)


def write_lock(root: Path, lock: Lock) -> bool:
    """Write the lock in one step; True if its bytes changed. The caller holds the file lock."""
    text, before = dump(lock), lock_text(root)
    unchanged = before is not None and before.replace("\r\n", "\n") == text
    if unchanged or (before is None and not lock.targets):
        return False
    write_atomically(root / LOCK_NAME, text.encode())
    return True


# --- its text ------------------------------------------------------------------------------


def has_markers(text: str) -> bool:
    """Whether a line begins as one of git's conflict markers: no line of a lock does."""
    return any(line.startswith(MARKERS) for line in text.splitlines())


def dump(lock: Lock) -> str:
    """The text of a lock: the same for equal locks, on every platform."""
    targets = {key: _plain_target(target) for key, target in sorted(lock.targets.items())}
    body = {"about": ABOUT, "version": VERSION, "targets": targets}
    text = json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False)
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def _plain_target(target: TargetLock) -> Plain:
    owner = {"owner": target.owner} if target.owner else {}
    entries = {path: plain_entry(entry) for path, entry in sorted(target.recipes.items())}
    return {**owner, "recipes": entries}


@lru_cache(maxsize=4)  # under the project's lock the file is read again: mostly it is the same
def parse(text: str, *, source: str = LOCK_NAME) -> Lock:
    """The lock of a text; an empty one for an empty text.

    Raises `InvalidInput`, which names `source` and the JSON path or line of the problem.
    """
    if not text.strip():
        return Lock()
    if len(text) > MAX_BYTES:
        raise InvalidInput(f"{source}: larger than {MAX_BYTES} bytes", hint=RESTORE)
    document = Node(_parsed_json(text, source))
    _refuse_newer(document, source)
    try:
        return _read_lock(document)
    except InvalidInput as bad:
        raise InvalidInput(f"{source}: {bad.message}", hint=RESTORE) from bad


def _parsed_json(text: str, source: str) -> object:
    try:
        return parse_json(text)
    except json.JSONDecodeError as bad:
        place = f"{source}:{bad.lineno}:{bad.colno}"
        raise InvalidInput(f"{place}: not JSON: {bad.msg}", hint=RESTORE) from bad
    except ValueError as bad:
        raise InvalidInput(f"{source}: not JSON: {bad}", hint=RESTORE) from bad


def _refuse_newer(document: Node, source: str) -> None:
    version = document.value.get("version") if isinstance(document.value, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise InvalidInput(
            f"{source}: written by a newer compose (version {version}, this one reads {VERSION})",
            hint="upgrade compose: pip install --upgrade lora-compose",
        )


def _read_lock(document: Node) -> Lock:
    fields = document.fields(["version", "targets"], ["about"])
    if fields["version"].value != VERSION or fields["version"].value is True:
        raise fields["version"].error(f"is not {VERSION}")
    if "about" in fields:
        fields["about"].text()
    return Lock({key: _read_target(target) for key, target in fields["targets"].members()})


def _read_target(node: Node) -> TargetLock:
    fields = node.fields(["recipes"], ["owner"])
    entries = {}
    for path, entry in fields["recipes"].members():
        try:
            checked_path(path)
        except InvalidInput as bad:
            raise entry.error(bad.message) from bad
        entries[path] = read_entry(entry)
    owner = fields["owner"].id() if "owner" in fields else None
    return TargetLock(owner, dict(sorted(entries.items())))
