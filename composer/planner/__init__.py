"""Planning: arithmetic on values. `plan(recipes, memory, observed, options) -> Plan`.

Knows no file, network or clock: equal inputs give equal plans. The commands render the plan;
`apply` carries it out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.model import KnownState
from composer.planner.deletions import Deletions, repeated
from composer.planner.drift import drift_of
from composer.planner.guards import ALLOW_EMPTY, ALLOW_LARGE, dangers, other_owner
from composer.planner.identity import is_exact_match, is_expected_model
from composer.planner.importing import entry_of, recipe_of
from composer.planner.intents import known_ids, models_of_intents, with_found
from composer.planner.lock_diff import MARKERS, LockDiff, compare_locks, unreadable
from composer.planner.matching import free_place, match_entries, own_entries
from composer.planner.offline import as_offline_plan, as_the_lock_says, is_stand_in
from composer.planner.orphans import orphans
from composer.planner.outdated import OutdatedPin, outdated_pins
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
from composer.planner.report import DONE, Outcome, Report, Step
from composer.planner.transitions import (
    entry_without,
)
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
    "Deletions",
    "Explanation",
    "Guard",
    "LockDiff",
    "LockEdit",
    "Options",
    "Outcome",
    "OutdatedPin",
    "Pin",
    "Pinning",
    "Plan",
    "Report",
    "Step",
    "Transition",
    "Update",
    "Verb",
    "compare_locks",
    "dangers",
    "digest_of_changes",
    "entry_of",
    "entry_without",
    "is_exact_match",
    "is_expected_model",
    "is_stand_in",
    "known_ids",
    "match_entries",
    "models_of_intents",
    "orphans",
    "other_owner",
    "outdated_pins",
    "pinned",
    "plan",
    "plan_offline",
    "recipe_of",
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
    matched = match_entries(recipes, memory.entries)
    owned = own_entries(matched, memory.entries, observed)
    context = PlanningContext.of(memory, observed, options, matched=owned.values())
    actions = []
    for recipe in sorted(recipes, key=lambda recipe: recipe.path):
        at = matched.get(recipe.path)
        moved = at if at != recipe.path else None
        actions.append(decide(recipe, owned.get(recipe.path), context, moved_from=moved))
    actions = _without_claimed(actions)
    kept = [action for action in actions if options.wants(action.path)]
    left = {
        path: free_place(path, matched) for path in memory.entries if path not in matched.values()
    }
    rest = {place: memory.entries[path] for path, place in left.items()}
    taken = _named(actions)
    kept += [
        Deletions(memory, observed, taken | repeated(place, rest)).leftover(
            place, entry, prune=options.prune
        )
        for place, entry in rest.items()
    ]
    kept = [_with_drift(action, observed) for action in kept]
    kept.sort(key=lambda action: (action.path, action.recipe is None))
    return Plan(
        target=observed.key,
        actions=tuple(kept),
        moves=_moves({old: new for new, old in matched.items()} | left),
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
    return as_offline_plan(plan(recipes, memory, as_the_lock_says(recipes, lock, key), options))


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
