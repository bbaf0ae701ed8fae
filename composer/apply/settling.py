"""Before a plan: what an earlier run left in doubt is found on the target, or given up.

That is intents of a run that was cut off, and ids of ours that the target doesn't show: both may
still become visible within the grace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.apply.making import Stopped
from composer.plan import found_intents
from composer.target import observe

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from composer.entities import Memory, Observed, Recipe
    from composer.lockfile import Ledger
    from composer.target import Target


def settle(
    recipes: Sequence[Recipe],
    target: Target,
    ledger: Ledger,
    *,
    grace: float,
    stop: threading.Event,
) -> Observed:
    """What the target looks like, once no intent is open and no id of ours may only be late.

    Raises `Stopped` if asked to stop, and what the target raises.
    """
    missed: dict[str, float] = {}  # when this run first looked for an id in vain
    while True:
        now = ledger.clock()
        observed = observe(target, recipes, ledger.memory)
        late = _late(ledger.memory, observed, missed, now=now, grace=grace)
        if not ledger.memory.intents and not late:
            return observed
        for intent, model in found_intents(ledger.memory, observed):
            ledger.found(intent, model.id)
        ledger.refresh()
        for intent in ledger.memory.intents:
            if now - intent.at >= grace:  # by then it would have been seen
                ledger.expire(intent)
        ledger.refresh()
        if (ledger.memory.intents or late) and stop.wait(min(1.0, max(0.02, grace / 10))):
            raise Stopped


def _late(
    memory: Memory, observed: Observed, missed: dict[str, float], *, now: float, grace: float
) -> bool:
    """Whether an id that we name isn't seen, and its grace has not passed.

    The grace runs from the POST where the journal has it, else from this run's first look. With
    another owner's credentials nothing of ours is to be waited for: a guard will refuse.
    """
    if memory.owner and observed.owner and memory.owner != observed.owner:
        return False
    named = {*memory.made}
    for entry in memory.entries.values():
        current = (entry.composition, entry.next.composition if entry.next else None)
        named |= {*filter(None, current), *(candidate.id for candidate in entry.candidates)}
    unseen = named - {*observed.models}
    for id in unseen:
        missed.setdefault(id, memory.made[id].at if id in memory.made else now)
    return any(now - missed[id] < grace for id in unseen)
