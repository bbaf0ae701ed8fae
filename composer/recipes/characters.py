"""From a file's bytes to text: UTF-8, and no character that could fool a reader or a terminal.

`parsing` calls `decode` first; `yaml_events` shares the words for characters that escapes bring in.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

from composer.recipes.nodes import Place
from composer.text import BIDI, UNSAFE, counted

if TYPE_CHECKING:
    from composer.recipes.nodes import Report

_OK_IN_FILE = frozenset("\n\t\r")
_LINE_END = re.compile("\r\n|\n|\r")


def decode(data: bytes, report: Report) -> str | None:
    """The text of a file, None if it has none. Problems are reported.

    A byte order mark is dropped (Windows editors write it). Each character that is refused gives
    way to U+FFFD: so everything after it is still read, at its place.
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
    report.add(place_of(before), "E202", message, "write the recipe in a text editor, as UTF-8")


def _report_unsafe(text: str, report: Report) -> None:
    """One problem for each code point, where it is first."""
    counts = Counter(c for c in UNSAFE.findall(text) if c not in _OK_IN_FILE)
    for character, times in counts.items():
        code, what = unsafe_words(character)
        more = f" ({counted(times, 'time')})" if times > 1 else ""
        place = place_of(text[: text.index(character)])
        report.add(place, code, f"the file contains {what}{more}", "remove it")


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
