"""Markdown documents: other people's text made inert, and documents within a budget.

What comes from a recipe, the lock or an answer stands in a code span, where nothing is a link, a
mention, HTML or emphasis on any forge. GitHub looks for mentions, `#123` and commit hashes in the
rendered text, so escaping them character by character would not help.

A document is a head, sections of items, and a tail. An item is shown whole or not at all. What
doesn't fit is cut by importance, and a line says so; nothing less important is shown where
something more important had to go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Sequence


_CUT_ROOM = 2_000  # for the line that says what was cut


@dataclass(frozen=True, slots=True)
class Budget:
    """How large a document may be."""

    limit: int
    in_bytes: bool = False

    def size(self, text: str) -> int:
        return len(text.encode("utf-8", "replace")) if self.in_bytes else len(text)

    def __str__(self) -> str:
        return f"{self.limit:,} {'bytes' if self.in_bytes else 'characters'}"


# A comment on GitHub may have 65,536 characters; a job's summary 1 MiB.
COMMENT, SUMMARY = Budget(60_000), Budget(1024 * 1024, in_bytes=True)
BUDGETS = {"comment": COMMENT, "summary": SUMMARY}


@dataclass(frozen=True, slots=True)
class Section:
    """Items of one kind below their heading; the lowest rank is the most important."""

    noun: str  # what the items are: changes
    rank: int
    lead: str
    items: Sequence[str]
    gap: str = "\n"

    @property
    def text(self) -> str:
        return self.gap.join([self.lead, *self.items]) + "\n"


def fitted(head: str, sections: Sequence[Section], tail: str, budget: Budget, *, whole: str) -> str:
    """The document within its budget; `whole` is the command or file that has all of it."""
    document = _joined(head, sections, tail)
    if budget.size(document) <= budget.limit:
        return document
    kept = _most_important(sections, budget, budget.limit - budget.size(head + tail) - _CUT_ROOM)
    lost = [
        f"{len(section.items) - len(shown.items):,} of {len(section.items):,} {section.noun}"
        for section, shown in zip(sections, kept, strict=True)
        if len(shown.items) < len(section.items)
    ]
    cut = f"**Cut to {budget}.** Not shown: {', '.join(lost)}. The whole: {code(whole)}\n"
    return _joined(f"{head}\n{cut}", kept, tail)


def _joined(head: str, sections: Sequence[Section], tail: str) -> str:
    texts = [section.text for section in sections if section.items]
    return "\n".join(text for text in (head, *texts, tail) if text)


def _most_important(sections: Sequence[Section], budget: Budget, space: int) -> list[Section]:
    counts = dict.fromkeys(range(len(sections)), 0)
    for n in sorted(counts, key=lambda n: sections[n].rank):
        section = sections[n]
        space -= budget.size(section.lead) + 2 if section.items else 0
        for item in section.items:
            space -= budget.size(section.gap + item)
            if space < 0:
                return [replace(s, items=s.items[: counts[n]]) for n, s in enumerate(sections)]
            counts[n] += 1
    return list(sections)


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
