"""The use cases: what a program can do with a project of recipes, each as a method of `Project`.

The command line and other people's programs call these. Nothing here prints, exits or reads the
environment: what a caller may want to show comes back as a value, or by a callback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.late import late_names
from composer.project.project import Project
from composer.project.selection import Selection

if TYPE_CHECKING:
    from composer.project.options import ApplyOptions, PlanOptions
    from composer.project.planning import ReviewedPlan

__all__ = ["ApplyOptions", "PlanOptions", "Project", "ReviewedPlan", "Selection"]

# They bring the planner along, and one of them every output format.
__getattr__ = late_names(
    __name__, {"options": ("ApplyOptions", "PlanOptions"), "planning": ("ReviewedPlan",)}
)
