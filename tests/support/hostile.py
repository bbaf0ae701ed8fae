"""Texts that mean harm, and a plan that has a text at every place where one can be.

What may stand in a recipe, the lock or an answer and would do something in a document, a terminal
or the log of a workflow.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from support.fake_target import composition
from support.model_types import COMPOSITION
from support.rehearsal import recipe

from composer.model import Concept, Content
from composer.planner import (
    Action,
    Explanation,
    Guard,
    LockEdit,
    Plan,
    Transition,
    Update,
    Verb,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

HOSTILE = [
    "@team #123 GH-26 0123456789abcdef0123456789abcdef01234567",
    "[link](https://example.com) ![image](https://example.com/x.png)",
    "https://example.com www.example.com somebody@example.com",
    "<img src=x onerror=alert(1)> <!-- --> &lt;b&gt; </details>",
    "**bold** _it_ ~~gone~~ $x$ :tada: \\*",
    "`code` ``two`` ```three | a bar, a\\|b",
    "::error file=x::owned",
    "##[add-mask]x ##vso[task.setvariable]y",
    "\x1b[31mred\x1b]0;title\x07 \u202eturned\u2066 \x9b2J",
    "two\nlines\r\n# heading\n- item\n| a | b |",
    "> [!NOTE] # heading",
    "` | `",
]

# Pieces of them in any order, and anything else.
_PIECES = [*"`|\\\n\r\x1b\x9b\u202e#@:[]()<>*_~&$!-+. ", "::", "##[", "```", "\\|", "-->", "@team"]
_PIECES += ["http://x.io", "www.x.io", "#1", "GH-1", "deadbeef", "::error::", "](", "\u2028"]
texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.lists(st.sampled_from(_PIECES), min_size=1, max_size=12).map("".join),
    st.text(min_size=1, max_size=20),
)


def everywhere(some: Iterable[str]) -> Plan:
    """A plan in which every place for a text holds the next of these, over and over."""
    endless = cycle(some)

    def text() -> str:
        return next(endless)

    return Plan(
        text(),
        tuple(_action(f"{n:02} {text()}", verb, text) for n, verb in enumerate(Verb)),
        guards=(Guard(text()), Guard(text(), "--allow-empty")),
        notes=(text(),),
        lock_edits=(LockEdit(text(), text(), text()),),
    )


def _action(path: str, verb: Verb, text: Callable[[], str]) -> Action:
    words = Update((text(), text()), text(), (text(),))
    return Action(
        verb,
        path,
        text(),
        Explanation(
            text(),
            before=Content(COMPOSITION, (Concept("lora_ink", 0.5),)),
            labels={"lora_ink": text()},
            notes=(text(), text()),
            drift="drift: " + text(),
        ),
        recipe=recipe("a.yaml", "Knight", {}) if verb is not Verb.DELETE else None,
        content=Content(COMPOSITION, (Concept("lora_ink", 0.6),)),
        model=replace(composition("model_x", text(), {"lora_ink": 0.5}), description=text()),
        moved_from=text() if verb is Verb.KEEP else None,
        update=words if verb is Verb.UPDATE else Update(),
        transition=Transition(deletes=("model_y",) if verb is Verb.DELETE else ()),
    )
