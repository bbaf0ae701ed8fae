"""Compose LoRA models from recipes in YAML: the Python API.

    >>> from composer import Project, open_target
    >>> project = Project(".")
    >>> with open_target("local", project) as target:
    ...     report = project.apply(target, project.plan(target))
    >>> print(project.outputs())

`docs/python.md` documents it; `composer.lora` merges and inspects weights without a project.
Nothing in here prints or exits, and only `open_target` reads the environment. Warnings go to the
loggers `composer.*`. The names are imported when they are first used, so that importing `composer`
costs little.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from composer.late import late_names
from composer.version import __version__

if TYPE_CHECKING:
    from composer.errors import (
        Ambiguous,
        BadLora,
        CeilingReached,
        Check,
        ComposeError,
        CredentialsError,
        ExitStatus,
        InvalidInput,
        NotFound,
        Problem,
        Refused,
        TargetError,
        Unreachable,
        UsageError,
    )
    from composer.model import Concept, Content, Entry, Job, Lock, Model, Recipe
    from composer.planner import Action, Outcome, Plan, Report, Step, Verb
    from composer.previews.report import PreviewReport
    from composer.project import ApplyOptions, PlanOptions, Project, ReviewedPlan, Selection
    from composer.project.options import PreviewOptions, RendererOptions, SweepOptions
    from composer.project.sources import open_target
    from composer.renderers.base import Renderer
    from composer.targets.base import Target
    from composer.targets.kind import TargetOptions

# Without it Python prints warnings to stderr where the caller has set up no logging.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_NAMES = {
    "errors": (
        *("Ambiguous", "BadLora", "CeilingReached", "Check", "ComposeError", "CredentialsError"),
        *(
            "ExitStatus",
            "InvalidInput",
            "NotFound",
            "Problem",
            "Refused",
            "TargetError",
            "Unreachable",
        ),
        "UsageError",
    ),
    "model": ("Concept", "Content", "Entry", "Job", "Lock", "Model", "Recipe"),
    "planner": ("Action", "Outcome", "Plan", "Report", "Step", "Verb"),
    "previews.report": ("PreviewReport",),
    "project": ("ApplyOptions", "PlanOptions", "Project", "ReviewedPlan", "Selection"),
    "project.options": ("PreviewOptions", "RendererOptions", "SweepOptions"),
    "project.sources": ("open_target",),
    "renderers.base": ("Renderer",),
    "targets.base": ("Target",),
    "targets.kind": ("TargetOptions",),
}

__all__ = [
    "Action",
    "Ambiguous",
    "ApplyOptions",
    "BadLora",
    "CeilingReached",
    "Check",
    "ComposeError",
    "Concept",
    "Content",
    "CredentialsError",
    "Entry",
    "ExitStatus",
    "InvalidInput",
    "Job",
    "Lock",
    "Model",
    "NotFound",
    "Outcome",
    "Plan",
    "PlanOptions",
    "PreviewOptions",
    "PreviewReport",
    "Problem",
    "Project",
    "Recipe",
    "Refused",
    "Renderer",
    "RendererOptions",
    "Report",
    "ReviewedPlan",
    "Selection",
    "Step",
    "SweepOptions",
    "Target",
    "TargetError",
    "TargetOptions",
    "Unreachable",
    "UsageError",
    "Verb",
    "__version__",
    "open_target",
]


__getattr__ = late_names(__name__, _NAMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
