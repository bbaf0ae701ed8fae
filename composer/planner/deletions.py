"""What happens to entries that no recipe asks for, and what `prune` and `destroy` delete.

Every deletion needs our mark, the right type and name, and that no other entry names the id.
What isn't ours is left on the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from composer.model import MARK, Replaced
from composer.planner.identity import is_expected_model
from composer.planner.plan import Action, Explanation, Transition, Verb
from composer.planner.truth_table import is_deletable_untrained, other_model, status_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from composer.model import Entry, KnownState, Model, Observed

_PRUNE = "compose apply --prune deletes it"
_NOT_OURS = "not made by compose, so left on the target"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """An entry that was taken out of the lock; with an `id`, only that id of it."""

    path: str
    name: str
    id: str = ""
    ids: tuple[str, ...] = ()  # of the compositions that the lock names no more


@dataclass(frozen=True, slots=True)
class Deletions:
    """What all deletions share. `taken`: ids that other entries name, or will name."""

    memory: KnownState
    observed: Observed
    taken: Collection[str] = ()

    def leftover(self, path: str, entry: Entry, *, prune: bool) -> Action:
        """The action for an entry whose recipe's file is no longer in the root."""
        untrained = self._untrained(entry)
        there = [
            id
            for id in entry.all_ids
            if self.observed.get(id) and id not in (*untrained, *self.taken)
        ]
        if not there:
            nothing = Explanation("nothing left")
            transition = Transition(deletes_untrained=untrained)
            return Action(
                Verb.FORGET, path, entry.name, nothing, entry=entry, transition=transition
            )
        if prune:
            return self.everything(path, entry, reason="no recipe asks for it")
        way = "protected, so --prune would leave it" if entry.protect else _PRUNE
        return self._left_alone(path, entry, f"no recipe asks for it; {way}")

    def _left_alone(self, path: str, entry: Entry, reason: str) -> Action:
        untrained = self._untrained(entry)
        superseded = tuple(
            Replaced(c.id, c.name, c.content.training if c.content else (), entry.protect)
            for c in entry.candidates
            if c.id not in (*untrained, *self.taken) and (c.used or self.observed.get(c.id))
        )
        return Action(
            Verb.LEAVE,
            path,
            entry.name,
            Explanation(reason, status=status_of(entry, self.observed)),
            entry=entry,
            transition=Transition(deletes_untrained=untrained, supersedes=superseded),
        )

    def everything(self, path: str, entry: Entry, *, reason: str) -> Action:
        """Delete all that the entry names and that is ours, then forget it.

        What is protected is left alone, and what isn't ours is left there, the entry forgotten.
        """
        if entry.protect:
            return self._left_alone(path, entry, f"protected; {reason}")
        if stopped := self._unexpected_model(path, entry):
            return Action(Verb.BLOCKED, path, entry.name, Explanation(stopped), entry=entry)
        deletes, notes = self._ours(candidate.id for candidate in entry.possible)
        earlier, spared, more = self._earlier(path, entry)
        kept = any(old.protect for old in spared)
        deletes = (*deletes, *earlier)
        verb = Verb.DELETE if deletes else Verb.LEAVE if kept else Verb.FORGET
        explanation = Explanation(
            reason if verb is not Verb.FORGET else f"{reason}; {_NOT_OURS}",
            before=entry.content,
            labels={id: name for name, id in entry.pins},
            notes=(*notes, *more),
        )
        transition = Transition(
            deletes=deletes, supersedes=spared if kept else (), keeps_entry=kept
        )
        return Action(verb, path, entry.name, explanation, entry=entry, transition=transition)

    def earlier(self, path: str, entry: Entry) -> Action | None:
        """For `prune`: delete a living entry's earlier compositions; None if it has none.

        Ids that are not on the target any more are taken off the list too.
        """
        deletes, kept, notes = self._earlier(path, entry)
        if not entry.replaced:
            return None
        gone = len(entry.replaced) - len(deletes) - len(kept)
        verb = Verb.DELETE if deletes else Verb.FORGET if gone else Verb.LEAVE
        counts = f"{len(deletes)} on the target, {gone} no longer there"
        explanation = Explanation(f"earlier compositions: {counts}", notes=tuple(notes))
        transition = Transition(deletes=deletes, supersedes=kept, keeps_entry=True)
        return Action(verb, path, entry.name, explanation, entry=entry, transition=transition)

    def _earlier(
        self, path: str, entry: Entry
    ) -> tuple[tuple[str, ...], tuple[Replaced, ...], list[str]]:
        """Of `replaced`: ids to delete, those that stay, and why. Gone ones are in neither."""
        deletes: list[str] = []
        kept: list[Replaced] = []
        notes: list[str] = []
        for old in entry.replaced:
            model = self.observed.get(old.id)
            if model is None:
                continue
            note = self._spared(path, old, model)
            if note:
                notes.append(note)
                kept.append(old)
            else:
                deletes.append(old.id)
        return tuple(deletes), tuple(kept), notes

    def _spared(self, path: str, old: Replaced, model: Model) -> str:
        """Why an earlier composition is not deleted; empty if it may be."""
        if old.protect:
            return f"{old.id} ({old.name}): protected, so left on the target"
        if not self.observed.is_composition(model) or model.name != old.name:
            other = f"{old.id} is the {model.type} {model.name}, not {old.name}"
            return f"{other}: compose forget '{path}'"
        return "" if self._is_ours(model) else f"{old.id} ({old.name}): {_NOT_OURS}"

    def _ours(self, ids: Iterable[str]) -> tuple[tuple[str, ...], list[str]]:
        """Those of the ids that we may delete, and a note for each that we may not."""
        models = [model for id in dict.fromkeys(ids) if (model := self.observed.get(id))]
        notes = [f"{m.id} ({m.name}): {_NOT_OURS}" for m in models if not self._is_ours(m)]
        return tuple(model.id for model in models if self._is_ours(model)), notes

    def _is_ours(self, model: Model) -> bool:
        marked = MARK in (model.tags or ()) or model.id in self.memory.made
        return marked and model.id not in self.taken

    def _untrained(self, entry: Entry) -> tuple[str, ...]:
        return tuple(
            candidate.id
            for candidate in entry.possible
            if candidate.id not in self.taken
            and is_deletable_untrained(candidate, self.memory, self.observed)
        )

    def _unexpected_model(self, path: str, entry: Entry) -> str:
        """Why nothing of this entry is deleted: it names what can't be its own; else empty."""
        for candidate in entry.possible:
            model, contents = self.observed.get(candidate.id), [candidate.content]
            if model and not is_expected_model(model, {candidate.name}, contents, self.observed):
                return other_model(model.id, model, path)
        return ""


def repeated(left: Mapping[str, Entry]) -> set[str]:
    """The leftover entries all of whose ids another one has: a run was killed in a move."""
    ids = {path: frozenset(entry.all_ids) for path, entry in left.items()}
    holders: dict[str, list[str]] = {}
    for path, named in ids.items():
        for id in named:
            holders.setdefault(id, []).append(path)
    return {
        path
        for path, mine in ids.items()
        if any(
            mine < ids[other] or (mine == ids[other] and _rank(other, left) < _rank(path, left))
            for id in sorted(mine)[:1]
            for other in holders[id]
        )
    }


def _rank(path: str, left: Mapping[str, Entry]) -> tuple[bool, bool, str]:
    """Of entries with the same ids the one that uses them comes first."""
    entry = left[path]
    return (entry.composition is None, entry.next is None, path)
