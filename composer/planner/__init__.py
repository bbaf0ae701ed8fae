"""Planning: arithmetic on values. `plan(recipes, memory, observed, options) -> Plan`.

Knows no file, network or clock: equal inputs give equal plans. The commands render the plan;
`apply` carries it out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.model import KnownState
from composer.planner.conflicts import corrected, in_their_places
from composer.planner.deletions import Removal, repeated
from composer.planner.drift import drift_of
from composer.planner.guards import ALLOW_EMPTY, ALLOW_LARGE, dangers, other_owner
from composer.planner.identity import holds, matches, same_concepts, trusted
from composer.planner.importing import entry_of, recipe_of
from composer.planner.intents import exact, found_intents, known_ids, with_found
from composer.planner.lock_diff import MARKERS, LockNews, lock_news, unreadable
from composer.planner.matching import free_place, meet, own_entries
from composer.planner.offline import as_the_lock_says, is_stand_in, unasked
from composer.planner.orphans import orphans
from composer.planner.outdated import News, news
from composer.planner.pins import Pin, Pinning, pinned, unpinned
from composer.planner.plan import (
    CHANGES,
    Action,
    Explanation,
    Guard,
    LockEdit,
    Options,
    Plan,
    Transition,
    Update,
    Verb,
    digest_of_changes,
)
from composer.planner.repair import RepairedEntry, RepairReport, repaired
from composer.planner.report import DONE, Outcome, Report, Step
from composer.planner.transitions import arrived, left_behind, on_its_way, pruned
from composer.planner.truth_table import PlanningContext, decide

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from composer.model import Observed, Recipe, TargetLock

__all__ = [
    "ALLOW_EMPTY",
    "ALLOW_LARGE",
    "CHANGES",
    "DONE",
    "MARKERS",
    "Action",
    "Explanation",
    "Guard",
    "LockEdit",
    "LockNews",
    "News",
    "Options",
    "Outcome",
    "Pin",
    "Pinning",
    "Plan",
    "Removal",
    "RepairReport",
    "RepairedEntry",
    "Report",
    "Step",
    "Transition",
    "Update",
    "Verb",
    "arrived",
    "dangers",
    "digest_of_changes",
    "entry_of",
    "exact",
    "found_intents",
    "holds",
    "in_their_places",
    "is_stand_in",
    "known_ids",
    "left_behind",
    "lock_news",
    "matches",
    "meet",
    "news",
    "on_its_way",
    "orphans",
    "other_owner",
    "pinned",
    "plan",
    "plan_offline",
    "pruned",
    "recipe_of",
    "repaired",
    "same_concepts",
    "trusted",
    "unpinned",
    "unreadable",
    "with_found",
]


EVERYTHING = Options()
_HONOURED = {"rank", "precision"}  # even by a target that ignores all other parameters


def plan(
    recipes: Sequence[Recipe], memory: KnownState, observed: Observed, options: Options = EVERYTHING
) -> Plan:
    """The actions that take the target to what all recipes of the root say.

    `recipes` is every recipe under the root; `options.selected` narrows what is acted on, but
    moves, guards and what counts as gone look at the whole.
    """
    memory = corrected(memory, observed)
    met = meet(recipes, memory.entries)
    owned = own_entries(met, memory.entries, observed)
    world = PlanningContext.of(memory, observed, options, met=owned.values())
    actions = []
    for recipe in sorted(recipes, key=lambda recipe: recipe.path):
        at = met.get(recipe.path)
        moved = at if at != recipe.path else None
        actions.append(decide(recipe, owned.get(recipe.path), world, moved_from=moved))
    actions = _without_claimed(actions)
    kept = [action for action in actions if options.wants(action.path)]
    left = {path: free_place(path, met) for path in memory.entries if path not in met.values()}
    rest = {place: memory.entries[path] for path, place in left.items()}
    taken = _named(actions)
    kept += [
        Removal(memory, observed, taken | repeated(place, rest)).leftover(
            place, entry, prune=options.prune
        )
        for place, entry in rest.items()
    ]
    kept = [_with_drift(action, observed) for action in kept]
    kept.sort(key=lambda action: (action.path, action.recipe is None))
    return Plan(
        target=observed.key,
        actions=tuple(kept),
        moves=_moves({old: new for new, old in met.items()} | left),
        guards=tuple(dangers(recipes, kept, memory, observed)),
        notes=_notes(kept, observed),
        owner=observed.owner,
        gone=frozenset(id for id in memory.made if observed.get(id) is None),
    )


def plan_offline(
    recipes: Sequence[Recipe], lock: TargetLock, key: str, options: Options = EVERYTHING
) -> Plan:
    """The recipes against one target's part of the lock alone; every reason says so."""
    memory = KnownState(lock.owner, lock.recipes)
    return unasked(plan(recipes, memory, as_the_lock_says(recipes, lock, key), options))


def _moves(places: dict[str, str]) -> dict[str, str]:
    return {old: new for old, new in places.items() if old != new}


def _without_claimed(actions: list[Action]) -> list[Action]:
    """What one recipe's entry lets go of may be what another recipe adopts."""
    claimed = {action.model.id for action in actions if action.model}
    return [replace(action, transition=_without(action.transition, claimed)) for action in actions]


def _without(transition: Transition, claimed: Collection[str]) -> Transition:
    return replace(
        transition,
        deletes_untrained=tuple(id for id in transition.deletes_untrained if id not in claimed),
        supersedes=tuple(old for old in transition.supersedes if old.id not in claimed),
    )


def _with_drift(action: Action, observed: Observed) -> Action:
    return replace(
        action, explanation=replace(action.explanation, drift=drift_of(action, observed))
    )


def _named(actions: list[Action]) -> set[str]:
    """Every id that a living recipe's entry names, or will name."""
    named = {action.model.id for action in actions if action.model}
    for action in actions:
        if action.entry:
            named |= {*action.entry.all_ids}
    return named


def _notes(actions: list[Action], observed: Observed) -> tuple[str, ...]:
    trainings = [action.recipe.training for action in actions if action.recipe]
    idle = sorted({name for training in trainings for name, _ in training} - _HONOURED)
    if observed.ignores_training and idle:
        said = f"these training parameters mean nothing to the target {observed.key}"
        return (f"{said}: {', '.join(idle)}",)
    return ()
