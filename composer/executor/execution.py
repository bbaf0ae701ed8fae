"""Carrying a plan out: create, train, wait for all together, then delete what the plan deletes.

Actions are independent: one that fails is reported, and the others go on. Everything is in the
ledger as it happens, so a run may end at any instant. Each deletion follows a look just before it:
type, mark, and that no other entry names the id.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from composer.errors import TargetError
from composer.executor import training
from composer.executor.creator import Creator
from composer.executor.training import Task, TaskRunner
from composer.model import TRAINED
from composer.planner import DONE, Outcome, Report, Step, Verb, entry_without
from composer.planner.lock_diff import learned
from composer.planner.transitions import entry_in_progress, entry_left_behind

if TYPE_CHECKING:
    from collections.abc import Callable

    from composer.executor.creator import Settings
    from composer.lock import Ledger
    from composer.model import Entry, Model
    from composer.planner import Action, Plan
    from composer.targets.base import Target


def apply(
    plan: Plan,
    target: Target,
    ledger: Ledger,
    settings: Settings,
    *,
    say: Callable[[Step], None] = lambda step: None,
    stop: threading.Event | None = None,
) -> Report:
    """Carry the plan out; nothing is raised that concerns one action alone.

    `stop`, once set, lets no new request begin; what is under way is recorded.
    """
    creator = Creator(target, ledger, settings, stop or threading.Event())
    tasks = [Task(action) for action in plan.actions]
    ledger.move(plan.moves)
    for id in plan.gone:
        ledger.marked(id)
    try:
        _run_all(TaskRunner(creator, settings, say), tasks)
    finally:
        paths = {task.action.path for task in tasks}
        handled = paths | {old for old, new in plan.moves.items() if new in paths}
        changed = ledger.close(handled=handled, owner=plan.owner)
    outcomes = tuple(_outcome(task, creator) for task in tasks)
    return Report(outcomes, creator.stop.is_set(), changed, plan.left_out)


def _outcome(task: Task, creator: Creator) -> Outcome:
    ledger, path = creator.ledger, task.action.path
    return replace(
        task.outcome or Outcome(task.action, "not started"),
        learned=learned(ledger.locked(path), ledger.entry(path)),
        deleted_untrained=tuple(creator.deleted_untrained.get(path, ())),
    )


def _run_all(runner: TaskRunner, tasks: list[Task]) -> None:
    """Create and train for the recipes, then remove entries that no recipe asks for."""
    living = [task for task in tasks if task.action.recipe is not None]
    leaving = [task for task in tasks if task.action.recipe is None]
    prepare, remove = partial(_prepare, runner), partial(_remove, runner)

    def going() -> list[Task]:
        return [task for task in living if task.outcome is None]

    # Those with a requested id go first, before another recipe's model can be given that id.
    runner.each(prepare, [task for task in living if task.action.requested_id])
    runner.each(prepare, [task for task in living if not task.action.requested_id])
    _check_created(runner, [task for task in going() if task.is_new])
    training.within_budget(runner, going())
    training.start(runner, going())
    training.wait(runner, going())
    runner.each(remove, [task for task in leaving if _only_forgotten(task.action)])
    runner.each(remove, [task for task in leaving if not _only_forgotten(task.action)])


def _only_forgotten(action: Action) -> bool:
    """Such entries go first: what they name may be deleted for another entry."""
    return action.verb is Verb.FORGET and not action.transition.deletes_untrained


def _prepare(runner: TaskRunner, task: Task) -> None:
    """Bring the model into being, and its id into the ledger."""
    creator, action, model = runner.creator, task.action, task.action.model
    if action.verb is Verb.BLOCKED:
        creator.ledger.keep_open(action.path)
        task.end("blocked")
        return
    if model is None:
        runner.say(Step(action, "creating"))
        task.model, task.is_new = creator.create(action), True
    else:
        creator.update(action, model)
        _settle(runner, task, action, model)


def _check_created(runner: TaskRunner, tasks: list[Task]) -> None:
    """Look at all new models at once, and use an older twin where a racing runner made one."""
    creator = runner.creator
    created = [(task.action, task.model) for task in tasks if task.model]
    look = runner.look(lambda: creator.read_back(created), tasks) if created else None

    def check(task: Task) -> None:
        assert look is not None and task.model is not None
        action, model = creator.check(task.action, task.model, look)
        runner.say(Step(action, "created", model.id))
        _settle(runner, task, action, model)

    runner.each(check, tasks)


def _settle(runner: TaskRunner, task: Task, action: Action, model: Model) -> None:
    """The recipe's model is found: into the ledger with it."""
    task.action, task.model = action, model
    if model.trained:
        runner.finish_trained(task, model)
    else:
        state = "created" if model.untrained else "training"
        runner.record(action, entry_in_progress(action, model.id, state=state, job=model.job))
        task.action = runner.creator.release(action)


def _remove(runner: TaskRunner, task: Task) -> None:
    verb = task.action.verb
    only_ids = verb is Verb.FORGET and task.action.transition.keeps_entry
    runner.say(Step(task.action, "clean up" if only_ids else str(verb)))
    _delete_entry(runner.creator, task.action)
    task.end(DONE[task.action.verb])


def _delete_entry(creator: Creator, action: Action) -> None:
    """Carry out a delete, a forget, or leave alone. Raises `TargetError`."""
    ledger, entry, transition = creator.ledger, action.entry, action.transition
    assert entry is not None, "only an entry can be removed"
    if action.verb is Verb.BLOCKED:
        ledger.keep_open(action.path)
        return
    for id in transition.deletes:
        _delete_model(creator, action, id)
    rest = creator.release(action)
    for id in entry.all_ids:
        creator.mark_ours(id)
    if transition.keeps_entry and entry.candidates:  # the next apply decides about them
        ledger.keep_open(action.path)
    left = _what_is_left(entry, rest)
    if left is None:
        ledger.forget(action.path)
    elif left != replace(entry, candidates=()):
        ledger.record(action.path, left)


def _what_is_left(entry: Entry, action: Action) -> Entry | None:
    """The entry after its deletions; None if it is forgotten."""
    transition = action.transition
    if transition.keeps_entry:
        return replace(entry_without(entry, transition.deletes), replaced=transition.supersedes)
    if action.verb is Verb.LEAVE or transition.supersedes:  # something was not deleted
        return entry_left_behind(action)
    return None


def _delete_model(creator: Creator, action: Action, id: str) -> None:
    fresh = creator.target.get_models([id]).get(id)
    if fresh is None or fresh.gone:
        return
    if not creator.may_delete(fresh, action.path):
        raise TargetError(
            f"{id} is not deleted: it is the {fresh.type} {fresh.name}, which compose did not make"
            " or another recipe uses",
            hint=f"compose forget '{action.path}' takes it out of the lock",
        )
    if not (fresh.untrained or fresh.status == TRAINED):
        creator.target.cancel(id)
    creator.target.delete(id)
    creator.ledger.marked(id)
