"""Planning: arithmetic on values. `plan(recipes, memory, observed, options) -> Plan`.

Knows no file, network or clock: equal inputs give equal plans. The commands render the plan;
`apply` carries it out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from composer.model import MARK, TRAINED, KnownState, Model, Observed
from composer.planner.deletions import Deletions, Forgotten, repeated
from composer.planner.drift import drift_of
from composer.planner.identity import (
    is_exact_match,
    is_expected_model,
    known_ids,
    models_of_intents,
    orphans,
    with_recovered,
)
from composer.planner.lock_diff import MARKERS, LockDiff, compare_locks, unreadable
from composer.planner.matching import free_place, match_entries, own_entries
from composer.planner.pins import OutdatedPin, Pin, Pinning, outdated_pins, pinned, unpinned
from composer.planner.plan import (
    ALLOW_EMPTY,
    ALLOW_LARGE,
    CHANGES,
    DONE,
    Action,
    Explanation,
    Guard,
    LeftOut,
    LockEdit,
    Options,
    Outcome,
    Plan,
    Report,
    Step,
    Transition,
    Update,
    Verb,
    dangers,
    digest_of_changes,
    other_owner,
    with_blocked,
)
from composer.planner.transitions import (
    entry_without,
)
from composer.planner.truth_table import PlanningContext, decide

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from composer.model import Candidate, Entry, Recipe, TargetLock

__all__ = [
    "ALLOW_EMPTY",
    "ALLOW_LARGE",
    "CHANGES",
    "DONE",
    "MARKERS",
    "Action",
    "Deletions",
    "Explanation",
    "Forgotten",
    "Guard",
    "LeftOut",
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
    "unpinned",
    "unreadable",
    "with_blocked",
    "with_recovered",
]


EVERYTHING = Options()
NOT_ASKED = "the target was not asked"
_MARKER = "?"  # no id can begin with it
_STATUS = {"created": "new", "training": "training", "mismatch": "new"}
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
    decisions = []
    for recipe in sorted(recipes, key=lambda recipe: recipe.path):
        at = matched.get(recipe.path, recipe.path)
        entry, moved_from = owned.get(recipe.path), at if at != recipe.path else None
        decisions.append(decide(recipe, entry, context, moved_from=moved_from))
    decisions = _without_claimed(decisions)
    used = {*matched.values()}
    left = {path: free_place(path, matched) for path in memory.entries if path not in used}
    actions = [action for action in decisions if options.wants(action.path)]
    actions += _leftovers(left, context, _named(decisions))
    actions = [_with_drift(action, observed) for action in actions]
    places = {old: new for new, old in matched.items()} | left
    left_out = sum(not options.wants(recipe.path) for recipe in recipes)
    return Plan(
        target=observed.key,
        actions=tuple(sorted(actions, key=lambda action: (action.path, action.recipe is None))),
        moves={old: new for old, new in places.items() if old != new},
        guards=tuple(dangers(recipes, actions, memory, observed)),
        notes=_notes(actions, observed),
        owner=observed.owner,
        gone=frozenset(id for id in memory.made if observed.get(id) is None),
        left_out=LeftOut(left_out, len(recipes), options.why_left_out),
    )


def _leftovers(
    left: dict[str, str], context: PlanningContext, taken: Collection[str]
) -> Iterator[Action]:
    """The action for each entry without a recipe: `left` has its path, and the place it goes to."""
    memory, observed = context.memory, context.observed
    entries = {place: memory.entries[path] for path, place in left.items()}
    again = repeated(entries)
    for place, entry in entries.items():
        others = {*taken, *entry.all_ids} if place in again else taken
        deletions = Deletions(memory, observed, others)
        yield deletions.leftover(place, entry, prune=context.options.prune)


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
        return (f"the target {observed.key} ignores these training parameters: {', '.join(idle)}",)
    return ()


# --- without asking the target -----------------------------------------------------------


def plan_offline(
    recipes: Sequence[Recipe], lock: TargetLock, key: str, options: Options = EVERYTHING
) -> Plan:
    """The recipes against one target's part of the lock alone; every reason says so.

    It is what a pull request from a stranger's fork gets: no credentials, nothing sent, and nothing
    to approve.
    """
    memory = KnownState(lock.owner, lock.recipes)
    return _as_offline_plan(plan(recipes, memory, _as_the_lock_says(recipes, lock, key), options))


def is_stand_in(id: str) -> bool:
    """Whether this isn't an id, but stands for a LoRA whose name has no pin."""
    return id.startswith(_MARKER)


def _as_the_lock_says(recipes: Sequence[Recipe], lock: TargetLock, key: str) -> Observed:
    """The target as the lock remembers it; each LoRA that it doesn't know has a stand-in."""
    entries = lock.recipes.values()
    models = {model.id: model for entry in entries for model in _models(entry)}
    pins: dict[str, set[str]] = {}
    for name, id in (pin for entry in entries for pin in entry.pins):
        pins.setdefault(name, set()).add(id)
    stand_ins = {}
    for recipe in recipes:
        for ref in recipe.concepts:
            given = [ref.model_id] if ref.model_id else sorted(pins.get(ref.name or "", ()))
            for id in given:
                models.setdefault(id, Model(id, recipe.types.lora, ref.label, TRAINED))
            if ref.name:
                id = _MARKER + ref.name
                stand_ins[id] = Model(id, recipe.types.lora, ref.name, TRAINED)
    types = frozenset(recipe.types.composition for recipe in recipes)
    types |= {_type(entry) for entry in entries}
    return Observed(key, models | stand_ins, frozenset(stand_ins), composition_types=types)


def _type(entry: Entry) -> str:
    """The type of its compositions; empty where it has none but earlier ones."""
    return entry.type or ""


def _models(entry: Entry) -> Iterator[Model]:
    for old in entry.replaced:
        type, ours = _type(entry), frozenset({MARK})
        yield Model(old.id, type, old.name, TRAINED, parameters=old.training, tags=ours)
    for candidate in (*entry.candidates, *entry.current):
        yield _model(candidate, entry)


def _model(candidate: Candidate, entry: Entry) -> Model:
    coming = entry.next if entry.next and entry.next.composition == candidate.id else None
    return Model(
        candidate.id,
        candidate.content.type if candidate.content else _type(entry),
        candidate.name,
        _STATUS[coming.state] if coming else TRAINED,
        concepts=candidate.content.concepts if candidate.content else None,
        parameters=candidate.content.training if candidate.content else None,
        tags=frozenset({*entry.tags, MARK}),
        job=candidate.job,
    )


def _as_offline_plan(planned: Plan) -> Plan:
    """The plan, with every reason saying that the target was not asked."""
    actions = tuple(_unasked(action) for action in planned.actions)
    return replace(planned, actions=actions, asked=False)


def _unasked(action: Action) -> Action:
    kept = action.verb is Verb.KEEP and not action.update
    reason = "as the lock says" if kept else action.explanation.reason
    names = [name for name, id in action.transition.pins if is_stand_in(id)]
    notes = tuple(f"the lock has no pin for {name}, so its LoRA is not known" for name in names)
    explanation = replace(
        action.explanation.with_notes(*notes), reason=f"{reason}; {NOT_ASKED}", drift=""
    )
    return replace(action, explanation=explanation)
