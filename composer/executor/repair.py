"""Bringing a lock right by what the target says: for `compose lock --repair`.

It plans as an apply does, and writes into the ledger what is true already; the target is only read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.planner import RepairedEntry, RepairReport, Verb, other_owner, plan
from composer.planner.conflicts import in_their_places
from composer.planner.repair import repaired
from composer.targets.base import observe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.lock import Ledger
    from composer.model import Entry, Recipe
    from composer.planner import Action, Options
    from composer.targets.base import Target


def repair(
    recipes: Sequence[Recipe],
    target: Target,
    ledger: Ledger,
    options: Options,
    *,
    torn: bool = False,
    dry_run: bool = False,
) -> RepairReport:
    """Choose among each entry's ids by what the target says, and find lost ones again.

    `torn`: a merge or a hand has mixed the lock's lines, so the target is believed before them.
    Raises what the target raises, and `CredentialsError` for another owner's lock.
    """
    observed = observe(target, recipes, ledger.memory, grace=target.grace)
    stranger = other_owner(ledger.memory, observed)
    if stranger is not None:
        raise stranger.error(stranger.message)
    memory = in_their_places(recipes, ledger.memory, observed, torn=torn)
    planned = plan(recipes, memory, observed, options)
    ledger.move(planned.moves)
    settled = {
        action.path: after for action in planned.actions if (after := repaired(action, observed))
    }
    gone = {action.path for action in planned.actions if _is_nothing(action)}
    changed = {path for path, after in settled.items() if after != ledger.entry(path)} | gone
    mended = [
        _told(action, settled.get(action.path))
        for action in planned.actions
        if action.path in changed
    ]
    blocked = tuple(_told(action, None) for action in planned.blocked)
    written = False
    if not dry_run:
        for path in sorted(changed):
            _record(ledger, path, settled.get(path))
        written = ledger.close(handled={*settled, *gone}, owner=observed.owner)
    return RepairReport(tuple(mended), blocked, written)


def _is_nothing(action: Action) -> bool:
    """Nothing is left of it, and nothing has to be deleted first."""
    return action.verb is Verb.FORGET and not action.transition.deletes_untrained


def _record(ledger: Ledger, path: str, entry: Entry | None) -> None:
    if entry is None:
        ledger.forget(path)
    else:
        ledger.record(path, entry)


_UNMADE = "the target has no model of this content: compose apply makes it"


def _told(action: Action, after: Entry | None) -> RepairedEntry:
    words = _UNMADE if action.verb in (Verb.CREATE, Verb.REPLACE) else action.explanation.reason
    return RepairedEntry(action.path, action.name, after.composition if after else None, words)
