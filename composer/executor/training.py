"""The tasks of an apply: some run at a time, and all that train are waited for together."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from composer.errors import CeilingReached, ComposeError, NotFound, Refused, Stopped, TargetError
from composer.executor.creator import wanted
from composer.planner import DONE, Outcome, Step, Verb
from composer.planner.transitions import entry_in_progress, entry_once_trained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from composer.executor.creator import Creator, Settings
    from composer.model import Entry, Model
    from composer.planner import Action

    T = TypeVar("T")


@dataclass(slots=True)
class Task:
    """One action on its way: what it has in hand, and at last what came of it."""

    action: Action
    model: Model | None = None
    outcome: Outcome | None = None
    is_new: bool = False  # created by this run
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
        """Do it for all of them, some at a time; not for one that has its outcome by then."""
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
        if task.outcome is not None:
            return
        try:
            if self.creator.stop.is_set():
                raise Stopped
            do(task)
        except Stopped:
            self.creator.ledger.keep_open(task.action.path)
            task.end(stopped)
        except ComposeError as error:
            self.creator.ledger.keep_open(task.action.path)
            self.fail(task, error)

    def look(
        self, read: Callable[[], T], tasks: Sequence[Task], *, stopped: str = "not started"
    ) -> T | None:
        """Read what concerns all these tasks; what fails is the outcome of each of them."""
        try:
            if self.creator.stop.is_set():
                raise Stopped
            return read()
        except Stopped:
            for task in tasks:
                self.creator.ledger.keep_open(task.action.path)
                task.end(stopped)
        except ComposeError as error:
            for task in tasks:
                self.creator.ledger.keep_open(task.action.path)
                self.fail(task, error)
        return None

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


# --- the price ---------------------------------------------------------------------------


def within_budget(runner: TaskRunner, tasks: Sequence[Task]) -> None:
    """With a limit, ask what each training costs; start none if the sum is above it.

    What was created stays untrained in the lock's `next`: the next apply asks again.
    """
    limit = runner.settings.max_cost
    if limit is None:
        return
    asked = [task for task in tasks if task.model and task.model.untrained]
    runner.each(lambda task: _ask(runner, task), asked)
    asked = [task for task in asked if task.outcome is None]
    refusal = _refusal([task.price for task in asked], limit)
    for task in asked if refusal else ():
        runner.fail(task, Refused(refusal, hint=_BRAKED), state="not trained")


_BRAKED = "raise --max-cost; what was created stays in the lock, and is not created again"


def _ask(runner: TaskRunner, task: Task) -> None:
    _, content = wanted(task.action)
    task.price = runner.creator.target.price(task.id, content.training)
    if task.price is not None and runner.creator.target.remote:
        runner.say(Step(task.action, f"price {task.price:g}", task.id))


def _refusal(prices: Sequence[float | None], limit: float) -> str:
    """Why this can't be paid; empty if it can."""
    given = [price for price in prices if price is not None]
    if len(given) < len(prices):
        return f"the target gives no price for {len(prices) - len(given)} training(s)"
    total = sum(given)
    return f"training would cost {total:g}, above --max-cost {limit:g}" if total > limit else ""


# --- start and wait ----------------------------------------------------------------------


_AT_ONCE = 100  # trainings that are started after one look: it must not be old
_AHEAD = 20  # before so many of them are left, the next look is made: nothing then waits for it


def start(runner: TaskRunner, tasks: Sequence[Task]) -> None:
    """Start all trainings, each after a look that it hasn't started."""
    groups = [tasks[first : first + _AT_ONCE] for first in range(0, len(tasks), _AT_ONCE)]
    looks = [_Look(runner, group) for group in groups]
    places = {id(task): divmod(number, _AT_ONCE) for number, task in enumerate(tasks)}

    def train(task: Task) -> None:
        group, place = places[id(task)]
        if place == _AT_ONCE - _AHEAD:
            for following in looks[group + 1 : group + 2]:
                following.models()
        fresh = looks[group].models()
        if fresh is not None:
            _train(runner, task, fresh)

    runner.each(train, tasks)


class _Look:
    """A look at the models of several tasks, made once, by the thread that needs it first."""

    def __init__(self, runner: TaskRunner, tasks: Sequence[Task]) -> None:
        self._runner, self._tasks = runner, tasks
        self._guard = threading.Lock()
        self._is_made = False
        self._models: Mapping[str, Model] | None = None

    def models(self) -> Mapping[str, Model] | None:
        """The models by id; None if the look failed, which is the outcome of its tasks then."""
        with self._guard:
            if not self._is_made:
                read = partial(_read, self._runner, self._tasks)
                self._models, self._is_made = self._runner.look(read, self._tasks), True
            return self._models


def _read(runner: TaskRunner, tasks: Sequence[Task]) -> Mapping[str, Model]:
    return runner.creator.target.get_models(sorted({task.id for task in tasks}))


def _train(runner: TaskRunner, task: Task, fresh: Mapping[str, Model]) -> None:
    """Start it. Where the target's plan allows no more at once, it is tried again later."""
    assert task.model is not None
    try:
        model = runner.creator.train(task.action, fresh.get(task.id, task.model))
    except CeilingReached as full:
        task.deferred = full
        return
    task.model, task.deferred = model, None
    if model.trained:
        runner.finish_trained(task, model)
    else:
        _say_progress(runner, task, model)


def wait(runner: TaskRunner, tasks: Sequence[Task]) -> None:
    """Poll all that train together, until they are done, time is up, or we are stopped."""
    deadline = time.monotonic() + runner.settings.timeout
    waiting = list(tasks)
    while waiting:
        _poll_models(runner, [task for task in waiting if task.deferred is None])
        _start_deferred(runner, waiting)
        waiting = [task for task in waiting if task.outcome is None]
        out_of_time = runner.settings.no_wait or time.monotonic() >= deadline
        if waiting and (out_of_time or runner.creator.stop.wait(runner.settings.poll_interval)):
            for task in waiting:
                if task.deferred is not None:
                    runner.fail(task, task.deferred)
                else:
                    task.end("training")
            return


def _start_deferred(runner: TaskRunner, waiting: Sequence[Task]) -> None:
    """Try those that the plan's limit deferred, one by one, until it is reached again."""
    for task in waiting:
        if task.deferred is not None and task.outcome is None:
            runner.guarded(lambda task: _train(runner, task, _read(runner, [task])), task)
            if task.deferred is not None:
                return


def _poll_models(runner: TaskRunner, waiting: Sequence[Task]) -> None:
    if not waiting:
        return
    models = runner.look(lambda: _read(runner, waiting), waiting, stopped="training")
    if models is None:
        return
    for task in waiting:
        model = models.get(task.id)
        runner.guarded(
            lambda task, model=model: _progressed(runner, task, model),  # type: ignore[misc]
            task,
            stopped="training",
        )


def _progressed(runner: TaskRunner, task: Task, model: Model | None) -> None:
    if model is None or model.gone or model.status == "new":
        _missing(runner, task)
    elif model.trained:
        runner.finish_trained(task, model)
    elif model.untrained:
        _failed(runner, task, model)
    else:
        task.missing_since = None
        _say_progress(runner, task, model)


def _say_progress(runner: TaskRunner, task: Task, model: Model) -> None:
    runner.say(Step(task.action, "training", model.id, model.progress, model.remaining))


def _failed(runner: TaskRunner, task: Task, model: Model) -> None:
    entry = entry_in_progress(task.action, model.id, state="created", job=model.job)
    runner.record(task.action, entry)
    why = f"failed: {model.error or 'the target gives no reason'}"
    if model.status == "training-canceled":
        why = "was canceled"
    raise TargetError(
        f"the training of {task.action.name} ({model.id}) {why}",
        hint="fix the cause; the next compose apply trains it again",
    )


def _missing(runner: TaskRunner, task: Task) -> None:
    """Not there, or not training: a late replica may say so for as long as the grace."""
    now = time.monotonic()
    task.missing_since = task.missing_since or now
    if now - task.missing_since > runner.settings.grace:
        raise NotFound(
            f"{task.id} ({task.action.name}) disappeared while it was training",
            hint="run compose apply again: it creates what is missing",
        )
