"""What a caller may say about a use case, each as one value that travels down unchanged.

`PlanOptions` extends the planner's own options, and `ApplyOptions` extends those, so that the
value which the command line builds is the value that the planner reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.planner import ALLOW_EMPTY, ALLOW_LARGE, Options

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Selection:
    """Which recipe files are meant: files or folders, and globs relative to the project's root.

    Without paths: the folder `recipes/`.
    """

    paths: tuple[Path, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


ALL_RECIPES = Selection()


@dataclass(frozen=True, slots=True)
class PlanOptions(Options):
    """How to plan. `locked` refuses a plan that adds or moves a pin; the `allow_` flags allow what
    a guard would refuse. `Project` fills in `selected`.
    """

    allow_empty: bool = False
    allow_large_change: bool = False
    locked: bool = False

    @property
    def allowed(self) -> frozenset[str]:
        """The flags that guards ask for, as they are written on the command line."""
        flags = {ALLOW_EMPTY: self.allow_empty, ALLOW_LARGE: self.allow_large_change}
        return frozenset(flag for flag, given in flags.items() if given)


PLAN_DEFAULTS = PlanOptions()


@dataclass(frozen=True, slots=True)
class ApplyOptions(PlanOptions):
    """How to apply; times are in seconds, and None is the target's own value.

    `expect` is the digest of the plan that was approved (8 to 64 hex digits), or the path of a
    JSON file with that plan; `digest` is all 64 digits that the file's changes must have.
    `max_cost` is in the target's units, for all trainings together.
    """

    expect: str | None = None
    digest: str | None = None
    no_wait: bool = False
    timeout: float = 900.0
    poll_interval: float | None = None
    grace: float | None = None
    max_cost: float | None = None
    parallelism: int = 8
    lock_timeout: float = 0.0


APPLY_DEFAULTS = ApplyOptions()
