"""From YAML text to a tree of values, by the parser's events alone.

Nothing is composed or constructed, so an alias bomb never unfolds and a deep file never reaches
the code that can't bear it: the first anchor, alias, tag, merge key or 21st level ends the walk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import yaml

from composer.recipes.characters import unsafe_words
from composer.recipes.nodes import KeyPath, Node, Place, Report, quoted, said
from composer.recipes.scalars import Trouble, read
from composer.text import UNSAFE, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 20
MAX_VALUES = 2_000  # keys count too; a recipe has some dozen

# libyaml where PyYAML was built with it: thirty times faster, same events.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_YAML_TAG = "tag:yaml.org,2002:"  # what !! stands for
_OK_IN_TEXT = frozenset("\n\t")


class _End(Exception):
    """The walk ends here; the reason is reported."""


@dataclass(slots=True)
class Document:
    """What was read: `root` is None for an empty file. `keys` are the top level's so far."""

    root: Node | None = None
    complete: bool = False
    keys: list[str] = field(default_factory=list)


def read_document(text: str, report: Report, *, loader: Any = LOADER) -> Document:
    """The first document of a YAML text; everything wrong with the YAML goes into the report."""
    document = Document()
    walk = _Walk(yaml.parse(text, Loader=loader), report, document)
    try:
        document.root = walk.document()
        document.complete = True
        if document.root:
            walk.end()
    except _End:
        pass
    except yaml.YAMLError as error:
        _report_syntax(error, report)
    return document


_DEEP = ("E209", f"nested deeper than {MAX_DEPTH} levels", "a recipe has four levels")
# What libyaml and PyYAML's own parser say in different words, and what it means.
_SYNTAX = {
    "exceeded maximum nesting depth": _DEEP,  # libyaml 0.2.6, which looks ahead of its events
    "cannot start any token": (
        "E204",
        "invalid YAML: a value can't begin with a tab or with this character",
        "indent with spaces, and quote a string that begins with a special character",
    ),
    "mapping values are not allowed": (
        "E204",
        "invalid YAML: a colon is not allowed here",
        "quote a string that contains a colon, and check the indentation",
    ),
}
_CHECK = "check the indentation, quotes and brackets, here and on the line above"


def _report_syntax(error: yaml.YAMLError, report: Report) -> None:
    mark = getattr(error, "problem_mark", None)
    place = Place(mark.line + 1, mark.column + 1) if mark else Place()
    said_there = getattr(error, "problem", None) or str(error)
    known = (words for theirs, words in _SYNTAX.items() if theirs in said_there)
    report.add(place, *next(known, ("E204", f"invalid YAML: {visible(said_there)}", _CHECK)))


@dataclass(slots=True)
class _Walk:
    """Takes events one by one and builds nodes; `place` is where the last event began."""

    events: Iterator[Any]
    report: Report
    read_so_far: Document
    place: Place = field(default_factory=Place)
    count: int = 0

    def document(self) -> Node | None:
        self._next()  # the stream's start
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            return None
        if event.tags:
            self._end("E207", "a %TAG directive: a recipe has no YAML tags", "remove it")
        root = self._node(self._next(), (), 1)
        self._next()  # the document's end
        return root

    def end(self) -> None:
        """Reports a second document, if there is one."""
        if isinstance(self._next(), yaml.DocumentStartEvent):
            hint = "write one recipe per file; move the others to files of their own"
            self._end("E205", "a second document begins here", hint)

    def _next(self) -> Any:
        try:
            event = next(self.events)
        except (ValueError, OverflowError):  # PyYAML without libyaml: "\UFFFFFFFF", %YAML 1.99…
            self._end("E204", "invalid YAML: an impossible escape sequence or YAML version", _CHECK)
        self.place = _place(event)
        return event

    def _end(self, code: str, message: str, hint: str) -> NoReturn:
        self.report.add(self.place, code, message, hint)
        raise _End

    def _node(self, event: Any, path: KeyPath, depth: int) -> Node:
        self._check(event, depth)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path, depth)
        return self._mapping(path, depth)

    def _check(self, event: Any, depth: int) -> None:
        """Ends the walk at what a recipe never has."""
        self.count += 1
        if isinstance(event, yaml.AliasEvent):
            self._end("E206", f"*{_short(event.anchor)} is an alias", "write the value itself")
        if event.anchor is not None:
            self._end("E206", f"&{_short(event.anchor)} is an anchor", "remove it")
        if event.tag is not None:
            hint = "remove it, and quote the value if it is a string"
            self._end("E207", f"{_short(event.tag)} is a YAML tag", hint)
        if depth > MAX_DEPTH and isinstance(event, yaml.CollectionStartEvent):
            self._end(*_DEEP)
        if self.count > MAX_VALUES:
            self._end("E209", f"more than {MAX_VALUES:,} values", "a recipe has a few dozen")

    def _scalar(self, event: Any, path: KeyPath) -> Node:
        place, text = self.place, event.value
        if self._unsafe(text, path):
            return Node(place, text, text, refused=True)
        value = read(text) if event.implicit[0] else text
        if isinstance(value, Trouble):
            self.report.add(place, value.code, said(path, visible(value.message)), value.hint)
            return Node(place, text, text, refused=True)
        return Node(place, value, text)

    def _unsafe(self, text: str, path: KeyPath) -> bool:
        """Whether escapes brought in what `decode` refuses in the raw text; reported."""
        bad = dict.fromkeys(c for c in UNSAFE.findall(text) if c not in _OK_IN_TEXT)
        for character in bad:
            code, what = unsafe_words(character)
            self.report.add(self.place, code, said(path, f"contains {what}"), "remove it")
        return bool(bad)

    def _sequence(self, path: KeyPath, depth: int) -> Node:
        place = self.place
        children: dict[str | int, Node] = {}
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            index = len(children)
            children[index] = self._node(event, (*path, index), depth + 1)
        values = [child.value for child in children.values()]
        return Node(place, values, children=children)

    def _mapping(self, path: KeyPath, depth: int) -> Node:
        place = self.place
        keys: dict[str, Place] = {}
        children: dict[str | int, Node] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            at = self.place
            key = self._key(event, path, depth)
            child = self._node(self._next(), (*path, key or ""), depth + 1)
            if key is None:
                continue
            if key in keys:
                self._twice(key, path, keys[key], at)
            else:
                keys[key], children[key] = at, child
        value = {key: child.value for key, child in children.items()}
        return Node(place, value, children=children, keys=keys)

    def _key(self, event: Any, path: KeyPath, depth: int) -> str | None:
        """A key's text: whatever its type, only a known key is ever of use. None if it has none."""
        if not isinstance(event, yaml.ScalarEvent):
            self._check(event, depth)
            self.report.add(
                self.place, "E213", said(path, "a key is not a string"), "write a plain word"
            )
            self._node(event, path, depth + 1)
            return None
        if event.implicit[0] and event.value == "<<":
            hint = "write out the keys that it merges"
            self._end("E208", said(path, "<< merges another mapping"), hint)
        self._check(event, depth)
        self._unsafe(event.value, path)
        if depth == 1:
            self.read_so_far.keys.append(event.value)
        return str(event.value)

    def _twice(self, key: str, path: KeyPath, first: Place, second: Place) -> None:
        where = f"line {first.line}" if first.line != second.line else "this line"
        message = said(path, f"the key {quoted(key)} is already on {where}")
        self.report.add(second, "E212", message, "keep one of the two")


def _short(name: str | None) -> str:
    return visible(shorten((name or "").replace(_YAML_TAG, "!!"), 40))


def _place(event: Any) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)
