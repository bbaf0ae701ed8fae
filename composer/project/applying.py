"""Carrying out plans: `apply`, `destroy` and `prune`; and `forget`, which deletes nothing."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.errors import Stopped, UsageError
from composer.executor import Settings, recover
from composer.executor import apply as carry_out
from composer.lock import Ledger, remember
from composer.model import Entry
from composer.planner import (
    DONE,
    Action,
    Deletions,
    Explanation,
    Forgotten,
    Outcome,
    Plan,
    Report,
    Verb,
    dangers,
    entry_without,
    match_entries,
    orphans,
)
from composer.planner import plan as build_plan
from composer.project.options import DEFAULT_PARALLELISM, check_approved
from composer.project.planning import ReviewedPlan, without_unfit
from composer.project.sources import find_path
from composer.targets.base import KeepsResults, LimitsConnections, observe

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from composer.model import KnownState, Model, Observed
    from composer.planner import Step
    from composer.project.options import ApplyOptions, PlanOptions
    from composer.project.project import Project
    from composer.targets.base import Target

    Actions = Callable[[KnownState, Observed], list[Action]]


# --- apply -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told of the plan and of each step, and the event that ends the work."""

    on_plan: Callable[[ReviewedPlan], None]
    on_step: Callable[[Step], None]
    stop: threading.Event | None = None


def apply(
    project: Project,
    target: Target,
    approved: ReviewedPlan | Plan | None,
    options: ApplyOptions,
    watcher: Watcher,
) -> Report:
    """See `Project.apply`."""
    settings = _settings(target, options, is_approved=approved is not None)
    stop = watcher.stop or threading.Event()
    with project.exclusive(options.lock_timeout):
        ledger = Ledger(project.root, target.key, project.state)
        try:
            observed = recover(project.recipes, target, ledger, grace=settings.grace, stop=stop)
        except Stopped:
            return Report(interrupted=True)
        planned = build_plan(project.recipes, ledger.known_state, observed, options)
        planned = without_unfit(planned, target)
        watcher.on_plan(ReviewedPlan(planned, options.allowed))
        bare = approved.plan if isinstance(approved, ReviewedPlan) else approved
        planned.guard(options.allowed)
        check_approved(planned, options, bare)
        return carry_out(planned, target, ledger, settings, say=watcher.on_step, stop=stop)


def _settings(target: Target, options: ApplyOptions, *, is_approved: bool) -> Settings:
    """The executor's settings, with the target's own times where none are given."""
    return Settings(
        grace=target.grace if options.grace is None else options.grace,
        poll_interval=options.poll_interval or target.poll_interval,
        timeout=options.timeout,
        parallelism=_threads(target, options.parallelism or DEFAULT_PARALLELISM),
        no_wait=options.no_wait,
        max_cost=options.max_cost,
        approved=is_approved or options.expect is not None,
    )


def _threads(target: Target, at_once: int) -> int:
    """More threads than connections: some write to the journal while others use those."""
    waits = isinstance(target, LimitsConnections) and 1 < at_once <= target.connections
    return 2 * at_once if waits else at_once


# --- destroy, prune and forget -----------------------------------------------------------


def forget(project: Project, key: str, what: Sequence[str], *, dry_run: bool) -> list[Forgotten]:
    """See `Project.forget`; the caller holds the project alone unless it is a dry run."""
    ledger = Ledger(project.root, key, project.state, write=not dry_run)
    forgotten = [_forget(ledger, thing, dry_run=dry_run) for thing in what]
    if not dry_run:
        for id in ledger.known_state.made:
            ledger.marked(id)
        ledger.close(handled=[one.path for one in forgotten])
    return forgotten


def _forget(ledger: Ledger, thing: str, *, dry_run: bool) -> Forgotten:
    """Forget one recipe or id."""
    for path, entry in ledger.known_state.entries.items():
        if thing in entry.all_ids:
            if not dry_run:
                ledger.record(path, entry_without(entry, [thing]))
            return Forgotten(path, entry.name, thing, (thing,))
    path = find_path(ledger.known_state.entries, thing)
    if not dry_run:
        ledger.forget(path)
    entry = ledger.known_state.entries[path]
    return Forgotten(path, entry.name, ids=entry.all_ids)


def destroying(project: Project, what: Sequence[str] | None) -> Actions:
    """The deletion of these recipes' compositions and of these ids; None: of all recipes.

    What is protected stays, and the rest is deleted, as `pruning` does.
    """

    def actions(memory: KnownState, observed: Observed) -> list[Action]:
        loose = {model.id: model for model in orphans(memory, observed)}
        named = [thing for thing in what or () if thing not in loose]
        paths = [find_path(memory.entries, thing) for thing in named]
        chosen = [*memory.entries] if what is None else paths
        others = {id for p, e in memory.entries.items() if p not in chosen for id in e.ids}
        removal = Deletions(memory, observed, taken=others)
        removals = [
            removal.everything(path, memory.entries[path], reason="destroy") for path in chosen
        ]
        ids = [id for id in dict.fromkeys(what or ()) if id in loose]
        living = set(match_entries(project.recipes, memory.entries).values())
        spared = [one for action in removals for one in _sparing(action, living)]
        return [*spared, *(_without_entry(removal, loose[id]) for id in ids)]

    return actions


def _without_entry(removal: Deletions, orphan: Model) -> Action:
    """Its id stands for the path that it doesn't have."""
    entry = Entry(orphan.name, composition=orphan.id)
    return removal.everything(orphan.id, entry, reason="destroy; no lock names it")


def pruning(project: Project) -> Actions:
    """The deletion of earlier compositions, and of those whose recipe's file is gone."""

    def actions(memory: KnownState, observed: Observed) -> list[Action]:
        matched = set(match_entries(project.recipes, memory.entries).values())
        living = {id for path in matched for id in memory.entries[path].ids}
        gone = Deletions(memory, observed, taken=living)
        named = Counter(id for entry in memory.entries.values() for id in {*entry.ids})
        removals = []
        for path, entry in memory.entries.items():
            if path not in matched:
                removals.append(gone.leftover(path, entry, prune=True))
            elif project.selected is None or path in project.selected:
                others = {id for id in entry.ids if named[id] > 1}
                earlier = Deletions(memory, observed, taken=others).earlier(path, entry)
                removals += [earlier] if earlier else []
        return [one for action in removals for one in _sparing(action, matched, _EXCLUDE)]

    return actions


_EXCLUDE = ", or use --exclude"


def _sparing(action: Action, living: Collection[str], or_else: str = "") -> list[Action]:
    """The action; where it leaves what is protected on the target, one that says so and is 1."""
    entry, transition = action.entry, action.transition
    old = [old.id for old in transition.supersedes if old.protect]
    whole = action.verb is Verb.LEAVE and not transition.keeps_entry
    if entry is None or not (old or (whole and entry.protect)):
        return [action]
    what = ", ".join(old) or entry.composition or "it"
    way = (
        f"set protect: false in {action.path} and run compose apply{or_else}"
        if action.path in living
        else f"restore {action.path} with protect: false and run compose apply, or forget it"
    )
    reason = f"{what} is protected, so it stays on the target: {way}"
    blocked = Action(Verb.BLOCKED, action.path, action.name, Explanation(reason), entry=entry)
    return [blocked] if action.verb is Verb.LEAVE else [action, blocked]


def delete(
    project: Project,
    target: Target,
    actions: Actions,
    options: PlanOptions,
    watcher: Watcher,
    *,
    dry_run: bool,
) -> Report:
    """Plan deletions, check them against the guards, and carry them out.

    Raises `Refused` for what is not allowed. A dry run only tells the plan, and its report has
    what is blocked: so its exit status is that of the run.
    """
    ledger = Ledger(project.root, target.key, project.state, write=not dry_run)
    observed = observe(target, project.recipes, ledger.known_state)
    removals = actions(ledger.known_state, observed)
    guards = dangers(project.recipes, removals, ledger.known_state, observed)
    planned = Plan(target.key, tuple(removals), guards=tuple(guards), owner=observed.owner)
    watcher.on_plan(ReviewedPlan(planned, options.allowed, next_step=""))
    planned.guard(options.allowed)
    if dry_run:
        return Report(tuple(Outcome(action, DONE[action.verb]) for action in planned.blocked))
    settings = Settings(target.grace, target.poll_interval)
    return carry_out(planned, target, ledger, settings, say=watcher.on_step, stop=watcher.stop)


def prune_local(project: Project, target: Target, *, dry_run: bool) -> list[str]:
    """The ids of the local results that no lock entry names, deleted unless it is a dry run."""
    if not isinstance(target, KeepsResults):
        raise UsageError(
            f"the target {target.key} keeps no results on this machine", hint="use --target local"
        )
    memory = remember(project.root, target.key, project.state)
    keep = {*memory.made}.union(*(entry.all_ids for entry in memory.entries.values()))
    return list(target.prune(keep, dry_run=dry_run))
