"""The use cases: what a program can do with a project of recipes, each as a method of `Project`.

The command line and other people's programs call these. Nothing here prints, exits or reads the
environment: what a caller may want to show comes back as a value, or by a callback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.project.options import ApplyOptions, PlanOptions, Selection
from composer.project.project import Project

if TYPE_CHECKING:
    from composer.project.planning import ReviewedPlan

__all__ = ["ApplyOptions", "PlanOptions", "Project", "ReviewedPlan", "Selection"]


def __getattr__(name: str) -> object:
    if name != "ReviewedPlan":  # it brings every output format along: imported when it is used
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from composer.project.planning import ReviewedPlan

    return ReviewedPlan
