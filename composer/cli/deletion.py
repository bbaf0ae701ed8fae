"""`compose forget`, `prune` and `destroy`: taking out of the lock, and deleting on the target."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from composer.cli import options as opt
from composer.cli.output import find_path
from composer.cli.project import open_project
from composer.cli.targets import open_engine, open_target
from composer.cli.terminal import Progress, emit
from composer.errors import Refused, UsageError
from composer.executor import Settings, apply
from composer.lock import Ledger, only_one, remember
from composer.model import Entry
from composer.output import results
from composer.output.plan_text import text
from composer.output.plan_view import PlanView
from composer.planner import Deletions, Plan, dangers, entry_without, match_entries, orphans
from composer.project import PlanOptions
from composer.targets.base import observe
from composer.targets.selection import choose
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from composer.cli.options import TargetOptions
    from composer.cli.project import Project
    from composer.model import KnownState, Model, Observed
    from composer.planner import Action
    from composer.project import Selection


@click.command("forget")
@click.argument("what", nargs=-1, required=True)
@opt.target_options
@opt.dry_running
@opt.lock_timeout
def forget_command(
    what: tuple[str, ...], wish: TargetOptions, dry_run: bool, lock_timeout: float
) -> int:
    """Take recipes (by path or name) or single ids out of the lock. Nothing is deleted."""
    project = open_project()
    key = choose(wish, project.lock.targets, os.environ).key
    with nullcontext() if dry_run else only_one(project.root, project.state, wait=lock_timeout):
        ledger = Ledger(project.root, key, project.state, write=not dry_run)
        handled = [_forget(ledger, thing, dry_run=dry_run) for thing in what]
        if not dry_run:
            for id in ledger.memory.made:
                ledger.marked(id)
            ledger.close(handled=handled)
    return 0


def _forget(ledger: Ledger, thing: str, *, dry_run: bool) -> str:
    """Forget one recipe or id; the path of its entry."""
    for path, entry in ledger.memory.entries.items():
        candidates = {candidate.id for candidate in entry.candidates}
        if thing in {*entry.ids, *candidates}:
            click.echo(f"forget {thing} of {visible(entry.name)} ({visible(path)})")
            if not dry_run:
                ledger.record(path, entry_without(entry, [thing]))
            return path
    path = find_path(ledger.memory.entries, thing)
    click.echo(f"forget {visible(ledger.memory.entries[path].name)} ({visible(path)})")
    if not dry_run:
        ledger.forget(path)
    return path


@click.command("destroy")
@click.argument("what", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All recipes of the lock.")
@opt.target_options
@opt.dry_running
@opt.allow_large_change
@opt.lock_timeout
def destroy_command(
    what: tuple[str, ...],
    everything: bool,
    wish: TargetOptions,
    dry_run: bool,
    allow_large_change: bool,
    lock_timeout: float,
) -> int:
    """Delete the compositions of recipes (by path or name) on the target, earlier ones too.

    An id deletes one composition that compose made and no lock names: compose doctor lists those.
    Only what compose made is deleted, and nothing that is protected.
    """
    if bool(what) == everything:
        raise UsageError("name recipes, or give --all, one of the two")
    project = open_project()

    def actions(memory: KnownState, observed: Observed) -> list[Action]:
        loose = {model.id: model for model in orphans(memory, observed)}
        named = [thing for thing in what if thing not in loose]
        chosen = [*memory.entries] if everything else [find_path(memory.entries, w) for w in named]
        others = {id for p, e in memory.entries.items() if p not in chosen for id in e.ids}
        removal = Deletions(memory, observed, taken=others)
        found = [
            removal.everything(path, memory.entries[path], reason="destroy") for path in chosen
        ]
        found += [_without_entry(removal, loose[id]) for id in dict.fromkeys(what) if id in loose]
        _refuse_protected(found)
        return found

    allowed = PlanOptions(allow_empty=True, allow_large_change=allow_large_change).allowed
    return _delete(project, wish, actions, allowed, dry_run=dry_run, lock_timeout=lock_timeout)


def _without_entry(removal: Deletions, orphan: Model) -> Action:
    """Its id stands for the path that it doesn't have."""
    entry = Entry(orphan.name, composition=orphan.id)
    return removal.everything(orphan.id, entry, reason="destroy; no lock names it")


@click.command("prune")
@opt.selection_options
@opt.target_options
@click.option("--local", is_flag=True, help="Free the local results that no lock entry names.")
@opt.dry_running
@opt.allow_empty
@opt.allow_large_change
@opt.lock_timeout
def prune_command(
    selection: Selection,
    wish: TargetOptions,
    local: bool,
    dry_run: bool,
    allow_empty: bool,
    allow_large_change: bool,
    lock_timeout: float,
) -> int:
    """Delete earlier compositions, and those whose recipe's file is gone.

    Only what compose made is deleted, and nothing that is protected.
    """
    project = open_project(selection)
    if local:
        return _prune_local(project, wish, dry_run=dry_run, lock_timeout=lock_timeout)

    def actions(memory: KnownState, observed: Observed) -> list[Action]:
        met = set(match_entries(project.recipes, memory.entries).values())
        living = {id for path in met for id in memory.entries[path].ids}
        gone = Deletions(memory, observed, taken=living)
        found = []
        for path, entry in memory.entries.items():
            if path not in met:
                found.append(gone.leftover(path, entry, prune=True))
            elif project.selected is None or path in project.selected:
                others = {id for p, e in memory.entries.items() if p != path for id in e.ids}
                earlier = Deletions(memory, observed, taken=others).earlier(path, entry)
                found += [earlier] if earlier else []
        _refuse_protected(found)
        return found

    allowed = PlanOptions(allow_empty=allow_empty, allow_large_change=allow_large_change).allowed
    return _delete(project, wish, actions, allowed, dry_run=dry_run, lock_timeout=lock_timeout)


def _refuse_protected(actions: Sequence[Action]) -> None:
    """`destroy` and `prune` of a protected one refuse before the first write, naming it."""
    for action in actions:
        entry = action.entry
        old = [old.name for old in entry.replaced if old.protect] if entry else []
        if (entry and entry.protect and not action.transition.keeps_entry) or old:
            name = action.name if entry and entry.protect else old[0]
            raise Refused(
                f"{name} ({action.path}) is protected",
                hint="write protect: false into its recipe, apply, and come back",
            )


def _delete(
    project: Project,
    wish: TargetOptions,
    actions: Callable[[KnownState, Observed], list[Action]],
    allowed: Collection[str],
    *,
    dry_run: bool,
    lock_timeout: float,
) -> int:
    """Plan deletions, check them against the guards, and carry them out."""
    with (
        nullcontext() if dry_run else only_one(project.root, project.state, wait=lock_timeout),
        open_target(project, wish, run_jobs=not dry_run) as target,
    ):
        ledger = Ledger(project.root, target.key, project.state, write=not dry_run)
        observed = observe(target, project.recipes, ledger.memory)
        found = actions(ledger.memory, observed)
        guards = dangers(project.recipes, found, ledger.memory, observed)
        planned = Plan(target.key, tuple(found), guards=tuple(guards), owner=observed.owner)
        view = PlanView(planned, allowed, next_step="")
        if dry_run and (found or view.refused):
            emit(lambda color: text(replace(view, color=color)))
            return 0
        planned.guard(allowed)
        if not found:
            click.echo("Nothing to delete.")
        if dry_run:
            return 0
        with Progress() as progress:
            settings = Settings(target.grace, target.poll_interval)
            report = apply(planned, target, ledger, settings, say=progress.say)
    if found:
        emit(lambda color: results.report(report, color=color))
    return report.exit_status


def _prune_local(
    project: Project, wish: TargetOptions, *, dry_run: bool, lock_timeout: float
) -> int:
    with (
        nullcontext() if dry_run else only_one(project.root, project.state, wait=lock_timeout),
        open_engine(project, wish, run_jobs=not dry_run) as target,
    ):
        memory = remember(project.root, target.key, project.state)
        keep = {*memory.made}
        for entry in memory.entries.values():
            keep |= {*entry.all_ids}
        freed = target.prune(keep, dry_run=dry_run)
    click.echo(f"{'would free' if dry_run else 'freed'} {len(freed)}: {', '.join(freed) or '-'}")
    return 0
