"""What came of a plan: the outcome of each action, and steps on the way. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.planner.plan import Verb

if TYPE_CHECKING:
    from composer.errors import ComposeError
    from composer.planner.plan import Action

INTERRUPTED, CREDENTIALS, UNREACHABLE, REFUSED, FAILED, TRAINING = 130, 77, 69, 3, 1, 75
_GRAVEST_FIRST = (INTERRUPTED, CREDENTIALS, UNREACHABLE, REFUSED, FAILED, TRAINING)


@dataclass(frozen=True, slots=True)
class Step:
    """Something that an onlooker may want to see: an action's state changed, or moved on."""

    action: Action
    state: str  # creating, created, training, trained, deleting, ...
    id: str = ""
    progress: float | None = None  # 0..1
    remaining: float | None = None  # seconds


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one action."""

    action: Action
    state: str  # created, replaced, adopted, trained, updated, kept, ... or failed, blocked, ...
    id: str = ""
    error: ComposeError | None = None

    @property
    def exit_status(self) -> int:
        if self.error is not None:
            return self.error.exit_status
        if self.state == "training":
            return TRAINING
        return FAILED if self.action.verb is Verb.BLOCKED else 0


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all, by path."""

    outcomes: tuple[Outcome, ...] = ()
    interrupted: bool = False
    lock_changed: bool = False

    @property
    def exit_status(self) -> int:
        """The gravest of all; 0 if everything is done. A signal's own status is the caller's."""
        statuses = {outcome.exit_status for outcome in self.outcomes}
        statuses |= {INTERRUPTED} if self.interrupted else set()
        known = [status for status in _GRAVEST_FIRST if status in statuses]
        return known[0] if known else max(statuses, default=0)


DONE = {
    Verb.CREATE: "created",
    Verb.REPLACE: "replaced",
    Verb.ADOPT: "adopted",
    Verb.TRAIN: "trained",
    Verb.WAIT: "trained",
    Verb.KEEP: "kept",
    Verb.UPDATE: "updated",
    Verb.MOVE: "moved",
    Verb.DELETE: "deleted",
    Verb.FORGET: "forgotten",
    Verb.LEAVE: "left alone",
    Verb.BLOCKED: "blocked",
}
