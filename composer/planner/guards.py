"""The dangers of a plan, each with the flag that allows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.errors import CredentialsError
from composer.planner.plan import Guard, Verb

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from composer.model import KnownState, Observed, Recipe
    from composer.planner.plan import Action

ALLOW_EMPTY = "--allow-empty"
ALLOW_LARGE = "--allow-large-change"
LARGE_SHARE = 0.30
LARGE_COUNT = 3


def dangers(
    recipes: Sequence[Recipe], actions: Iterable[Action], memory: KnownState, observed: Observed
) -> Iterator[Guard]:
    """All that apply would refuse, gravest first."""
    stranger = other_owner(memory, observed)
    if stranger is not None:
        yield stranger
    entries = len(memory.entries)
    if entries and not recipes:
        yield Guard(f"no recipe is left, but the lock has {entries} entries", ALLOW_EMPTY)
    yield from _large(list(actions), entries)
    yield from _all_gone(memory, observed)


def other_owner(memory: KnownState, observed: Observed) -> Guard | None:
    """The danger of another team's credentials, which nothing allows."""
    if not (memory.owner and observed.owner and memory.owner != observed.owner):
        return None
    return Guard(
        f"the lock belongs to {memory.owner}, but these credentials to {observed.owner}:"
        " wrong credentials or project",
        error=CredentialsError,
    )


def _large(actions: list[Action], entries: int) -> Iterator[Guard]:
    hit = [a for a in actions if a.verb is Verb.REPLACE or _deletes_its_composition(a)]
    if len(hit) >= LARGE_COUNT and len(hit) > LARGE_SHARE * entries:
        yield Guard(
            f"{len(hit)} of {entries} compositions would be replaced or deleted", ALLOW_LARGE
        )


def _deletes_its_composition(action: Action) -> bool:
    return action.entry is not None and action.entry.composition in action.transition.deletes


def _all_gone(memory: KnownState, observed: Observed) -> Iterator[Guard]:
    """Another project's credentials look just like this: everything of ours is missing."""
    locked = [entry.composition for entry in memory.entries.values() if entry.composition]
    if observed.remote and locked and not any(observed.get(id) for id in locked):
        yield Guard(
            f"none of the {len(locked)} locked compositions is on the target:"
            " is this the right project?",
            ALLOW_LARGE,
        )
