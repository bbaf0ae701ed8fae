"""Before a plan: the intents of a run that was cut off are found on the target, or given up.

A POST that was sent may still become visible within the grace, so we wait for that long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.executor.creator import Stopped
from composer.planner import models_of_intents
from composer.targets.base import observe, pause_within

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from composer.lock import Ledger
    from composer.model import Intent, Observed, Recipe
    from composer.targets.base import Target

_UNDER_WAY = 60.0  # seconds after which a POST has taken effect, or won't


def recover(
    recipes: Sequence[Recipe],
    target: Target,
    ledger: Ledger,
    *,
    grace: float,
    stop: threading.Event,
) -> Observed:
    """What the target looks like, once no intent is open any more.

    Raises `Stopped` if asked to stop, and what the target raises.
    """

    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise Stopped

    def seen_by(intent: Intent) -> float:
        """When its model would be seen: a killed run's POST may have taken effect after that."""
        return max(intent.at, min(began, intent.at + _UNDER_WAY)) + grace

    began = ledger.clock()
    while True:
        now = ledger.clock()
        observed = observe(
            target, recipes, ledger.memory, grace=grace, clock=ledger.clock, pause=pause
        )
        if not ledger.memory.intents:
            return observed
        for intent, model in models_of_intents(ledger.memory, observed):
            ledger.found(intent, model.id)
        ledger.refresh()
        for intent in ledger.memory.intents:
            if now >= seen_by(intent):
                ledger.expire(intent)
        ledger.refresh()
        if ledger.memory.intents:
            pause(pause_within(grace))
