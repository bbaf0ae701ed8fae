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
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if "`" in (shown[0], shown[-1]) or shown[0] == shown[-1] == " " else ""
    return f"{fence}{padding}{shown}{padding}{fence}"


def cell(text: str) -> str:
    """The same for a cell of a table, where a bar ends the cell even in a code span."""
    return code(text).replace("|", "\\|")


def dumped(value: object) -> str:
    """JSON that can be shown in a CI log: `##` in a text can't become an order to the runner."""
    return json.dumps(value, indent=2, ensure_ascii=True).replace("##", "#\\u0023") + "\n"
