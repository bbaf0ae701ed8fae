"""What a plan is, what makes it dangerous, and what came of it.

A plan has actions in order, a digest, and guards: dangers with the flag that allows each.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from composer.errors import ComposeError, CredentialsError, ExitStatus, Refused, gravest
from composer.model import Described
from composer.text import canonical, code_points, counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from composer.model import Content, Entry, KnownState, Model, Observed, Recipe, Replaced


class Verb(StrEnum):
    """What happens to a recipe's composition; the first six are changes."""

    CREATE = "create"
    ADOPT = "adopt"
    TRAIN = "train"
    REPLACE = "replace"
    UPDATE = "update"
    DELETE = "delete"
    KEEP = "keep"
    WAIT = "wait"
    MOVE = "move"
    LEAVE = "left alone"
    FORGET = "forget"
    BLOCKED = "blocked"


CHANGES = frozenset({Verb.CREATE, Verb.ADOPT, Verb.TRAIN, Verb.REPLACE, Verb.UPDATE, Verb.DELETE})


@dataclass(frozen=True, slots=True)
class Update(Described):
    """What is changed in place; None and empty mean: nothing."""

    name: tuple[str, str] | None = None  # before, after
    add_tags: tuple[str, ...] = ()
    remove_tags: tuple[str, ...] = ()
    protect: bool | None = None

    def __bool__(self) -> bool:
        return self != Update()

    @property
    def words(self) -> str:
        """Why, in words: `renamed from Old, tag x added`."""
        parts = [_renamed(*self.name)] if self.name else []
        parts += [f"{name} changed" for name in self.texts]
        parts += [f"tag {tag} added" for tag in self.add_tags]
        parts += [f"tag {tag} removed" for tag in self.remove_tags]
        if self.protect is not None:
            parts.append("protected" if self.protect else "protection taken off")
        return ", ".join(parts)


def _renamed(before: str, after: str) -> str:
    """Where both look alike, the code points that differ."""
    if canonical(before) != canonical(after):
        return f"renamed from {before}"
    points = f"{code_points(before, after)} -> {code_points(after, before)}"
    return f"name in other code points ({points})"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an action was chosen, in words for a person; nothing is decided by it."""

    reason: str
    before: Content | None = None  # what the composition is made of now
    status: str = ""  # of the model that the entry names now, as the target says
    labels: Mapping[str, str] = field(default_factory=dict)  # LoRA id -> its name
    notes: tuple[str, ...] = ()
    drift: str = ""  # what changed on the target, though neither recipe nor lock did

    def with_notes(self, *notes: str) -> Explanation:
        return replace(self, notes=(*self.notes, *notes))


@dataclass(frozen=True, slots=True)
class Transition:
    """What an action does to the ids that the lock's entry names, and to its pins."""

    pins: tuple[tuple[str, str], ...] = ()  # LoRA name -> id, as the entry will have them
    moves_away_from: str | None = None  # the composition that stays on the target, if it is there
    deletes: tuple[str, ...] = ()
    deletes_untrained: tuple[str, ...] = ()  # made by compose, never used, and not needed any more
    supersedes: tuple[Replaced, ...] = ()  # these go to the entry's `replaced`
    keeps_entry: bool = False  # of a removal: the entry stays, with `supersedes` as its `replaced`


@dataclass(frozen=True, slots=True)
class Action:
    """The answer to one recipe, or to one entry that no recipe asks for any more.

    `model` is what is kept, awaited, trained or adopted. A create or replace has none, and may have
    a `requested_id`: the id that the lock remembers, which only the local target gives again.
    """

    verb: Verb
    path: str
    name: str
    explanation: Explanation
    recipe: Recipe | None = None
    entry: Entry | None = None
    content: Content | None = None
    model: Model | None = None
    requested_id: str | None = None
    moved_from: str | None = None
    update: Update = Update()
    transition: Transition = Transition()

    @property
    def shown(self) -> Verb:
        """The verb that a person reads: a keep or wait may be an update, or a move."""
        if self.verb in (Verb.KEEP, Verb.WAIT):
            if self.update:
                return Verb.UPDATE
            if self.moved_from:
                return Verb.MOVE
        return self.verb

    @property
    def is_change(self) -> bool:
        return self.shown in CHANGES

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of it beside the reason."""
        deletes = (
            f"{id} was never trained and is not needed: it is deleted (with --expect it may stay)"
            for id in self.transition.deletes_untrained
        )
        return (*self.explanation.notes, *deletes)

    @property
    def must_train(self) -> bool:
        """Whether a model is made of its content, or trained at last."""
        if self.verb in (Verb.CREATE, Verb.REPLACE, Verb.TRAIN):
            return True
        return self.model is not None and self.model.untrained

    @property
    def digest(self) -> str:
        """Of what will be, not of the way there: create, adopt and train are alike."""
        left = self.transition.moves_away_from
        away = sorted({*self.transition.deletes, *filter(None, [left])})
        return _hash([self.path, self.name, self._after(), away])

    def _after(self) -> object:
        if self.recipe is None or self.content is None:
            return None
        concepts = [[c.model_id, c.epoch, c.scale] for c in self.content.concepts]
        recipe = self.recipe
        extra: list[object] = [recipe.description, recipe.tags, recipe.protect]
        later = {name: text for name, text in recipe.texts.items() if name != "description"}
        extra += [later] if later else []  # a digest changes only where such a field is used
        return [self.content.type, concepts, self.content.training, *extra]


@dataclass(frozen=True, slots=True)
class Guard:
    """A danger: what would happen, and the flag that allows it (None: nothing does)."""

    message: str
    flag: str | None = None
    error: type[ComposeError] = Refused


@dataclass(frozen=True, slots=True)
class LockEdit:
    """Ids that differ from the base's lock though the recipe's content did not change."""

    path: str
    name: str
    words: str  # composition model_a -> model_b, pin of Ink Lines lora_a -> lora_b


@dataclass(frozen=True, slots=True)
class Options:
    """How to plan. `selected` None means every recipe; `upgrade` holds LoRA names."""

    selected: frozenset[str] | None = None
    upgrade: frozenset[str] = frozenset()
    upgrade_all: bool = False
    prune: bool = False
    why_left_out: str = ""  # why the recipes are left out that are not selected

    def wants(self, path: str) -> bool:
        return self.selected is None or path in self.selected


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How many of a project's recipes a partial plan says nothing about, and why."""

    recipes: int = 0
    of: int = 0
    why: str = ""

    @property
    def words(self) -> str:
        """`Partial: 3 of 4 recipes are left out (not changed since main).`, or nothing."""
        if not self.recipes:
            return ""
        verb = "is" if self.recipes == 1 else "are"
        why = f" ({self.why})" if self.why else ""
        return f"Partial: {self.recipes:,} of {counted(self.of, 'recipe')} {verb} left out{why}."


@dataclass(frozen=True, slots=True)
class Plan:
    """The actions that take a target from what it is to what the recipes say."""

    target: str
    actions: tuple[Action, ...]  # by path
    moves: Mapping[str, str] = field(default_factory=dict)  # old path -> new, whole root
    guards: tuple[Guard, ...] = ()
    notes: tuple[str, ...] = ()
    owner: str | None = None
    gone: frozenset[str] = frozenset()  # what our journal made, and is there no more
    lock_edits: tuple[LockEdit, ...] = ()  # against a base's lock, and conflict markers
    asked: bool = True  # False: the lock alone was looked at, so there is nothing to approve
    left_out: LeftOut = LeftOut()

    @property
    def changes(self) -> tuple[Action, ...]:
        return tuple(action for action in self.actions if action.is_change)

    @property
    def blocked(self) -> tuple[Action, ...]:
        return tuple(action for action in self.actions if action.verb is Verb.BLOCKED)

    @property
    def change_digests(self) -> tuple[str, ...]:
        """One per change, sorted; what `--expect PLAN.json` compares."""
        return tuple(sorted(self.digest_of(change) for change in self.changes))

    def digest_of(self, change: Action) -> str:
        return _hash([self.target, change.digest])

    @property
    def digest(self) -> str:
        """64 hex digits: the same for equal changes, whatever their order."""
        return digest_of_changes(self.change_digests)

    def guard(self, allowed: Collection[str] = ()) -> None:
        """Raise the dangers that no flag in `allowed` allows: all in one error.

        One that no flag allows at all is raised alone.
        """
        refused = self.refused(allowed)
        if not refused:
            return
        for final in (guard for guard in refused if guard.flag is None):
            raise final.error(final.message)
        flags = " ".join(dict.fromkeys(guard.flag for guard in refused if guard.flag))
        messages = "; ".join(guard.message for guard in refused)
        raise refused[0].error(messages, hint=f"allow it with {flags}")

    def refused(self, allowed: Collection[str] = ()) -> tuple[Guard, ...]:
        return tuple(guard for guard in self.guards if guard.flag not in allowed)


def with_blocked(plan: Plan, reasons: Mapping[str, str]) -> Plan:
    """The plan with these recipes blocked, each for the reason by its path."""
    actions = (
        _blocked(action, reasons[action.path]) if action.path in reasons else action
        for action in plan.actions
    )
    return replace(plan, actions=tuple(actions))


def _blocked(action: Action, reason: str) -> Action:
    return replace(
        action,
        verb=Verb.BLOCKED,
        explanation=replace(action.explanation, reason=reason),
        model=None,
        requested_id=None,
        update=Update(),
        transition=Transition(pins=action.transition.pins),
    )


def digest_of_changes(digests: Iterable[str]) -> str:
    """A plan's digest, from those of its changes in any order."""
    return _hash(sorted(digests))


def _hash(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


# --- what came of it ---------------------------------------------------------------------


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
    learned: str = ""  # what compose.lock says of it now that it did not say before
    deleted_untrained: tuple[str, ...] = ()  # ids that were not needed any more

    @property
    def exit_status(self) -> int:
        if self.error is not None:
            return self.error.exit_status
        if self.state == "training":
            return ExitStatus.TRAINING
        return ExitStatus.FAILED if self.action.verb is Verb.BLOCKED else 0


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all, by path."""

    outcomes: tuple[Outcome, ...] = ()
    interrupted: bool = False
    lock_changed: bool = False
    left_out: LeftOut = LeftOut()

    @property
    def exit_status(self) -> int:
        """The gravest of all; 0 if everything is done. A signal's own status is the caller's."""
        statuses = {outcome.exit_status for outcome in self.outcomes}
        return gravest([*statuses, *([ExitStatus.INTERRUPTED] if self.interrupted else [])])


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


# --- dangers -----------------------------------------------------------------------------

ALLOW_EMPTY = "--allow-empty"
ALLOW_LARGE = "--allow-large-change"
LARGE_SHARE = 0.30
LARGE_COUNT = 3


def dangers(
    recipes: Sequence[Recipe], actions: Iterable[Action], memory: KnownState, observed: Observed
) -> Iterator[Guard]:
    """All that apply would refuse, gravest first."""
    danger = other_owner(memory, observed)
    if danger is not None:
        yield danger
    entries = len(memory.entries)
    if entries and not recipes:
        yield Guard(
            f"there are no recipes, but the lock has {counted(entries, 'entry')}"
            " (is recipes/ the right folder?)",
            ALLOW_EMPTY,
        )
    yield from _large(list(actions), entries)
    yield from _all_gone(memory, observed)


def other_owner(memory: KnownState, observed: Observed) -> Guard | None:
    """The danger of another team's credentials, which nothing allows."""
    if not (memory.owner and observed.owner and memory.owner != observed.owner):
        return None
    return Guard(
        f"the lock belongs to {memory.owner}, but these credentials to {observed.owner}:"
        " wrong credentials or project",
        error=CredentialsError,
    )


def _large(actions: list[Action], entries: int) -> Iterator[Guard]:
    hit = [a for a in actions if a.verb is Verb.REPLACE or _deletes_its_composition(a)]
    if len(hit) >= LARGE_COUNT and len(hit) > LARGE_SHARE * entries:
        yield Guard(
            f"{len(hit)} of {entries} compositions would be replaced or deleted", ALLOW_LARGE
        )


def _deletes_its_composition(action: Action) -> bool:
    return action.entry is not None and action.entry.composition in action.transition.deletes


def _all_gone(memory: KnownState, observed: Observed) -> Iterator[Guard]:
    """Another project's credentials look just like this: everything of ours is missing."""
    locked = [entry.composition for entry in memory.entries.values() if entry.composition]
    if observed.remote and locked and not any(observed.get(id) for id in locked):
        yield Guard(
            f"none of the {len(locked)} locked compositions is on the target:"
            " is this the right project?",
            ALLOW_LARGE,
        )
