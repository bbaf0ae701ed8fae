"""Carrying a plan out: make, train, wait for all together, then delete what the plan deletes.

Actions are independent: one that fails is reported, and the others go on. Everything is in the
ledger as it happens, so a run may end at any instant.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from composer.apply.making import Maker, Stopped
from composer.apply.removing import remove
from composer.errors import ComposeError, NotFound, TargetError
from composer.plan import DONE, Outcome, Report, Step, Verb, arrived, on_its_way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from composer.apply.values import Settings
    from composer.entities import Entry, Model
    from composer.lockfile import Ledger
    from composer.plan import Action, Plan
    from composer.target import Target


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
    maker = Maker(target, ledger, settings, stop or threading.Event())
    tasks = [_Task(action) for action in plan.actions]
    ledger.move(plan.moves)
    for id in plan.gone:
        ledger.marked(id)
    try:
        _Run(maker, settings, say).everything(tasks)
    finally:
        paths = {task.action.path for task in tasks}
        handled = paths | {*plan.moves, *plan.moves.values()}
        changed = ledger.close(handled=handled, owner=plan.owner)
    outcomes = tuple(task.outcome or Outcome(task.action, "not started") for task in tasks)
    return Report(outcomes, maker.stop.is_set(), changed)


@dataclass(slots=True)
class _Task:
    """One action on its way: what it has in hand, and at last what came of it."""

    action: Action
    model: Model | None = None
    outcome: Outcome | None = None
    missing_since: float | None = None

    def end(self, state: str, *, id: str = "", error: ComposeError | None = None) -> None:
        self.outcome = Outcome(self.action, state, id, error)


@dataclass(slots=True)
class _Run:
    maker: Maker
    settings: Settings
    say: Callable[[Step], None]

    def everything(self, tasks: list[_Task]) -> None:
        living = [task for task in tasks if task.action.recipe is not None]
        # Those with a wish go first, before another recipe's model can be given that id.
        self._each(self._prepare, (task for task in living if task.action.wish))
        self._each(self._prepare, (task for task in living if not task.action.wish))
        self._each(self._train, (task for task in living if task.outcome is None))
        self._wait([task for task in living if task.outcome is None])
        self._each(self._remove, (task for task in tasks if task.action.recipe is None))

    def _each(self, do: Callable[[_Task], None], tasks: Iterable[_Task]) -> None:
        """Do it for all of them, some at a time."""
        todo = list(tasks)
        if len(todo) <= 1:
            for task in todo:
                self._guarded(do, task)
            return
        with ThreadPoolExecutor(min(self.settings.parallelism, len(todo))) as pool:
            list(pool.map(lambda task: self._guarded(do, task), todo))

    def _guarded(self, do: Callable[[_Task], None], task: _Task) -> None:
        ledger = self.maker.ledger
        try:
            if self.maker.stop.is_set():
                raise Stopped
            do(task)
        except Stopped:
            ledger.unsettled(task.action.path)
            task.end("not started")
        except ComposeError as error:
            ledger.unsettled(task.action.path)
            self._fail(task, error)

    def _fail(self, task: _Task, error: ComposeError) -> None:
        self.say(Step(task.action, "failed"))
        task.end("failed", id=task.model.id if task.model else "", error=error)

    # --- before training -----------------------------------------------------------------

    def _prepare(self, task: _Task) -> None:
        """Bring the model into being, and its id into the ledger."""
        action, model = task.action, task.action.model
        if action.verb is Verb.BLOCKED:
            self.maker.ledger.unsettled(action.path)
            task.end("blocked")
            return
        if model is None:
            self.say(Step(action, "creating"))
            task.action, model = self.maker.make(action)
            action = task.action
            self.say(Step(action, "created", model.id))
        else:
            self.maker.update(action, model)
        task.model = model
        if model.trained:
            self._arrived(task, model)
        else:
            state = "created" if model.untrained else "training"
            self._record(action, on_its_way(action, model.id, state=state, job=model.job))
            task.action = self.maker.let_go(action)

    def _arrived(self, task: _Task, model: Model) -> None:
        """It is trained: the entry names it from now on, and lets go of the others."""
        action, entry = task.action, task.action.entry
        same = entry is not None and entry.composition == model.id and entry.job
        job = entry.job if entry and same else model.job
        self._record(action, arrived(action, model.id, job=job))
        task.action = self.maker.let_go(action)
        if task.action.retires != action.retires:
            self._record(task.action, arrived(task.action, model.id, job=job))
        self.say(Step(action, "kept" if action.verb is Verb.KEEP else "trained", model.id))
        task.end(DONE[action.shown], id=model.id)

    def _record(self, action: Action, entry: Entry) -> None:
        """Into the ledger, if it says anything new."""
        now = self.maker.ledger.entry(action.path)
        if now is None or replace(now, candidates=()) != entry:
            self.maker.ledger.record(action.path, entry)

    # --- training ------------------------------------------------------------------------

    def _train(self, task: _Task) -> None:
        assert task.model is not None
        task.model = self.maker.train(task.action, task.model)
        if task.model.trained:
            self._arrived(task, task.model)
        else:
            self._say_progress(task, task.model)

    def _say_progress(self, task: _Task, model: Model) -> None:
        self.say(Step(task.action, "training", model.id, model.progress, model.remaining))

    def _wait(self, tasks: list[_Task]) -> None:
        """Poll all that train together, until they are done, time is up, or we are stopped."""
        deadline = time.monotonic() + self.settings.timeout
        waiting = tasks
        while waiting:
            self._look(waiting)
            waiting = [task for task in waiting if task.outcome is None]
            out_of_time = self.settings.no_wait or time.monotonic() >= deadline
            if waiting and (out_of_time or self.maker.stop.wait(self.settings.poll_interval)):
                for task in waiting:
                    task.end("training", id=task.model.id if task.model else "")
                return

    def _look(self, waiting: list[_Task]) -> None:
        ids = {task.model.id for task in waiting if task.model}
        try:
            models = self.maker.target.get_models(sorted(ids))
        except ComposeError as error:
            for task in waiting:
                self._fail(task, error)
            return
        for task in waiting:
            assert task.model is not None
            found = models.get(task.model.id)
            self._guarded(lambda task, found=found: self._progressed(task, found), task)  # type: ignore[misc]

    def _progressed(self, task: _Task, model: Model | None) -> None:
        if model is None or model.gone or model.status == "new":
            self._missing(task)
        elif model.trained:
            self._arrived(task, model)
        elif model.untrained:
            self._failed_training(task, model)
        else:
            task.missing_since = None
            self._say_progress(task, model)

    def _failed_training(self, task: _Task, model: Model) -> None:
        entry = on_its_way(task.action, model.id, state="created", job=model.job)
        self._record(task.action, entry)
        canceled = model.status == "training-canceled"
        why = (
            "was canceled" if canceled else f"failed: {model.error or 'the target gives no reason'}"
        )
        raise TargetError(
            f"the training of {task.action.name} ({model.id}) {why}",
            hint="mend the cause, then compose apply trains it again",
        )

    def _missing(self, task: _Task) -> None:
        """Not there, or not training: a late replica may say so for as long as the grace."""
        now = time.monotonic()
        task.missing_since = task.missing_since or now
        if now - task.missing_since > self.settings.grace:
            id = task.model.id if task.model else ""
            raise NotFound(
                f"{id} ({task.action.name}) vanished while it trained",
                hint="run compose apply again: it makes what is missing",
            )

    # --- removing ------------------------------------------------------------------------

    def _remove(self, task: _Task) -> None:
        self.say(Step(task.action, str(task.action.verb)))
        remove(self.maker, task.action)
        state = "blocked" if task.action.verb is Verb.BLOCKED else DONE[task.action.verb]
        task.end(state)
