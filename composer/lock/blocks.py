"""A lock that isn't YAML any more, read entry by entry, as the writer's indentation tells them.

`salvage` calls it where a broken line would cost the whole. A line stands below the target and the
recipe above it; one that can't be placed is said, and never counts as another entry's.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from composer.errors import InvalidInput
from composer.lock.text import read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.lock.codec import Plain

UNKNOWN = "?"  # the target of what stands below a key that can't be read
_SOURCE = "compose.lock"
_TARGET, _BELOW_TARGET, _RECIPE, _FIELD = 2, 4, 6, 8  # columns
_QUOTED = re.compile(r'("(?:[^"\\]|\\.)*"):(.*)')
_OURS = re.compile(r"(version|targets|recipes|owner):|#")
_OF_AN_ENTRY = re.compile(
    r"-\s|(name|next|pins|composition|job|content|tags|protect|replaced|concepts|training|"
    r"state|id|modelId|modelEpoch|scale)\s*:"
)


@dataclass(frozen=True, slots=True)
class Loss:
    """What could not be read; `target` is empty where it is nobody's, `path` where it has none."""

    target: str
    path: str
    words: str


@dataclass(slots=True)
class Block:
    """The lines of one entry, each with its number; `path` is empty where the key is broken."""

    target: str
    path: str
    line: int
    lines: list[tuple[int, str]] = field(default_factory=list)

    @property
    def named(self) -> str:
        return f"entry {self.path or 'without a readable path'} of {self.target} (line {self.line})"


@dataclass(slots=True)
class _Reading:
    blocks: list[Block] = field(default_factory=list)
    owners: list[tuple[str, int, str]] = field(default_factory=list)
    lost: list[Loss] = field(default_factory=list)
    target: str = ""
    entry: Block | None = None

    def open_target(self, number: int, key: str | None) -> None:
        self.target, self.entry = key if key is not None else UNKNOWN, None
        if key is None:
            words = f"line {number}, a target's key: whose entries stand below it"
            self.lost.append(Loss(UNKNOWN, "", words))

    def open_entry(self, number: int, path: str | None, rest: str = "") -> None:
        self.entry = Block(self.target or UNKNOWN, path or "", number)
        self.blocks.append(self.entry)
        if rest.strip():
            self.entry.lines.append((number, " " * _FIELD + rest.strip()))

    def stray(self, number: int, line: str, *, inside: bool) -> None:
        """A line at a column where the writer has none: an entry's own, or nobody's."""
        if self.entry and (inside or _OF_AN_ENTRY.match(line.strip())):
            self.entry.lines.append((number, line))
        else:
            self.lost.append(Loss("", "", f"line {number}, which belongs to no entry"))


def read_blocks(text: str, lost: list[Loss], *, twice: str) -> Plain:
    """The targets of a lock's text as plain values, each entry by itself; what is lost is added."""
    reading = _split(text)
    targets: dict[str, Any] = {}
    for key, number, raw in reading.owners:
        owner = _plain(raw.strip())
        if owner is None:
            reading.lost.append(Loss(key, "", f"the owner of {key} (line {number})"))
        else:
            targets.setdefault(key, {"recipes": {}}).update(owner)
    for block in reading.blocks:
        entry = _entry(block, reading.lost, twice)
        recipes = targets.setdefault(block.target, {"recipes": {}})["recipes"]
        if entry is not None and (twice == "last" or block.path not in recipes):
            recipes[block.path] = entry
    targets.pop(UNKNOWN, None)
    if not reading.blocks and not re.search(r"^targets: \{\}", text, re.MULTILINE):
        reading.lost.append(Loss(UNKNOWN, "", "all of compose.lock: no entry is to be seen in it"))
    lost += reading.lost
    return targets


def _split(text: str) -> _Reading:
    reading = _Reading()
    lines = [(n, line) for n, line in enumerate(text.splitlines(), start=1) if line.strip()]
    for at, (number, line) in enumerate(lines):
        below = lines[at + 1][1] if at + 1 < len(lines) else ""
        _place(reading, number, line, inside=_column(below) >= _FIELD and "\t" not in below[:1])
    return reading


def _column(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _place(reading: _Reading, number: int, line: str, *, inside: bool) -> None:
    column, said = _column(line), line.strip()
    key, rest = _key(said)
    tab = line.lstrip(" ").startswith("\t")
    if key is not None and not rest and (tab or column not in (_TARGET, _RECIPE)):
        is_recipe = key.endswith((".yaml", ".yml"))
        column, tab = (_RECIPE if is_recipe else _TARGET), False
    if tab or column >= _FIELD:
        reading.stray(number, line, inside=True)
    elif key is not None and column == _TARGET and not rest:
        reading.open_target(number, key)
    elif key is not None and column == _RECIPE:
        reading.open_entry(number, key, rest)
    elif _OURS.match(said) and column in (0, _BELOW_TARGET):
        if said.startswith("owner:"):
            reading.owners.append((reading.target or UNKNOWN, number, said))
    elif _OF_AN_ENTRY.match(said) or column in (0, 1, _BELOW_TARGET):
        reading.stray(number, line, inside=inside)
    elif column < _BELOW_TARGET:
        reading.open_target(number, None)
    else:
        reading.open_entry(number, None)


def _key(said: str) -> tuple[str | None, str]:
    """The quoted key that a line begins with, and what follows its colon."""
    found = _QUOTED.match(said)
    if found is None:
        return None, ""
    try:
        return str(json.loads(found[1])), found[2].strip()
    except ValueError:
        return None, ""


def _entry(block: Block, lost: list[Loss], twice: str) -> Plain | None:
    """The entry's values; of one that is broken, those of its fields that can be read."""
    if not block.path or block.target == UNKNOWN:
        lost.append(Loss(block.target, "", block.named))
        return None
    whole = _plain("\n".join(line for _, line in block.lines), twice)
    if whole is not None:
        return whole
    kept: Plain = {}
    for number, lines in _fields(block):
        found = _plain("\n".join(lines), twice)
        if found is None:
            lost.append(Loss(block.target, block.path, f"{block.named}, line {number}"))
        else:
            kept.update(found)
    return kept if "name" in kept else None


def _fields(block: Block) -> Iterator[tuple[int, list[str]]]:
    """The lines of each field, with the number of the first."""
    number, lines = 0, list[str]()
    for at, line in block.lines:
        starts = _column(line) <= _FIELD and not line.lstrip(" ").startswith("\t")
        if starts and lines:
            yield number, lines
            lines = []
        number = number if lines else at
        lines.append(line)
    if lines:
        yield number, lines


def _plain(text: str, twice: str = "last") -> Plain | None:
    try:
        plain = read_yaml(text, _SOURCE, twice=twice)
    except InvalidInput:
        return None
    return plain if isinstance(plain, dict) else None
