"""What `compose init` did, and what to do next."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from composer.model import ADDED, CREATED, KEPT, LEFT
from composer.output.style import aligned, dumped, painted
from composer.text import counted, visible

if TYPE_CHECKING:
    from composer.model import Setup

FORMAT_VERSION = 1
_SIGNS = {CREATED: "+", ADDED: "+", KEPT: "=", LEFT: "!"}
_COLOURS = {CREATED: "green", ADDED: "green", KEPT: "dim", LEFT: "yellow"}
_WORDS = {CREATED: "created", ADDED: "added to", KEPT: "kept", LEFT: "by hand"}
_MOST_REJECTED = 5


def text(setup: Setup, *, flags: str = "", color: bool = False) -> str:
    """A line for each file and setting, what can't be used, and the next command.

    That ends in `flags`, where it needs some.
    """
    rows = [
        [f"{_SIGNS[step.state]} {_WORDS[step.state]}", visible(step.path), visible(step.note)]
        for step in setup.steps
    ]
    lines = [
        painted(line, _COLOURS[step.state], color=color)
        for step, line in zip(setup.steps, aligned(rows), strict=True)
    ]
    reasons = [f"not usable: {visible(why)}" for _, why in sorted(setup.rejected.items())]
    more = len(reasons) - _MOST_REJECTED
    reasons = [*reasons[:_MOST_REJECTED], *([f"not usable: {more} more"] if more > 0 else [])]
    found = f"{counted(setup.loras, 'LoRA')} found."
    is_done = all(step.state == KEPT for step in setup.steps)
    done = " Nothing was left to do." if is_done else ""
    tail = [f"{found}{done}", f"Next: {next_step(setup, flags)}"]
    return "\n".join([f"Project: {visible(setup.root)}", "", *lines, "", *reasons, *tail]) + "\n"


def next_step(setup: Setup, flags: str) -> str:
    """What to run now."""
    if setup.has_recipes:
        return f"compose plan{flags}"
    if setup.nearby:
        return f"compose init{flags} --library {visible(shlex.quote(setup.nearby))}"
    where = visible(setup.library) if setup.library else "recipes/loras/"
    return f"put LoRA files (.safetensors) into {where}, then run compose init{flags} again"


def as_json(setup: Setup, *, flags: str = "") -> str:
    """The same for programs."""
    steps = [
        {
            "path": step.path,
            "state": step.state,
            **({"note": step.note} if step.note else {}),
        }
        for step in setup.steps
    ]
    return dumped(
        {
            "formatVersion": FORMAT_VERSION,
            "root": setup.root,
            **({"library": setup.library} if setup.library else {}),
            "loras": setup.loras,
            "steps": steps,
            "rejected": dict(setup.rejected),
            "next": next_step(setup, flags),
        }
    )
