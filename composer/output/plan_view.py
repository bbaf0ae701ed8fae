"""What is shown of a plan, as one value; and the signs and counts that every format shares."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from composer.output.markdown import COMMENT, Budget
from composer.planner import Verb, is_stand_in
from composer.text import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Self

    from composer.lora.inspection import Advice
    from composer.model import Content
    from composer.planner import Action, Guard, Plan

WHOLE = "compose plan -o json"
NO_RECIPES = "No recipes found; compose init creates a first one."
LOCK_ONLY = "the lock was changed, and no recipe asks for it"
UNASKED = "the target was not asked; recipes are compared with the lock alone, nothing to approve"

SIGNS = {
    Verb.CREATE: "+",
    Verb.ADOPT: "+",
    Verb.TRAIN: "+",
    Verb.REPLACE: "~",
    Verb.UPDATE: "~",
    Verb.DELETE: "-",
    Verb.MOVE: ">",
    Verb.KEEP: "=",
    Verb.WAIT: "=",
    Verb.LEAVE: "=",
    Verb.FORGET: "-",
    Verb.BLOCKED: "!",
}
_COUNTED = {
    Verb.CREATE: "to create",
    Verb.ADOPT: "to adopt",
    Verb.TRAIN: "to train",
    Verb.REPLACE: "to replace",
    Verb.UPDATE: "to update",
    Verb.DELETE: "to delete",
    Verb.WAIT: "still training",
    Verb.BLOCKED: "blocked",
    Verb.LEAVE: "left alone",
    Verb.FORGET: "to forget",
    Verb.MOVE: "moved",
    Verb.KEEP: "unchanged",
}


@dataclass(frozen=True, slots=True)
class PlanView:
    """A plan with all that a format may show beside it; each format takes what it has a place for.

    `allowed`: the flags given, such as `--allow-empty`. `prices` and `advice`, by recipe path: what
    a training would cost where the target tells, and what to know of the mix. `next_step`: the
    command that applies this plan; empty for none. `whole`: the command or file that has all of it.
    `list_all`: the text lists recipes that do not change as well, instead of counting them alone;
    `counts_only`: it lists none.
    """

    plan: Plan
    allowed: Collection[str] = ()
    prices: Mapping[str, float] = field(default_factory=dict)
    advice: Mapping[str, Advice] = field(default_factory=dict)
    next_step: str = "compose apply"
    whole: str = WHOLE
    budget: Budget = COMMENT
    color: bool = False
    list_all: bool = False
    counts_only: bool = False

    def needed_advice(self, action: Action) -> str | None:
        """The advice on an action that a reader should see, in words."""
        advice = self.advice.get(action.path) if action.recipe is not None else None
        return advice.words if advice and advice.is_needed and action.is_change else None

    @property
    def refused(self) -> tuple[Guard, ...]:
        """The dangers that apply would refuse."""
        return self.plan.refused(self.allowed)

    def without_guards(self) -> Self:
        """What is shown before a run that ends with these dangers as its error: not both."""
        return replace(self, plan=replace(self.plan, guards=()), next_step="")


def summary(plan: Plan) -> str:
    """`4 recipes: 1 to create, 3 unchanged. Without a recipe: 1 left alone.`"""
    living = [action for action in plan.actions if action.recipe is not None]
    others = [action for action in plan.actions if action.recipe is None]
    if not living:
        nothing = "No recipes in this plan." if plan.left_out.recipes else NO_RECIPES
        return f"{_counts(others).capitalize()}." if others else nothing
    tail = f" Without a recipe: {_counts(others)}." if others else ""
    return f"{counted(len(living), 'recipe')}: {_counts(living)}.{tail}"


def _counts(actions: Iterable[Action]) -> str:
    counts = Counter(action.shown for action in actions)
    return ", ".join(
        f"{counts[verb]:,} {words}" for verb, words in _COUNTED.items() if counts[verb]
    )


# --- the concepts of an action -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One concept: its LoRA's name (not yet escaped), and its scale; None where it isn't there."""

    label: str
    before: float | None
    after: float | None


def rows_of(action: Action, after: Content | None) -> list[Row]:
    """A row for each LoRA, by name; `after` is what the composition will be made of."""
    old, new = _scales(action.explanation.before), _scales(after)
    ids = sorted({*old, *new}, key=lambda id: (action.explanation.labels.get(id, id), id))
    names = Counter(action.explanation.labels.get(id, id) for id in ids)
    rows = []
    for id in ids:
        name = action.explanation.labels.get(id, id)
        which = "no pin" if is_stand_in(id) else id
        label = name if names[name] == 1 else f"{name} ({which})"
        rows.append(Row(label, old.get(id), new.get(id)))
    return rows


def _scales(content: Content | None) -> dict[str, float]:
    return {} if content is None else {c.model_id: c.scale for c in content.concepts}
