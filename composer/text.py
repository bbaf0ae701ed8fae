"""Small helpers for text that people read, and a project's two names.

Every package may use them, and they import none.

Whatever comes from a file or an answer goes through `visible` before it is printed, so that a
name can't move the cursor, change colours or the text direction of a terminal, or give commands
to a CI runner that reads the log.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STATE_VARIABLE = "COMPOSE_STATE_DIR"  # of the environment: where projects keep their state
LOCK_NAME = "compose.lock"  # the lock's file name, in the project's root
SETTINGS_NAME = "compose.toml"  # that of the settings, beside it
RECIPES_FOLDER = "recipes"  # below the root

# Control characters, the line separators of Unicode, lone surrogates and noncharacters.
_CONTROL = "[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
# Those that change the text direction (Unicode's Bidi_Control and the older six).
BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f]")

UNSAFE = re.compile(f"{_CONTROL}|{BIDI.pattern}")
# Commands to a CI runner: `::error` where a line begins, `##[error]` and `##vso[` anywhere.
_COMMAND = r"(?<=#)#|\A\s*:(?=:)"
_HIDDEN = re.compile(f"{UNSAFE.pattern}|{_COMMAND}")
_UNSEEN = {"Cc", "Cf", "Mn", "Zl", "Zp", "Zs"}
# Hangul's fillers, the blank Braille pattern, and the block of tag characters.
_FILLERS = re.compile("[\u115f\u1160\u2065\u2800\u3164\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]")
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_MOST_POINTS = 8  # code points that a message shows
_LONGEST_WORD = 80  # a longer one is not a typing error, and comparing it takes time


def visible(text: str) -> str:
    """The text with control and bidi characters as escapes: one line, safe to print."""
    return _HIDDEN.sub(lambda match: "".join(map(_escaped, match[0])), text)


def one_line(text: str) -> str:
    """The text with its white space, line breaks too, as single spaces."""
    return " ".join(text.split())


def canonical(text: str) -> str:
    """Equal for texts that differ only in Unicode normalisation, so that nobody sees a difference.

    An é is one code point (U+00E9), or an e with an accent (U+0065 U+0301).
    """
    return unicodedata.normalize("NFC", text)


def code_points(text: str, other: str) -> str:
    """The code points of a text from its first difference to another one: `U+0065 U+0301`."""
    start = _common(text, other)
    end = len(text) - _common(text[start:][::-1], other[start:][::-1])
    different = text[start:end]
    points = " ".join(f"U+{ord(character):04X}" for character in different[:_MOST_POINTS])
    return points + "…" * (len(different) > _MOST_POINTS)


def _common(text: str, other: str) -> int:
    """How many characters both have at the start."""
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False))
    )


def visible_lines(text: str) -> str:
    """A text of several lines, for a Markdown block: every character that can't be seen, escaped.

    Spaces and line feeds stay. It is stricter than `visible`: other spaces and characters without
    a width are escaped too. Headings (`##`) stay, so it is not for a log.
    """
    return "".join(c if c in " \n" or _is_seen(c) else _escaped(c) for c in text)


def _is_seen(character: str) -> bool:
    return unicodedata.category(character)[0] not in "CZ"


def is_invisible(text: str) -> bool:
    """Whether no character of it can be seen: spaces, zero-width and tag characters, fillers."""
    return all(unicodedata.category(c) in _UNSEEN for c in _FILLERS.sub("", text))


def _escaped(character: str) -> str:
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def shorten(text: str, limit: int) -> str:
    """The text, cut to at most `limit` characters with an ellipsis at the end."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def did_you_mean(word: str, options: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """The option most similar to the word, ignoring case; None if none is similar enough.

    `likeness` is the minimum similarity ratio of `difflib`, 0 to 1.
    """
    if len(word) > _LONGEST_WORD:
        return None
    from difflib import get_close_matches  # only a wrong word needs it

    folded = {option.casefold(): option for option in options}
    close = get_close_matches(word.casefold(), folded, n=1, cutoff=likeness)
    return folded[close[0]] if close else None


def listed(names: Sequence[str], *, most: int = 3) -> str:
    """The first of these names, and how many more there are: `a, b, c and 4 more`."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def joined(names: Sequence[str]) -> str:
    """All of these names: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def amount(number: float) -> str:
    """A price for people, and for a limit that allows it: at most 4 decimals, none at the end."""
    return f"{number:.4f}".rstrip("0").rstrip(".")


def percent(share: float) -> str:
    """`4.2%`, of 0..1; what is not nothing is never shown as nothing."""
    return "under 0.1%" if 0 < share < 0.001 else f"{share:.1%}"


def counted(n: int, noun: str) -> str:
    """A number and its noun: `1 recipe`, `4 recipes`, `2 entries`."""
    if n == 1:
        return f"1 {noun}"
    many = f"{noun[:-1]}ies" if re.search("[^aeiou]y$", noun) else f"{noun}s"
    return f"{n:,} {many}"
