"""The lock's text: JSON, version 2, equal bytes on every platform.

Only the ledger, `compose lock` and merges write it; everybody reads it through `parse`.
"""

from __future__ import annotations

import json
import re

from composer.errors import InvalidInput
from composer.lock.codec import Plain, plain_entry, read_entry
from composer.lock.decoding import Node, checked_path, parse_json
from composer.model import LOCK_NAME, Lock, TargetLock

VERSION = 2
ABOUT = "Written by compose. Commit it; do not edit it."
MAX_BYTES = 64 * 1024 * 1024
RESTORE = (
    f"restore the last valid version (git checkout HEAD -- {LOCK_NAME}; HEAD^ if HEAD is a merge),"
    " then run compose apply"
)

# What a reviewer could not see in a diff, or what UTF-8 cannot say: written as an escape.
_UNSEEN = re.compile(
    "[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


def dump(lock: Lock) -> str:
    """The lock as it is written: the same text for equal locks, everywhere."""
    targets = {key: _plain_target(target) for key, target in sorted(lock.targets.items())}
    body = {"about": ABOUT, "version": VERSION, "targets": targets}
    text = json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False)
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def _plain_target(target: TargetLock) -> Plain:
    owner = {"owner": target.owner} if target.owner else {}
    entries = {path: plain_entry(entry) for path, entry in sorted(target.recipes.items())}
    return {**owner, "recipes": entries}


def parse(text: str, *, source: str = LOCK_NAME) -> Lock:
    """A lock from its text; empty for an empty one.

    Raises `InvalidInput`, which names `source` and the JSON path or the line of what is wrong.
    """
    if not text.strip():
        return Lock()
    if len(text) > MAX_BYTES:
        raise InvalidInput(f"{source}: larger than {MAX_BYTES} bytes", hint=RESTORE)
    try:
        document = Node(parse_json(text))
    except json.JSONDecodeError as bad:
        place = f"{source}:{bad.lineno}:{bad.colno}"
        raise InvalidInput(f"{place}: not JSON: {bad.msg}", hint=RESTORE) from bad
    except ValueError as bad:
        raise InvalidInput(f"{source}: not JSON: {bad}", hint=RESTORE) from bad
    _refuse_newer(document, source)
    try:
        return _read_lock(document)
    except InvalidInput as bad:
        raise InvalidInput(f"{source}: {bad.message}", hint=RESTORE) from bad


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
