"""Reading a lock that only `compose lock --repair` can read: torn markers, hand edits.

What is whole is kept, field by field; what isn't is said in words, and found again on the target
where it is there. A newer lock is refused here as everywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from composer.errors import InvalidInput
from composer.lock.blocks import Loss, read_blocks
from composer.lock.reading import read_sides
from composer.lock.sides import merged, texts, without_markers
from composer.lock.text import VERSION, read_plain, read_yaml
from composer.model import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.lock.codec import Plain

_SOURCE = "compose.lock"
_TWICE = ("first", "last")  # of two that stand under one key, each is a side


@dataclass(frozen=True, slots=True)
class Salvaged:
    """A lock, and what of its text could not be read.

    `torn`: it is of several sides, or of what was left, so that a line may stand below another's.
    `cut`: it ends within a line, so what stood below that is not even known.
    """

    lock: Lock
    torn: bool = False
    cut: bool = False
    lost: tuple[Loss, ...] = ()


def is_conflicted(text: str) -> bool:
    """Whether git left conflict markers in it. Raises `InvalidInput` where they are torn."""
    return len(texts(text)) > 1


def salvage(text: str) -> Salvaged:
    """All of a lock's text that can be read. Raises `InvalidInput` for a newer lock alone."""
    try:
        return Salvaged(read_sides(text), torn=is_conflicted(text))
    except InvalidInput:
        pass
    lost: list[Loss] = []
    sides = [lock for side in _texts(text, lost) for lock in _read(side, lost)]
    lock = merged(sides) if sides else Lock()
    cut = bool(text) and not text.endswith("\n")
    return Salvaged(lock, torn=True, cut=cut, lost=tuple(dict.fromkeys(lost)))


def _texts(text: str, lost: list[Loss]) -> list[str]:
    try:
        return texts(text)
    except InvalidInput as torn:
        lost.append(Loss("", "", torn.message))
        return [without_markers(text)]


def _read(text: str, lost: list[Loss]) -> Iterator[Lock]:
    """Each side as the reader has it; where that has no targets for a broken line, by entries."""
    for twice in _TWICE:
        plain: object = None
        try:
            plain = read_yaml(text, _SOURCE, twice=twice)
        except InvalidInput as bad:
            lost.append(Loss("", "", bad.message))
        if isinstance(plain, dict):
            _refuse_newer(plain.get("version"))
        if not isinstance(plain, dict) or not isinstance(plain.get("targets"), dict):
            version = re.search(r"^version: (\d{1,9})\s*$", text, re.MULTILINE)
            _refuse_newer(int(version[1]) if version else None)
            plain = {"targets": read_blocks(text, lost, twice=twice)}
        yield _whole(plain["targets"], lost)


def _refuse_newer(version: object) -> None:
    if isinstance(version, int) and version > VERSION:
        read_plain({"version": version}, _SOURCE)  # it says what to do


def _whole(plain: object, lost: list[Loss]) -> Lock:
    """What is valid of the targets."""
    targets = {key: _target(key, raw, lost) for key, raw in _items(plain)}
    return _lock({key: target for key, target in targets.items() if target["recipes"]})


def _target(key: str, raw: object, lost: list[Loss]) -> Plain:
    plain = raw if isinstance(raw, dict) else {}
    if not isinstance(plain.get("recipes"), dict):
        lost.append(Loss(key, "", f"{_SOURCE}: the entries of {key}"))
    entries = {path: _entry(key, path, raw, lost) for path, raw in _items(plain.get("recipes"))}
    found: Plain = {"recipes": {path: entry for path, entry in entries.items() if entry}}
    if "owner" in plain:
        if _is_valid({key: {"owner": plain["owner"], "recipes": {}}}):
            found = {"owner": plain["owner"], **found}
        else:
            lost.append(Loss(key, "", f"{_SOURCE}: the owner of {key}"))
    return found


def _entry(key: str, path: str, raw: object, lost: list[Loss]) -> Plain:
    """The fields of an entry that are valid; none if its path or its name isn't."""
    plain = raw if isinstance(raw, dict) else {}
    name = plain.get("name")
    if not _is_valid(_one(path, {"name": name})):
        known = path if _is_valid(_one(path, {"name": "x"})) else ""
        lost.append(Loss(key, known, f"{_SOURCE}: {path}: entry of {key}"))
        return {}
    if _is_valid(_one(path, plain)):
        return plain
    kept: Plain = {}
    for field, value in plain.items():
        if _is_valid(_one(path, {"name": name, field: value})):
            kept[field] = value
        else:
            lost.append(Loss(key, path, f"{_SOURCE}: {path}: {field} of the entry of {key}"))
    return kept


def _items(raw: object) -> list[tuple[str, Any]]:
    return [*raw.items()] if isinstance(raw, dict) else []


def _one(path: str, entry: Plain) -> Plain:
    return {"any": {"recipes": {path: entry}}}


def _is_valid(targets: Plain) -> bool:
    try:
        _lock(targets)
    except InvalidInput:
        return False
    return True


def _lock(targets: Plain) -> Lock:
    return read_plain({"version": VERSION, "targets": targets}, _SOURCE)
