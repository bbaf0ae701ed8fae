"""The truth table: one recipe, its entry and what the target shows make one action.

The first row that fits decides, as in the design's section 4. Pure arithmetic on values.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from composer.model import MARK, Candidate, Replaced
from composer.planner.concepts import Resolution, resolve
from composer.planner.drift import MISSING, change_of
from composer.planner.identity import has_content, is_exact_match, is_expected_model, known_ids
from composer.planner.plan import CHANGES, Action, Explanation, Transition, Update, Verb

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from composer.model import Content, Entry, KnownState, Model, Observed, Parameters, Recipe
    from composer.planner.plan import Options

_TRAINING = ("training", "copying")


@dataclass(slots=True)
class PlanningContext:
    """What all recipes' decisions share. `taken` and `chosen` grow as recipes claim models."""

    memory: KnownState
    observed: Observed
    options: Options
    taken: set[str] = field(default_factory=set)
    chosen: set[str] = field(default_factory=set)  # settled on, for good
    recorded: dict[str, Parameters] = field(default_factory=dict)  # id -> training parameters
    namesakes: dict[str, set[str]] = field(default_factory=dict)  # name -> ids of compositions
    named: Collection[str] = ()  # every composition that lock or journal names

    @classmethod
    def of(
        cls, memory: KnownState, observed: Observed, options: Options, *, matched: Iterable[Entry]
    ) -> PlanningContext:
        """`matched`: the entries that belong to a recipe; what others name is free."""
        context = cls(memory, observed, options, named=known_ids(memory))
        for entry in matched:
            context.taken |= {candidate.id for candidate in entry.current}
        for entry in memory.entries.values():
            context.recorded |= {old.id: old.training for old in entry.replaced}
            candidates = [c for c in (*entry.candidates, *entry.current) if c.content]
            context.recorded |= {c.id: c.content.training for c in candidates if c.content}
        for id in {*observed.own, *memory.made}:  # a list may lag behind
            if (model := observed.get(id)) is not None and observed.is_composition(model):
                context.namesakes.setdefault(model.name, set()).add(id)
        return context


def decide(
    recipe: Recipe, entry: Entry | None, context: PlanningContext, *, moved_from: str | None
) -> Action:
    """The action for one recipe; the model that it uses is added to `context.taken`."""
    resolution = resolve(recipe, entry, context.observed, context.options)
    action = Action(
        Verb.BLOCKED,
        recipe.path,
        recipe.name,
        _explanation(resolution, entry, context.observed),
        recipe=recipe,
        entry=entry,
        content=resolution.content,
        moved_from=moved_from,
        transition=Transition(pins=tuple(sorted(resolution.pins.items()))),
    )
    if resolution.content is None:
        return action
    return _Decision(action, recipe, entry, resolution, resolution.content, context).action()


def _explanation(resolution: Resolution, entry: Entry | None, observed: Observed) -> Explanation:
    """What is known before a row of the table is chosen; its reason is what blocks the recipe."""
    pinned = {id: name for name, id in entry.pins} if entry else {}
    return Explanation(
        reason="; ".join(resolution.problems),
        before=entry.content if entry else None,
        status=status_of(entry, observed),
        labels={**pinned, **resolution.labels},
        notes=tuple(resolution.notes),
    )


@dataclass(slots=True)
class _Decision:
    """One recipe on its way down the truth table."""

    base: Action
    recipe: Recipe
    entry: Entry | None
    resolution: Resolution
    content: Content
    context: PlanningContext

    def action(self) -> Action:
        stopped = self._unexpected_model() or self._mismatch()
        if stopped:
            return self._blocked(stopped)
        action = self._keep_own() or self._adopt() or self._make()
        if self.resolution.missing and action.must_train:
            return self._blocked("; ".join(self.resolution.missing))
        idle = self._without_effect() if action.verb in CHANGES else ()
        explained = action.explanation.with_notes(*self.resolution.missing, *idle)
        action = replace(action, explanation=explained)
        if action.model:
            self.context.taken.add(action.model.id)
            self.context.chosen.add(action.model.id)
        return self._with_the_rest(action)

    def _without_effect(self) -> Iterable[str]:
        labels = self.base.explanation.labels
        for concept in self.content.concepts:
            if not concept.scale:
                name = labels.get(concept.model_id, concept.model_id)
                yield f"{name} adds nothing: its scale is 0"

    def _blocked(self, reason: str) -> Action:
        explained = replace(self.base.explanation, reason=reason)
        return replace(self.base, verb=Verb.BLOCKED, explanation=explained)

    # --- what stops a recipe -----------------------------------------------------------

    def _own_candidates(self) -> list[Candidate]:
        """All ids that this entry may stand for; those of other entries are none of them."""
        if self.entry is None:
            return []
        own = (
            candidate for candidate in self.entry.current if candidate.id not in self.context.chosen
        )
        taken = self.context.taken
        return [*own, *(c for c in self.entry.candidates if c.id not in taken)]

    def _unexpected_model(self) -> str:
        """Why the recipe is blocked: the lock names a model that can't be its own; else empty.

        A merge of mixed lines may leave a composition without a record of its content. If it is
        not this recipe's, another one is made, and it is left alone.
        """
        for candidate in self._own_candidates():
            model = self.context.observed.get(candidate.id)
            recorded = candidate.content is not None or not candidate.used
            if model and not recorded and self.context.observed.is_composition(model):
                continue
            made = self.context.memory.made.get(candidate.id)
            names = {candidate.name, self.recipe.name, *([made.name] if made else [])}
            contents = (candidate.content, self.content, made.content if made else None)
            if model and not is_expected_model(model, names, contents, self.context.observed):
                return other_model(candidate.id, model, self.recipe.path)
        return ""

    def _mismatch(self) -> str:
        coming = self.entry.next if self.entry else None
        if coming is None or coming.state != "mismatch" or coming.content != self.content:
            return ""
        return (
            f"the target kept other content for {coming.composition} than was sent:"
            f" change the recipe, or compose forget '{self.recipe.path}'"
        )

    # --- the rows ----------------------------------------------------------------------

    def _keep_own(self) -> Action | None:
        """Rows 1 to 3: something that the entry names has the recipe's content."""
        models = [
            model
            for candidate in self._own_candidates()
            if (model := self.context.observed.get(candidate.id))
            and has_content(model, self.content, candidate.content)
        ]
        if not models:
            return None
        model = min(models, key=lambda m: m.adoption_order)
        if model.trained:
            kept = self._in_place(Verb.KEEP, model, "up to date")
            return replace(kept, explanation=kept.explanation.with_notes(*self._twins()))
        if model.untrained:
            return self._in_place(Verb.TRAIN, model, _why_untrained(model))
        odd = "" if model.status in _TRAINING else f" (status {model.status})"
        return self._in_place(Verb.WAIT, model, f"still training{odd}")

    def _twins(self) -> list[str]:
        """A note on exact matches that nothing names: of two runners that raced, or a late POST."""
        if not self.context.observed.remote:
            return []
        named = self.context.named
        twins = sorted(model.id for model in self._exact_matches() if model.id not in named)
        return [f"the lock does not name its twins: {', '.join(twins)}"] if twins else []

    def _adopt(self) -> Action | None:
        """Row 4: an exact match elsewhere on the target, or an earlier one of this entry."""
        twins = sorted(self._exact_matches(), key=lambda m: m.adoption_order)
        if not twins:
            return None
        model, *others = twins
        listed = f"; its twins: {', '.join(twin.id for twin in others)}" if others else ""
        return self._in_place(Verb.ADOPT, model, f"already on the target as {model.id}{listed}")

    def _exact_matches(self) -> Iterable[Model]:
        observed, context = self.context.observed, self.context
        earlier = {old.id: old.name for old in self.entry.replaced} if self.entry else {}
        for id in sorted(context.namesakes.get(self.recipe.name, set()) | earlier.keys()):
            model = observed.get(id)
            if model is None or id in context.taken:
                continue
            named = model.name == self.recipe.name or earlier.get(id) == model.name
            if named and is_exact_match(model, self.content, context.recorded.get(id)):
                yield model

    def _make(self) -> Action:
        """The last four rows: nothing on the target has the content, so it must be made."""
        current = self.entry.current if self.entry else []
        living = [old for old in current if self.context.observed.get(old.id)]
        if living:
            explanation = self._why_other_content(living[0])
        else:
            reason = f"{MISSING}; it will be created again" if current else "new recipe"
            explanation = replace(self.base.explanation, reason=reason)
        return replace(
            self.base,
            verb=Verb.REPLACE if living and living[0].used else Verb.CREATE,
            requested_id=self._requested_id(),
            explanation=explanation,
        )

    def _why_other_content(self, old: Candidate) -> Explanation:
        """Why the entry's model is replaced: by a change of the recipe, or by drift."""
        base, model = self.base.explanation, self.context.observed.get(old.id)
        if old.content != self.content or model is None or model.concepts is None:
            reason = change_of(old.content, self.content, base.labels, self.context.observed)
            return replace(base, reason=reason, before=old.content)
        reason = "drift: changed on the target"
        if self.entry and self.entry.candidates:
            reason = "neither version of the merged lock has this content"
        return replace(base, reason=reason, before=replace(self.content, concepts=model.concepts))

    def _requested_id(self) -> str | None:
        """The id that the lock has for exactly this content, and that is not on the target."""
        for candidate in reversed(self.entry.current if self.entry else []):
            if candidate.content == self.content and not self.context.observed.get(candidate.id):
                return candidate.id
        return None

    # --- what goes with any row --------------------------------------------------------

    def _in_place(self, verb: Verb, model: Model, reason: str) -> Action:
        update = self._update(model)
        if update and verb in (Verb.KEEP, Verb.WAIT):
            waiting = ", still training" if verb is Verb.WAIT else ""
            reason = update.words + waiting
        elif update:
            reason = f"{reason}; {update.words}"
        explained = replace(self.base.explanation, reason=reason)
        return replace(self.base, verb=verb, model=model, explanation=explained, update=update)

    def _update(self, model: Model) -> Update:
        recipe, entry = self.recipe, self.entry
        answered = model.texts  # what the target doesn't return is no difference
        described = {
            name: text
            for name, text in recipe.texts.items()
            if name in answered and answered[name] != text
        }
        tags = model.tags if model.tags is not None else frozenset(recipe.tags)
        surplus = {*(entry.tags if entry else ())} - {*recipe.tags}
        return Update(
            name=(model.name, recipe.name) if model.name != recipe.name else None,
            add_tags=tuple(sorted({*recipe.tags} - tags)),
            remove_tags=tuple(sorted(surplus & tags - {MARK})),
            protect=recipe.protect if entry and entry.protect != recipe.protect else None,
            **described,
        )

    def _with_the_rest(self, action: Action) -> Action:
        """What this entry named besides: delete what nobody can have used, keep the others."""
        chosen = action.model.id if action.model else action.requested_id
        left = self.entry.composition if self.entry else None
        moves_away = left != chosen and self.context.observed.get(left)
        untrained, superseded = [], []
        for candidate in (other for other in self._own_candidates() if other.id != chosen):
            model = self.context.observed.get(candidate.id)
            if is_deletable_untrained(candidate, self.context.memory, self.context.observed):
                untrained.append(candidate.id)
            elif candidate.used or model:
                superseded.append(self._replaced(candidate, model))
        transition = replace(
            action.transition,
            moves_away_from=left if moves_away else None,
            deletes_untrained=tuple(untrained),
            supersedes=tuple(superseded),
        )
        return replace(action, transition=transition)

    def _replaced(self, candidate: Candidate, model: Model | None) -> Replaced:
        """What is kept of it. Without a record of its content another name than the lock's is not
        written down: the model may be somebody else's, and only a model of this name is deleted.
        """
        is_same = model and (candidate.content or model.name == self.recipe.name)
        name = model.name if model and is_same else candidate.name
        training = candidate.content.training if candidate.content else ()
        return Replaced(candidate.id, name, training, self.recipe.protect)


def status_of(entry: Entry | None, observed: Observed) -> str:
    """The status of the model that an entry names now; `none` if there is none."""
    models = [
        model
        for candidate in (entry.current if entry else ())
        if (model := observed.get(candidate.id))
    ]
    return models[0].status if models else "none"


def other_model(id: str, model: Model, path: str) -> str:
    """Why nothing is done where the lock names a model that can't be this recipe's."""
    return (
        f"the lock names {id} for this recipe, but that is the {model.type} {model.name}:"
        f" compose forget '{path}'"
    )


def is_deletable_untrained(candidate: Candidate, memory: KnownState, observed: Observed) -> bool:
    """Rule 5.7: ours, never trained, never any entry's `composition`: nobody can have used it."""
    model = observed.get(candidate.id)
    if model is None or candidate.used:
        return False
    ours = candidate.ours or candidate.id in memory.made or MARK in (model.tags or ())
    return ours and model.untrained and observed.is_composition(model)


def _why_untrained(model: Model) -> str:
    if model.status != "new":
        return f"its training {_failed(model)}"
    return model.error or "created but not trained"


def _failed(model: Model) -> str:
    if model.status == "training-canceled":
        return "was canceled"
    return f"failed: {model.error}" if model.error else "failed"
