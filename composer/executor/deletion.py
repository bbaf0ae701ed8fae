"""Deleting what a plan deletes, and bringing the ledger to what is left.

Each deletion follows a look just before it: type, mark, and that no other entry names the id.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.errors import TargetError
from composer.model import TRAINED
from composer.planner import Verb, entry_left_behind, entry_without

if TYPE_CHECKING:
    from composer.executor.creator import Creator
    from composer.planner import Action


def remove(creator: Creator, action: Action) -> None:
    """Carry out a delete, a forget, or leave alone. Raises `TargetError`."""
    ledger, entry, transition = creator.ledger, action.entry, action.transition
    assert entry is not None, "only an entry can be removed"
    if action.verb is Verb.BLOCKED:
        ledger.unsettled(action.path)
        return
    for id in transition.deletes:
        _delete(creator, action, id)
    rest = creator.release(action)
    for id in entry.all_ids:
        creator.mark_ours(id)
    if action.transition.keeps_entry:
        left = replace(
            entry_without(entry, action.transition.deletes), replaced=action.transition.supersedes
        )
        if entry.candidates:  # the next apply decides what becomes of them
            ledger.unsettled(action.path)
    elif action.verb is Verb.LEAVE or rest.transition.supersedes:  # something could not be dropped
        left = entry_left_behind(rest)
    else:
        ledger.forget(action.path)
        return
    if left != replace(entry, candidates=()):
        ledger.record(action.path, left)


def _delete(creator: Creator, action: Action, id: str) -> None:
    fresh = creator.target.get_models([id]).get(id)
    if fresh is None or fresh.gone:
        return
    if not creator.may_delete(fresh, action.path):
        raise TargetError(
            f"{id} is not deleted: it is the {fresh.type} {fresh.name}, and not ours alone",
            hint=f"compose forget '{action.path}' lets go of it",
        )
    if not (fresh.untrained or fresh.status == TRAINED):
        creator.target.cancel(id)
    creator.target.delete(id)
    creator.ledger.marked(id)
