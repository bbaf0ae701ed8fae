"""The formats of a plan, by name: `compose plan -o` offers them, in this order; and what stands in
a review's place where recipes or lock can't be read, and there is no plan.

A new format is one function from a `PlanView` to a string, and its line here.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from composer.errors import Problem
from composer.output import problems
from composer.output.plan_findings import LOCK, RULES, UNREADABLE, github, sarif
from composer.output.plan_json import as_json
from composer.output.plan_markdown import markdown
from composer.output.plan_text import text
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from composer.errors import InvalidInput
    from composer.output.budget import Budget
    from composer.output.plan_view import PlanView

PLAN_FORMATS: Mapping[str, Callable[[PlanView], str]] = MappingProxyType(
    {"text": text, "json": as_json, "markdown": markdown, "github": github, "sarif": sarif}
)


def invalid(bad: InvalidInput, output_format: str, budget: Budget) -> str:
    """What is wrong with recipes or lock, where a review looks for the plan.

    Empty for text and JSON: the command line prints the same as text on stderr.
    """
    hint = visible(bad.hint or "")
    unread = Problem(LOCK, 0, 0, UNREADABLE, visible(bad.message), hint)
    listed = bad.problems or (unread,)
    if output_format == "github":
        return f"{problems.github(listed)}\n"
    if output_format == "sarif":
        return problems.sarif(listed, RULES)
    if output_format == "markdown":
        return problems.markdown(listed, files=bad.files, budget=budget)
    return ""
