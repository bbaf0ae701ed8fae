"""Text for places where other people read or a runner obeys: comments, issues, log lines.

Everything here is safe to show: called by all the other files of this folder.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMENT = 60_000  # characters; a comment on GitHub holds 65,536


def marker(kind: str, name: str) -> str:
    """The hidden first line by which a comment or an issue of ours is found again.

    `name` is one by `plan_name`: nothing in it could end the marker.
    """
    return f"<!-- compose:{kind}:{name} -->"


def visible(text: str) -> str:
    """Control, bidi and other unseen characters as `\\u{202e}`; line ends stay."""
    return "".join(c if c == "\n" or _is_seen(c) else f"\\u{{{ord(c):x}}}" for c in text)


def _is_seen(character: str) -> bool:
    return character == " " or unicodedata.category(character)[0] not in "CZ"


def fenced(text: str, language: str = "") -> str:
    """A block in which nothing is a link, a mention, HTML or the end of the block."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def code(text: str) -> str:
    """A code span for a cell of a table, whatever is in the text; one line."""
    shown = visible(" ".join(text.split())) or "(none)"
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if "`" in (shown[0], shown[-1]) else ""
    return f"{fence}{padding}{shown}{padding}{fence}".replace("|", "\\|")


def shortened(text: str, limit: int) -> str:
    """The text, or its beginning with a line that says that there was more."""
    if len(text) <= limit:
        return text
    return text[: limit - 100].rstrip() + f"\n... cut: {len(text):,} characters in all"


def command(kind: str, message: str, properties: Mapping[str, str]) -> str:
    """A workflow command: `::error file=recipes/a.yaml::...`; escaped as `@actions/core` does."""
    listed = ",".join(f"{key}={_property(value)}" for key, value in properties.items() if value)
    return f"::{kind} {listed}::{_data(message)}"


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")


def alike(one: str, other: str) -> bool:
    """Whether two bodies are the same to a reader: forges change line ends, and trim."""
    return one.replace("\r\n", "\n").strip() == other.replace("\r\n", "\n").strip()
