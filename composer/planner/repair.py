"""What an entry of the lock becomes in a repair: as the target says, and nothing forgotten. Pure.

`compose lock --repair` plans as an apply would, and takes of the plan what is true already: which
of an entry's ids has the recipe's content. Nothing is written on the target. What isn't chosen
stays in `replaced`, where `compose prune` finds it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from composer.model import Entry, Next, Replaced
from composer.planner.plan import Verb

if TYPE_CHECKING:
    from composer.model import Candidate, Content, Model, Observed
    from composer.planner.plan import Action


@dataclass(frozen=True, slots=True)
class RepairedEntry:
    """One entry that a repair changed, and why it is as it is now."""

    path: str
    name: str
    composition: str | None
    words: str


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What came of a repair; `blocked` are recipes that the target has no answer for."""

    mended: tuple[RepairedEntry, ...]
    blocked: tuple[RepairedEntry, ...]
    changed: bool


def repaired(action: Action, observed: Observed) -> Entry | None:
    """The entry as a lock can say it; None where nothing is left of it, or nothing can be said."""
    if action.verb is Verb.FORGET or (action.entry is None and action.model is None):
        return None
    return _Repair(action, observed).entry()


class _Repair:
    """One entry, and all the ids that it may stand for."""

    def __init__(self, action: Action, observed: Observed) -> None:
        self.action, self.observed = action, observed
        before = action.entry
        held = (*before.candidates, *before.current) if before else ()
        self.pool: dict[str, Candidate] = {candidate.id: candidate for candidate in held}
        self.earlier = {old.id: old for old in before.replaced} if before else {}

    def entry(self) -> Entry:
        base = self._base()
        in_use = self._in_use(base)
        coming = self._coming(base, in_use.composition)
        own = {in_use.composition, coming.composition if coming else None}
        pins = tuple(sorted({**dict(base.pins), **dict(self.action.transition.pins)}.items()))
        return replace(in_use, next=coming, replaced=self._rest(own, base), pins=pins)

    def _base(self) -> Entry:
        """The entry as it was; what was lost of it is what recipe and target have in common."""
        action, recipe = self.action, self.action.recipe
        if action.entry is not None:
            tags = action.entry.tags or self._common_tags()
            return replace(action.entry, tags=tags, candidates=())
        assert recipe is not None and action.model is not None, action.verb
        return Entry(action.model.name, tags=self._common_tags(), protect=recipe.protect)

    def _common_tags(self) -> tuple[str, ...]:
        recipe, model = self.action.recipe, self.action.model
        if recipe is None or model is None:
            return ()
        there = recipe.tags if model.tags is None else model.tags
        return tuple(sorted({*recipe.tags} & {*there}))

    def _in_use(self, base: Entry) -> Entry:
        """With the composition that is trained and has the content, else one that was in use."""
        model = self.action.model
        if model is not None and model.trained:
            return self._using(base, model, self.action.content)
        if self.observed.get(base.composition):
            return base
        used = [m for c in self.pool.values() if c.used and (m := self.observed.get(c.id))]
        if not used:
            return base
        oldest = min(used, key=lambda found: found.adoption_order)
        return self._using(base, oldest, self.pool[oldest.id].content)

    def _using(self, base: Entry, model: Model, content: Content | None) -> Entry:
        known = self.pool.get(model.id)
        job = known.job if known and known.job else model.job
        return replace(base, composition=model.id, job=job, content=content)

    def _coming(self, base: Entry, in_use: str | None) -> Next | None:
        model, content = self.action.model, self.action.content
        if model is not None and content is not None and not model.trained and model.id != in_use:
            known = self.pool.get(model.id)
            job = known.job if known and known.job else model.job
            return Next(model.id, content, "created" if model.untrained else "training", job)
        return base.next if base.next and base.next.composition != in_use else None

    def _rest(self, own: set[str | None], base: Entry) -> tuple[Replaced, ...]:
        """All others, but those that nobody can have used and that are gone.

        A model of a name that no side tells of may be a stranger's: it stays under the name that
        it is recorded by, and so nothing deletes it.
        """
        rest, recipe = dict(self.earlier), self.action.recipe
        names = {base.name, recipe.name if recipe else "", *(c.name for c in self.pool.values())}
        for id, held in self.pool.items():
            model = self.observed.get(id)
            if held.used or model:
                training = held.content.training if held.content else ()
                name = model.name if model and model.name in names else held.name
                rest.setdefault(id, Replaced(id, name, training, base.protect))
        return tuple(rest[id] for id in sorted(rest) if id not in own)
