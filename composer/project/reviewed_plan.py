"""A plan as a reader gets it: with prices, advice, what is allowed, and every output format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.output.plan_formats import PLAN_FORMATS
from composer.output.plan_view import PlanView
from composer.project.approval import check_approved

if TYPE_CHECKING:
    from composer.planner import Action
    from composer.project.options import PlanOptions


@dataclass(frozen=True, slots=True)
class ReviewedPlan(PlanView):
    """What `Project.plan` returns. `plan` is the bare plan; the rest is what is shown with it."""

    @property
    def actions(self) -> tuple[Action, ...]:
        """The answer to every recipe, by path."""
        return self.plan.actions

    @property
    def changes(self) -> tuple[Action, ...]:
        """The actions that change something on the target."""
        return self.plan.changes

    @property
    def blocked(self) -> tuple[Action, ...]:
        """The actions that a problem on the target stops."""
        return self.plan.blocked

    @property
    def digest(self) -> str:
        """64 hex digits for all changes together: what `ApplyOptions.expect` compares."""
        return self.plan.digest

    def check(self, options: PlanOptions) -> None:
        """Raise `Refused` where `locked`, `expect` or `digest` don't allow this plan.

        Guards are not asked here: a plan may be shown that `apply` would refuse.
        """
        check_approved(self.plan, options)

    def to_text(self) -> str:
        """The plan for a terminal."""
        return PLAN_FORMATS["text"](self)

    def to_json(self) -> str:
        """The plan for programs, by the published schema `plan`."""
        return PLAN_FORMATS["json"](self)

    def to_markdown(self) -> str:
        """The plan for a review comment, within `budget`."""
        return PLAN_FORMATS["markdown"](self)
