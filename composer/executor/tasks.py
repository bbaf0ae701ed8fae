"""What all steps of an apply share: tasks that run some at a time, and how one of them ends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from composer.errors import CeilingReached, ComposeError
from composer.executor.creator import Stopped
from composer.planner import DONE, Outcome, Step, Verb
from composer.planner.transitions import entry_once_trained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from composer.executor.creator import Creator, Settings
    from composer.model import Entry, Model
    from composer.planner import Action


@dataclass(slots=True)
class Task:
    """One action on its way: what it has in hand, and at last what came of it."""

    action: Action
    model: Model | None = None
    outcome: Outcome | None = None
    price: float | None = None
    deferred: CeilingReached | None = None  # why its training can't start just now
    missing_since: float | None = None

    @property
    def id(self) -> str:
        return self.model.id if self.model else ""

    def end(self, state: str, *, error: ComposeError | None = None) -> None:
        self.outcome = Outcome(self.action, state, self.id, error)


@dataclass(slots=True)
class TaskRunner:
    """Does one thing for many tasks; what fails for one is that one's outcome."""

    creator: Creator
    settings: Settings
    say: Callable[[Step], None]

    def each(self, do: Callable[[Task], None], tasks: Iterable[Task]) -> None:
        """Do it for all of them, some at a time."""
        todo = list(tasks)
        if len(todo) <= 1:
            for task in todo:
                self.guarded(do, task)
            return
        with ThreadPoolExecutor(min(self.settings.parallelism, len(todo))) as pool:
            list(pool.map(lambda task: self.guarded(do, task), todo))

    def guarded(
        self, do: Callable[[Task], None], task: Task, *, stopped: str = "not started"
    ) -> None:
        """Do it for one; `stopped` is its state if we are asked to stop."""
        try:
            if self.creator.stop.is_set():
                raise Stopped
            do(task)
        except Stopped:
            self.creator.ledger.unsettled(task.action.path)
            task.end(stopped)
        except ComposeError as error:
            self.creator.ledger.unsettled(task.action.path)
            self.fail(task, error)

    def fail(self, task: Task, error: ComposeError, *, state: str = "failed") -> None:
        self.say(Step(task.action, state, task.id))
        task.end(state, error=error)

    def record(self, action: Action, entry: Entry) -> None:
        """Into the ledger, if it says anything new."""
        now = self.creator.ledger.entry(action.path)
        if now is None or replace(now, candidates=()) != entry:
            self.creator.ledger.record(action.path, entry)

    def finish_trained(self, task: Task, model: Model) -> None:
        """It is trained: the entry names it from now on, and lets go of the others."""
        action, entry = task.action, task.action.entry
        same = entry is not None and entry.composition == model.id and entry.job
        job = entry.job if entry and same else model.job
        self.record(action, entry_once_trained(action, model.id, job=job))
        task.action, task.model = self.creator.release(action), model
        if task.action.transition.supersedes != action.transition.supersedes:
            self.record(task.action, entry_once_trained(task.action, model.id, job=job))
        was_trained = action.model is not None and action.model.trained
        unchanged = action.verb in (Verb.KEEP, Verb.ADOPT) and was_trained
        self.say(Step(action, DONE[action.verb] if unchanged else "trained", model.id))
        task.end(DONE[action.shown])
