"""From a file's bytes to a tree of values with their places.

`decode` accepts UTF-8 without characters that could mislead a reader or a terminal. `read_document`
walks the events of the YAML parser. Nothing is composed or constructed, so an alias bomb is never
expanded, and a deep file never reaches code that can't handle it: the first anchor, alias, tag,
merge key or 21st level ends the walk.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import yaml

from composer.recipes.problems import LONGEST_SHOWN, KeyPath, Place, Report, at_path, quoted
from composer.recipes.scalars import ScalarProblem, read
from composer.text import BIDI, UNSAFE, counted, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAX_DEPTH = 20
MAX_VALUES = 2_000  # keys count too; a recipe has some dozen

# libyaml where PyYAML was built with it: thirty times faster, same events.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_YAML_TAG = "tag:yaml.org,2002:"  # what !! stands for
_OK_IN_TEXT = frozenset("\n\t")
_OK_IN_FILE = frozenset("\n\t\r")
_LINE_END = re.compile("\r\n|\n|\r")


class Node(NamedTuple):
    """One value of a file. `value` is plain Python (dict, list, str, int, float, bool, None).

    `text` is a scalar's source, which has a number's decimals. `refused`: a problem of this scalar
    has been reported, so `value` means nothing and no other problem is reported.
    """

    place: Place
    value: object
    text: str = ""
    refused: bool = False
    children: Mapping[str | int, Node] = MappingProxyType({})
    keys: Mapping[str, Place] = MappingProxyType({})  # where a mapping's keys begin

    def at(self, path: Iterable[str | int]) -> Node:
        """The node at this path."""
        node = self
        for step in path:
            node = node.children[step]
        return node

    @property
    def shown(self) -> str:
        """The scalar for a message: a string in quotes, shortened, safe to print."""
        if isinstance(self.value, str):
            return quoted(self.value)
        return visible(shorten(self.text, LONGEST_SHOWN))


# --- characters --------------------------------------------------------------------------


def decode(data: bytes, report: Report) -> str | None:
    """The text of a file, None if it is not text. Problems are reported.

    A byte order mark is removed (Windows editors write it). Each refused character is replaced by
    U+FFFD, so that the rest is still read, at the right place.
    """
    if b"\0" in data or data.startswith((b"\xff\xfe", b"\xfe\xff")):
        _report_nul(data, report)
        return None
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        place = place_of(data[: error.start].decode("utf-8").removeprefix("\ufeff"))
        what = f"the byte 0x{data[error.start]:02x} is not valid UTF-8"
        report.add(place, "E201", what, "save the file as UTF-8")
        return None
    _report_unsafe(text, report)
    return UNSAFE.sub(lambda match: match[0] if match[0] in _OK_IN_FILE else "\ufffd", text)


def _report_nul(data: bytes, report: Report) -> None:
    if b"\0" in data[:2] or data.startswith((b"\xff\xfe", b"\xfe\xff")):
        report.add(Place(1, 1), "E201", "looks like UTF-16", "save the file as UTF-8")
        return
    before = data[: data.index(b"\0")].decode("utf-8", "replace")
    message = "contains the control character U+0000, so it is not a text file"
    report.add(place_of(before), "E202", message, "write the file in a text editor, as UTF-8")


def _report_unsafe(text: str, report: Report) -> None:
    """Report each unsafe code point once, where it first occurs."""
    counts = Counter(c for c in UNSAFE.findall(text) if c not in _OK_IN_FILE)
    for character, times in counts.items():
        code, what = unsafe_words(character)
        more = f" ({counted(times, 'time')})" if times > 1 else ""
        place = place_of(text[: text.index(character)])
        report.add(place, code, f"the file contains {what}{more}", _REMOVE_CHARACTER)


def unsafe_words(character: str) -> tuple[str, str]:
    """The code of the problem with a character, and its description by code point."""
    point = f"U+{ord(character):04X}"
    if BIDI.match(character):
        name = unicodedata.name(character, "").lower()
        return "E203", f"{point} ({name}), which changes the text direction"
    return "E202", f"the control character {point}"


def place_of(before: str) -> Place:
    """The place of the character after this text."""
    ends = list(_LINE_END.finditer(before))
    return Place(len(ends) + 1, len(before) - (ends[-1].end() if ends else 0) + 1)


def offset_of(text: str, place: Place) -> int:
    """How many characters of the text are before this place: what `place_of` undoes."""
    ends = [0, *(match.end() for match in _LINE_END.finditer(text))]
    return ends[place.line - 1] + place.column - 1


# --- YAML events -------------------------------------------------------------------------


class _End(Exception):
    """The walk ends here; the reason has been reported."""


@dataclass(slots=True)
class Document:
    """What was read: `root` is None for an empty file; `keys` are the top-level keys so far."""

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


_REMOVE_CHARACTER = "remove this character"
_DEEP = (
    "E209",
    f"nested deeper than {MAX_DEPTH} levels",
    "remove the nesting; a recipe has at most four levels",
)
_CODE_POINT = (
    "E204",
    "invalid YAML: this escape means no character",
    'write the character itself, or all of its code, as "\\U0001F9D9" for JSON\'s "\\ud83e\\uddd9"',
)
# Parts of the messages of libyaml and PyYAML, and the problem that each means.
_SYNTAX = {
    "exceeded maximum nesting depth": _DEEP,  # libyaml 0.2.6, which looks ahead of its events
    "invalid Unicode character escape": _CODE_POINT,
    "unknown escape character": (
        "E204",
        "invalid YAML: an unknown escape sequence",
        "write two backslashes for one, or use single quotes",
    ),
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
    parser_message = getattr(error, "problem", None) or str(error)
    problems = (problem for part, problem in _SYNTAX.items() if part in parser_message)
    report.add(place, *next(problems, ("E204", f"invalid YAML: {visible(parser_message)}", _CHECK)))


@dataclass(slots=True)
class _Walk:
    """Builds nodes from the events, one by one; `place` is where the last event began."""

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
            self._end("E207", "a %TAG directive: a recipe has no YAML tags", "remove the line")
        root = self._node(self._next(), (), 1)
        self._next()  # the document's end
        return root

    def end(self) -> None:
        """Report a second document, if there is one."""
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
        """End the walk at what no recipe has."""
        self.count += 1
        if isinstance(event, yaml.AliasEvent):
            self._end("E206", f"*{_short(event.anchor)} is an alias", "write the value itself")
        if event.anchor is not None:
            anchor = f"&{_short(event.anchor)}"
            self._end("E206", f"{anchor} is an anchor", f"remove {anchor}")
        if event.tag is not None:
            hint = "remove the tag, and quote the value if it is a string"
            self._end("E207", f"{_short(event.tag)} is a YAML tag", hint)
        if depth > MAX_DEPTH and isinstance(event, yaml.CollectionStartEvent):
            self._end(*_DEEP)
        if self.count > MAX_VALUES:
            self._end(
                "E209",
                f"more than {MAX_VALUES:,} values",
                "remove values; a recipe has a few dozen",
            )

    def _scalar(self, event: Any, path: KeyPath) -> Node:
        place, text = self.place, event.value
        if self._unsafe(text, path):
            return Node(place, text, text, refused=True)
        value = read(text) if event.implicit[0] else text
        if isinstance(value, ScalarProblem):
            self.report.add(place, value.code, at_path(path, visible(value.message)), value.hint)
            return Node(place, text, text, refused=True)
        return Node(place, value, text)

    def _unsafe(self, text: str, path: KeyPath) -> bool:
        """Report characters from escapes that `decode` refuses in the raw text; True if any."""
        bad = dict.fromkeys(c for c in UNSAFE.findall(text) if c not in _OK_IN_TEXT)
        for character in bad:
            code, what = unsafe_words(character)
            self.report.add(self.place, code, at_path(path, f"contains {what}"), _REMOVE_CHARACTER)
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
        """A key's text, whatever its type: only known keys are used. None for a list or mapping."""
        if not isinstance(event, yaml.ScalarEvent):
            self._check(event, depth)
            self.report.add(
                self.place, "E213", at_path(path, "a key is not a string"), "write a plain word"
            )
            self._node(event, path, depth + 1)
            return None
        if event.implicit[0] and event.value == "<<":
            hint = "copy the keys here and remove <<"
            self._end("E208", at_path(path, "<< merges another mapping"), hint)
        self._check(event, depth)
        self._unsafe(event.value, path)
        if depth == 1:
            self.read_so_far.keys.append(event.value)
        return str(event.value)

    def _twice(self, key: str, path: KeyPath, first: Place, second: Place) -> None:
        where = f"line {first.line}" if first.line != second.line else "this line"
        message = at_path(path, f"the key {quoted(key)} is already on {where}")
        self.report.add(second, "E212", message, "keep one of the two")


def _short(name: str | None) -> str:
    return visible(shorten((name or "").replace(_YAML_TAG, "!!"), 40))


def _place(event: Any) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)
