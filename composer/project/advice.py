"""What the local target says of mixes: a line for each composition of a plan."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from composer.errors import BadLora

if TYPE_CHECKING:
    from collections.abc import Iterable

    from composer.model import Concept
    from composer.planner import Action, Plan
    from composer.targets.base import Target

log = logging.getLogger("composer.inspect")


@runtime_checkable
class Judging(Protocol):
    """A target that can look into LoRAs."""

    def verdict(self, concepts: Iterable[Concept]) -> str | None:
        """In one line, whether these LoRAs get into each other's way; None for one alone."""


def advice(planned: Plan, target: Target) -> dict[str, str]:
    """The verdict on each composition, by recipe, or why a LoRA allows none.

    Where there is none, the plan is as good.
    """
    found: dict[str, str] = {}
    if not isinstance(target, Judging):
        return found
    for action in planned.actions:
        try:
            verdict = target.verdict(concepts_of(action))
        except BadLora as bad:
            verdict = f"none, as training would fail: {bad.message}"
        except Exception as error:  # whatever it is, it must not break a plan
            log.debug("no verdict on %s: %s", action.path, error)
            continue
        if verdict is not None:
            found[action.path] = verdict
    return found


def concepts_of(action: Action) -> tuple[Concept, ...]:
    """The concepts in the order of the recipe; none where there is no recipe, or it is blocked."""
    if action.recipe is None or action.content is None:
        return ()
    pins = dict(action.transition.pins)
    order = [ref.model_id or pins.get(ref.name or "") for ref in action.recipe.concepts]
    return tuple(sorted(action.content.concepts, key=lambda c: order.index(c.model_id)))
