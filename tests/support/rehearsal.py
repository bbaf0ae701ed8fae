"""A whole run as the command line does it - settle, plan, apply - on any target, and its death.

`Stage` is a project's root with a target. `Fate` ends a run at a chosen instant, as a kill does:
nothing after it takes effect.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.model_types import FLUX
from support.state import state_of

from composer.executor import Settings, apply, recover
from composer.lock import LOCK_NAME, Ledger, read_lock
from composer.model import ConceptRef, Recipe, TargetLock, parameters
from composer.planner import ALLOW_EMPTY, ALLOW_LARGE, Options, Plan, Report, Step, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from composer.model import Entry
    from composer.targets.base import Target

ALL_ALLOWED = frozenset({ALLOW_EMPTY, ALLOW_LARGE})


def recipe(path: str, name: str, concepts: Mapping[str, float], **more: Any) -> Recipe:
    """A recipe value; concepts by LoRA name, or by id where the key starts with `lora_`."""
    refs = tuple(
        ConceptRef(scale, model_id=key) if key.startswith("lora_") else ConceptRef(scale, name=key)
        for key, scale in concepts.items()
    )
    training = parameters(more.pop("training", None))
    tags = tuple(sorted(more.pop("tags", ())))
    return Recipe(
        path=path, name=name, concepts=refs, training=training, tags=tags, **more, types=FLUX
    )


class Killed(BaseException):
    """The process is dead: nothing after this runs."""


@dataclass
class Fate:
    """Counts the instants at which a run may be killed; at the `last` one it is, for good.

    An instant is before and after each verb of the target, each line of the journal, each
    replacement of journal and lock. `torn`: how much of the journal's line gets to the disk, 0..1.
    """

    last: int | None = None
    torn: float = 0.0
    instants: int = 0
    dead: bool = False

    def instant(self) -> None:
        self.instants += 1
        if self.instants == self.last:
            self.dead = True
        if self.dead:
            raise Killed

    def watch(self, verb: str, when: str) -> None:
        self.instant()


class MortalLedger(Ledger):
    """A ledger whose writes a `Fate` may cut off."""

    def __init__(self, root: Path, key: str, fate: Fate, clock: Callable[[], float] | None) -> None:
        self.fate = fate
        super().__init__(root, key, state_of(root), clock=clock)

    def _append(self, event: dict[str, Any]) -> None:
        try:
            self.fate.instant()
        except Killed:
            if self.fate.instants == self.fate.last:
                line = json.dumps({**event, "target": self.key}).encode()
                with self._journal.path.open("ab") as file:
                    file.write(line[: int(len(line) * self.fate.torn)])
            raise
        super()._append(event)
        self.fate.instant()

    def _write_lock(self, *args: Any) -> bool:
        self.fate.instant()
        changed = super()._write_lock(*args)
        self.fate.instant()
        return changed

    def _fold_away(self, *args: Any) -> None:
        self.fate.instant()
        super()._fold_away(*args)
        self.fate.instant()


@dataclass
class Stage:
    """A project's root and its target; `run` is one `compose apply`."""

    root: Path
    target: Target
    grace: float = 0.0
    clock: Callable[[], float] | None = None  # the machine's
    steps: list[Step] = field(default_factory=list)

    def run(
        self,
        recipes: Iterable[Recipe],
        options: Options | None = None,
        *,
        fate: Fate | None = None,
        stop: threading.Event | None = None,
        guarded: bool = False,
        **settings: Any,
    ) -> tuple[Plan, Report]:
        """Settle, plan and apply; raises what they raise, and guards only where asked."""
        recipes = list(recipes)
        stop = stop or threading.Event()
        ledger = (
            MortalLedger(self.root, self.target.key, fate, self.clock)
            if fate
            else Ledger(self.root, self.target.key, state_of(self.root), clock=self.clock)
        )
        observed = recover(recipes, self.target, ledger, grace=self.grace, stop=stop)
        planned = plan(recipes, ledger.known_state, observed, options or Options())
        planned.guard(() if guarded else ALL_ALLOWED)
        known: dict[str, Any] = {"poll_interval": 0.0, "timeout": 20.0, "parallelism": 1}
        report = apply(
            planned,
            self.target,
            ledger,
            Settings(grace=self.grace, **{**known, **settings}),
            say=self.steps.append,
            stop=stop,
        )
        return planned, report

    @property
    def lock(self) -> bytes:
        """The lock's bytes; empty without one."""
        path = self.root / LOCK_NAME
        return path.read_bytes() if path.exists() else b""

    @property
    def journal(self) -> str:
        path = state_of(self.root) / "journal.jsonl"
        return path.read_text() if path.exists() else ""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The lock's entries for this target, by path."""
        return self.target_lock.recipes

    @property
    def target_lock(self) -> TargetLock:
        return read_lock(self.root).target(self.target.key)
