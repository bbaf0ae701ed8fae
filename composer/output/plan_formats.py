"""The formats of a plan, by name: `compose plan -o` offers them, in this order.

A new format is one function from a `PlanView` to a string, and its line here.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from composer.output.plan_findings import github, sarif
from composer.output.plan_json import as_json
from composer.output.plan_markdown import markdown
from composer.output.plan_text import text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from composer.output.plan_view import PlanView

PLAN_FORMATS: Mapping[str, Callable[[PlanView], str]] = MappingProxyType(
    {"text": text, "json": as_json, "markdown": markdown, "github": github, "sarif": sarif}
)
