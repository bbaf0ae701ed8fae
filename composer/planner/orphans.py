"""Compositions with our mark that the lock doesn't name: `compose doctor` lists them. Pure.

They come from a lock that was lost, from another clone, or from another project on the same target;
nobody but a person can tell which, so nothing deletes them unasked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.model import COMPOSITION, MARK
from composer.planner.intents import known_ids

if TYPE_CHECKING:
    from composer.model import KnownState, Model, Observed


def orphans(memory: KnownState, observed: Observed) -> tuple[Model, ...]:
    """All of them, oldest first."""
    named = known_ids(memory)
    own = (model for id in observed.own if (model := observed.get(id)))
    found = [
        model
        for model in own
        if model.type == COMPOSITION and MARK in (model.tags or ()) and model.id not in named
    ]
    return tuple(sorted(found, key=lambda model: (model.created_at, model.id)))
