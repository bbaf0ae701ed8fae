"""Other people's text in our documents: what comes from a recipe, the lock or an answer.

In Markdown it stands in a code span, where nothing is a link, a mention, HTML or emphasis on any
forge. GitHub looks for mentions, `#123` and commit hashes in the rendered text, so escaping them
character by character would not help.
"""

from __future__ import annotations

import json
import re

from composer.text import shorten, visible

LONGEST = 600  # of one text in a document that has a budget
_NOTHING = "(none)"


def code(text: str) -> str:
    """A code span with this text, whatever is in it; one line."""
    shown = shorten(visible(text), LONGEST)
    shown = shown if shown.strip() else _NOTHING
    fence = "`" * (_longest_run(shown) + 1)
    padding = " " if "`" in (shown[0], shown[-1]) or shown[0] == shown[-1] == " " else ""
    return f"{fence}{padding}{shown}{padding}{fence}"


def cell(text: str) -> str:
    """The same for a cell of a table, where a bar ends the cell even in a code span."""
    return code(text).replace("|", "\\|")


def fenced(text: str, language: str = "") -> str:
    """A code block in which nothing is a link, a mention, HTML or the end of the block."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def _longest_run(text: str) -> int:
    """How many backticks stand in a row, at most."""
    return max((len(run) for run in re.findall("`+", text)), default=0)


def dumped(value: object) -> str:
    """JSON that can be shown in a CI log: `##` in a text can't become an order to the runner."""
    return json.dumps(value, indent=2, ensure_ascii=True).replace("##", "#\\u0023") + "\n"
