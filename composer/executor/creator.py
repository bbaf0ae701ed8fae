"""Creating one composition exactly once, and deleting what it supersedes.

The intent is on disk before the POST, the id before the next request. After an answer that can't
be read we look before we post again. Before a plan, `recover` looks for what a run that was cut
off may have created.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING

from composer.errors import Ambiguous, NotFound, Stopped, TargetError, Unreachable
from composer.lock import latest_effect
from composer.lora import families
from composer.model import MARK, Replaced
from composer.planner import known_ids, models_of_intents
from composer.planner.identity import exact_matches, same_concepts
from composer.planner.transitions import entry_in_progress
from composer.targets.base import Search, observe, pause_within
from composer.text import listed, visible

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Mapping, Sequence

    from composer.lock import Ledger
    from composer.model import Content, Intent, Model, Observed, Recipe
    from composer.planner import Action
    from composer.targets.base import Target

log = logging.getLogger("composer.executor")

_POSTS = 3  # each only after the one before it has provably made nothing


@dataclass(frozen=True, slots=True)
class Settings:
    """How to apply; times in seconds. A new model is looked for `grace` long, then created again.

    `approved`: a person approved the plan, which lists no untrained model that is not needed any
    more. Of those, only what this machine's journal created is deleted.
    """

    grace: float
    poll_interval: float = 10.0
    timeout: float = 900.0
    parallelism: int = 8
    no_wait: bool = False
    max_cost: float | None = None  # in the target's units, for all trainings of one apply
    approved: bool = False


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What a target shows once several models have been created."""

    models: Mapping[str, Model]  # those that were created, by id
    namesakes: Mapping[str, Sequence[Model]]  # all compositions of their names, by name


@dataclass(slots=True)
class Creator:
    """Carries out the writes of single actions, on a target and a ledger."""

    target: Target
    ledger: Ledger
    settings: Settings
    stop: threading.Event
    deleted_untrained: dict[str, list[str]] = field(default_factory=dict)  # by recipe path

    def pause(self, seconds: float) -> None:
        """Wait, or raise `Stopped` if asked to stop."""
        if self.stop.wait(seconds):
            raise Stopped

    def create(self, action: Action) -> Model:
        """Create what the action asks for; its id is in the ledger when this returns.

        Raises `TargetError` if the target refuses.
        """
        recipe, content = wanted(action)
        for _ in range(_POSTS):
            if self.stop.is_set():
                raise Stopped
            created = self._post(action, recipe, content)
            if created is not None:
                return created
        raise Unreachable(
            f"{_POSTS} requests to create {recipe.name} were lost, and none took effect",
            hint="run compose apply again",
        )

    def _post(self, action: Action, recipe: Recipe, content: Content) -> Model | None:
        intent = self.ledger.intend(action.path, recipe.name, content)
        id = action.requested_id
        try:
            model: Model | None = self.target.create(
                recipe.name, content.concepts, type=content.type, described=recipe, id=id
            )
        except Ambiguous:
            intent = self.ledger.unanswered(intent)
            log.warning(
                "the answer to the creation of %s was lost: looking for it for up to %d s",
                visible(intent.name),
                ceil(self.settings.grace),
            )
            model = self._search_model(intent)
        except TargetError:
            self.ledger.expire(intent)
            raise
        if model is None:
            self.ledger.expire(intent)
            return None
        entry = entry_in_progress(action, model.id, state="created")
        self.ledger.record(action.path, entry, closes=intent, made=model.id)
        return model

    def _search_model(self, intent: Intent) -> Model | None:
        """What a POST without a readable answer made; None once the grace has passed with none.

        Raises `Unreachable` if the target can't be asked; the intent then stays open.
        """
        named = known_ids(self.ledger.known_state)
        while True:
            late = self.ledger.clock() - intent.at >= self.settings.grace
            try:
                models = self._search_exact(intent, named)
            except Unreachable:
                if late:
                    raise
                models = []
            if models:
                return models[0]
            if late:
                return None
            self.pause(pause_within(self.settings.grace))

    def _search_exact(self, intent: Intent, excluded: Collection[str]) -> list[Model]:
        """Exact matches of an intent on the target."""
        namesakes = self._namesakes({intent.name}, {intent.content.type})
        models = namesakes.get(intent.name, ())
        return exact_matches(models, intent.name, intent.content, excluded=excluded)

    def _namesakes(
        self, names: Collection[str], types: Collection[str]
    ) -> dict[str, Sequence[Model]]:
        """The listed models of these names; those whose concepts the list leaves out are read."""
        models = {m.id: m for m in self.target.list_models(*sorted(types)) if m.name in names}
        unread = sorted(id for id, model in models.items() if model.concepts is None)
        models |= self.target.get_models(unread) if unread else {}
        groups: dict[str, list[Model]] = {}
        for model in models.values():
            groups.setdefault(model.name, []).append(model)
        return {**groups}

    def read_back(self, created: Sequence[tuple[Action, Model]]) -> ReadBack:
        """One look at all that were created, and at what a racing runner may have created."""
        models = self.target.get_models(sorted({model.id for _, model in created}))
        if not self.target.remote:
            return ReadBack(models, {})
        made = [wanted(action) for action, _ in created]
        names = {recipe.name for recipe, _ in made}
        return ReadBack(models, self._namesakes(names, {content.type for _, content in made}))

    def check(self, action: Action, model: Model, look: ReadBack) -> tuple[Action, Model]:
        """Compare what was created with the recipe, prefer an older twin, set the tags.

        Returns the model and the action, which also deletes our twin where an older one is used.
        Raises `TargetError` if the target keeps other content than it was sent.
        """
        _, content = wanted(action)
        seen = look.models.get(model.id, model)
        if seen.concepts is not None and not same_concepts(content.concepts, seen.concepts):
            self.ledger.record(action.path, entry_in_progress(action, model.id, state="mismatch"))
            self._mark(action, seen)
            raise TargetError(
                f"the target kept other content for {model.id} than was sent",
                hint=f"change the recipe, or compose forget '{action.path}'",
            )
        twin = self._older_twin(action, seen, look)
        if twin is not None:
            self.ledger.record(action.path, entry_in_progress(action, twin.id, state="created"))
            self._describe(action, twin)
            needless = (*action.transition.deletes_untrained, seen.id)
            transition = replace(action.transition, deletes_untrained=needless)
            return replace(action, transition=transition), twin
        self._mark(action, seen)
        return action, seen

    def _older_twin(self, action: Action, ours: Model, look: ReadBack) -> Model | None:
        """An exact twin that another runner made a moment earlier: both choose the same one.

        What lock or journal name is none: planning has looked at that already.
        """
        recipe, content = wanted(action)
        before = [
            model
            for model in look.namesakes.get(recipe.name, ())
            if (model.created_at, model.id) < (ours.created_at, ours.id)
        ]
        alike = exact_matches(before, recipe.name, content, excluded=frozenset())
        if not alike:
            return None
        known, is_of_another = known_ids(self.ledger.known_state), self.ledger.is_of_another
        twins = [m for m in alike if m.id not in known and not is_of_another(m.id, action.path)]
        return min(twins, key=lambda m: (m.created_at, m.id), default=None)

    def _describe(self, action: Action, twin: Model) -> None:
        """What the recipe says of its model, on one that another runner made."""
        recipe, _ = wanted(action)
        if recipe.texts.items() - twin.texts.items():
            self.target.update(twin.id, described=recipe)
        if set(recipe.tags) - (twin.tags or frozenset()):
            self.target.tag(twin.id, add=recipe.tags)

    def _mark(self, action: Action, model: Model) -> None:
        tags = {MARK, *(action.recipe.tags if action.recipe else ())}
        self.target.tag(model.id, add=sorted(tags))
        self.ledger.marked(model.id)

    def train(self, action: Action, fresh: Model) -> Model:
        """Start training unless it has started; its job is in the ledger then.

        `fresh` is the model as it was just read.
        """
        _, content = wanted(action)
        if fresh.gone:
            raise NotFound(
                f"{fresh.id} ({fresh.name}) was deleted before its training",
                hint="run compose apply again: it creates what is missing",
            )
        if fresh.untrained:
            fresh = self.target.train(fresh.id, content.training)
        if not fresh.trained:
            entry = entry_in_progress(action, fresh.id, state="training", job=fresh.job)
            self.ledger.record(action.path, entry)
        return fresh

    def update(self, action: Action, model: Model) -> None:
        """Change in place what differs; what we made gets our mark if it has none yet."""
        change = action.update
        if change.name or change.texts:
            name = change.name[1] if change.name else None
            self.target.update(model.id, name=name, described=change)
        add = {*change.add_tags}
        if self.ledger.has_created(model.id):
            add |= {MARK} - (model.tags or frozenset())
        if add or change.remove_tags:
            self.target.tag(model.id, add=sorted(add), remove=change.remove_tags)
        self.ledger.marked(model.id)

    def release(self, action: Action) -> Action:
        """Delete what nobody can have used; what turns out to be in use goes to `replaced`.

        Returns the action with all that its entry supersedes.
        """
        superseded = list(action.transition.supersedes)
        for id in action.transition.deletes_untrained:
            kept = self._delete_unused(id, action.path)
            if kept is not None:
                superseded.append(kept)
        for old in superseded:
            self.mark_ours(old.id)
        return replace(action, transition=replace(action.transition, supersedes=tuple(superseded)))

    def _delete_unused(self, id: str, path: str) -> Replaced | None:
        """Delete it, if a look shows that we may; if not, it stays in the lock, so that nothing
        is lost: prune deletes it."""
        fresh = self.target.get_models([id]).get(id)
        if fresh is not None and not fresh.gone:
            kept = Replaced(id, fresh.name, fresh.parameters or ())
            unlisted = self.settings.approved and not self.ledger.has_created(id)
            if unlisted or not fresh.untrained or not self.may_delete(fresh, path):
                return kept
            try:
                self.target.delete(id)
                self.deleted_untrained.setdefault(path, []).append(id)
            except NotFound:
                pass
            except TargetError:
                return kept
        self.ledger.marked(id)
        return None

    def may_delete(self, fresh: Model, path: str) -> bool:
        """What any deletion needs, of a model just read: made by us, and no other entry's."""
        ours = MARK in (fresh.tags or ()) or self.ledger.has_created(fresh.id)
        is_composition = fresh.type in families.composition_types()
        return is_composition and ours and not self.ledger.is_of_another(fresh.id, path)

    def mark_ours(self, id: str) -> None:
        """The journal's record of what we made is folded away only once the tag says so."""
        if self.ledger.has_created(id):
            fresh = self.target.get_models([id]).get(id)
            if fresh is not None and not fresh.gone and MARK not in (fresh.tags or ()):
                self.target.tag(id, add=[MARK])
            self.ledger.marked(id)


def wanted(action: Action) -> tuple[Recipe, Content]:
    """The recipe and content that this action makes."""
    assert action.recipe is not None and action.content is not None, action.verb
    return action.recipe, action.content


def recover(
    recipes: Sequence[Recipe],
    target: Target,
    ledger: Ledger,
    *,
    grace: float,
    stop: threading.Event,
) -> Observed:
    """What the target looks like, once no intent is open any more.

    Raises `Stopped` if asked to stop, and what the target raises.
    """

    def pause(seconds: float) -> None:
        if stop.wait(seconds):
            raise Stopped

    search = Search(grace, ledger.clock, pause).started()
    sent = {intent.token: _sent(intent, ledger) for intent in ledger.known_state.intents}
    has_warned = False
    while True:
        now = ledger.clock()
        observed = observe(target, recipes, ledger.known_state, search)
        if not ledger.known_state.intents:
            return observed
        _close_intents(ledger, observed, sent, before=now - grace)
        if open_intents := ledger.known_state.intents:
            if not has_warned:
                _say_waiting(open_intents, max(sent[i.token] for i in open_intents) + grace - now)
                has_warned = True
            pause(pause_within(grace))


def _sent(intent: Intent, ledger: Ledger) -> float:
    """The latest that a killed run's POST may have taken effect, by the ledger's clock."""
    return latest_effect(intent.at, intent.uptime, now=ledger.clock(), up=ledger.uptime())


def _say_waiting(intents: Sequence[Intent], seconds: float) -> None:
    log.warning(
        "waiting up to %d s: an interrupted run may have created %s, and the target may not show"
        " it yet",
        ceil(seconds),
        listed([f"{visible(intent.name)} ({visible(intent.path)})" for intent in intents]),
    )


def _close_intents(
    ledger: Ledger, observed: Observed, sent: Mapping[str, float], *, before: float
) -> None:
    """Record the models that are there, and give up those that were sent `before` this time: they
    would be seen by now."""
    for intent, model in models_of_intents(ledger.known_state, observed):
        ledger.record_found(intent, model.id)
    ledger.refresh()
    for intent in ledger.known_state.intents:
        if before >= sent[intent.token]:
            ledger.expire(intent)
    ledger.refresh()
