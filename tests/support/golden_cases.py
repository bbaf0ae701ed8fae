"""Situations that a reviewer may meet, each a plan by the real planner: what `golden/` is made of.

`python -m support.make_golden` writes them; `test_plan_markdown.py` compares and parses them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from support.fake_target import composition, lora
from support.hostile import HOSTILE
from support.model_types import COMPOSITION, COMPOSITION_TYPES
from support.rehearsal import recipe

from composer.model import (
    MARK,
    Concept,
    Content,
    Entry,
    KnownState,
    Lock,
    Next,
    Observed,
    TargetLock,
)
from composer.output.markdown import COMMENT, Budget
from composer.planner import Options, Plan, compare_locks, plan, plan_offline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from composer.model import Model, Recipe

LORAS = {"lora_ink": "Ink Lines", "lora_dust": "Pixel Dust", "lora_wash": "Watercolour"}
PINS = {name: id for id, name in LORAS.items()}
URL = "https://api.cloud.scenario.com/v1"


@dataclass(frozen=True)
class Case:
    """A plan with what is shown beside it."""

    plan: Plan
    prices: Mapping[str, float] = field(default_factory=dict)
    budget: Budget = COMMENT


CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case | Plan]) -> Callable[[], Case | Plan]:
    def made() -> Case:
        found = make()
        return found if isinstance(found, Case) else Case(found)

    CASES[make.__name__] = made
    return make


def path_of(name: str) -> str:
    return f"recipes/{name.lower().replace(' ', '-')}.yaml"


def wants(name: str, path: str = "", **scales: float) -> Recipe:
    """A recipe: `wants("Knight", ink=0.5)`."""
    concepts = {LORAS[f"lora_{key}"]: scale for key, scale in scales.items()}
    return recipe(path or path_of(name), name, concepts)


def made_of(**scales: float) -> Content:
    return Content.of(COMPOSITION, [Concept(f"lora_{key}", scale) for key, scale in scales.items()])


def entry(name: str, id: str, **scales: float) -> Entry:
    pins = tuple(sorted((LORAS[f"lora_{key}"], f"lora_{key}") for key in scales))
    return Entry(name, pins, id, f"job_{id}", made_of(**scales))


def there(name: str, id: str, status: str = "trained", **scales: float) -> Model:
    made = {f"lora_{key}": scale for key, scale in scales.items()}
    return composition(id, name, made, status, tags=frozenset({MARK}))


def planned(
    recipes: Sequence[Recipe],
    entries: Mapping[str, Entry],
    models: Sequence[Model],
    *,
    base: Mapping[str, Entry] | None = None,
    **options: bool,
) -> Plan:
    loras = [lora(id, name) for id, name in LORAS.items()]
    every = {model.id: model for model in (*loras, *models)}
    seen = Observed(URL, every, frozenset(every), remote=True, composition_types=COMPOSITION_TYPES)
    found = plan(recipes, KnownState(entries=entries), seen, Options(**options))
    if base is None:
        return found
    was, now = (Lock({URL: TargetLock(recipes=part)}) for part in (base, entries))
    diff = compare_locks(recipes, was, now, URL)
    return replace(found, lock_edits=tuple(diff.edits), notes=(*found.notes, *diff.notes))


KNIGHT = wants("Knight", wash=0.65, ink=0.8)
ROGUE = wants("Rogue", dust=0.6)
ENTRIES = {
    KNIGHT.path: entry("Knight", "model_knight", wash=0.65, ink=0.8),
    ROGUE.path: entry("Rogue", "model_rogue", dust=0.6),
}
MODELS = [
    there("Knight", "model_knight", wash=0.65, ink=0.8),
    there("Rogue", "model_rogue", dust=0.6),
]


@case
def first_plan() -> Plan:
    return planned([KNIGHT, ROGUE], {}, [])


@case
def nothing_to_do() -> Plan:
    return planned([KNIGHT, ROGUE], ENTRIES, MODELS)


@case
def one_scale() -> Plan:
    return planned([KNIGHT, wants("Rogue", dust=0.7)], ENTRIES, MODELS)


@case
def forty_recipes() -> Plan:
    """Ten of them new, ten with another scale, the others as they are."""
    names = [f"Guard {n:02}" for n in range(40)]
    entries = {path_of(n): entry(n, f"model_{i}", ink=0.5) for i, n in enumerate(names) if i > 9}
    models = [there(n, f"model_{i}", ink=0.5) for i, n in enumerate(names) if i > 9]
    recipes = [wants(n, ink=0.5 if i < 10 or i > 19 else 0.75) for i, n in enumerate(names)]
    return planned(recipes, entries, models)


@case
def guard() -> Plan:
    """Credentials of another project: everything of ours is missing."""
    return planned([KNIGHT, ROGUE], ENTRIES, [])


@case
def drift() -> Plan:
    """Somebody turned a weight on the target, and renamed the other composition there."""
    models = [there("Paladin", "model_knight", wash=0.65, ink=0.8)]
    return planned([KNIGHT, ROGUE], ENTRIES, [*models, there("Rogue", "model_rogue", dust=0.45)])


@case
def change_over_drift() -> Plan:
    """The recipe changed, and so did the target meanwhile: the plan names what it takes back."""
    models = [MODELS[0], there("Rogue", "model_rogue", dust=0.45)]
    return planned([KNIGHT, wants("Rogue", dust=0.7)], ENTRIES, models)


@case
def hostile_names() -> Plan:
    """Names as a stranger's recipe or a stranger on the target may choose them."""
    recipes = [wants(name, f"recipes/{n}.yaml", ink=0.5) for n, name in enumerate(HOSTILE)]
    recipes[0] = replace(recipes[0], path=f"recipes/{HOSTILE[0]}.yaml")
    odd = {f"lora_odd{n}": lora(f"lora_odd{n}", name) for n, name in enumerate(HOSTILE)}
    recipes.append(recipe("recipes/all.yaml", "All of them", dict.fromkeys(HOSTILE[:5], 0.5)))
    recipes.append(recipe("recipes/none.yaml", "Unknown", {HOSTILE[1] + "!": 0.5}))
    entries = {"recipes/3.yaml": entry(HOSTILE[3], "model_3", ink=0.5)}
    models = [*odd.values(), there(HOSTILE[4], "model_3", ink=0.6)]
    return planned(recipes, entries, models)


@case
def cut_comment() -> Case:
    """The forty recipes in a comment that has no room for them."""
    return Case(CASES["forty_recipes"]().plan, budget=Budget(5_000))


@case
def blocked() -> Plan:
    """A LoRA that nobody has, and an id in the lock that is no composition of ours."""
    ghost = recipe("recipes/ghost.yaml", "Ghost", {"Ink Lined": 0.5})
    entries = {**ENTRIES, ROGUE.path: replace(ENTRIES[ROGUE.path], composition="lora_dust")}
    return planned([KNIGHT, ROGUE, ghost], entries, MODELS)


@case
def deletion_with_prune() -> Plan:
    return planned([KNIGHT], ENTRIES, MODELS, prune=True)


@case
def protected() -> Plan:
    """A protected composition whose recipe is gone, and one that loses its protection."""
    entries = {path: replace(entry, protect=True) for path, entry in ENTRIES.items()}
    return planned([KNIGHT], entries, MODELS, prune=True)


@case
def lock_only_edit() -> Plan:
    """Somebody wrote another model's id into the lock, and moved a pin; no recipe changed."""
    stolen = replace(ENTRIES[ROGUE.path], composition="model_other")
    pins = (("Ink Lines", "lora_dust"), ("Watercolour", "lora_wash"))
    moved = replace(ENTRIES[KNIGHT.path], pins=pins)
    models = [*MODELS, there("Rogue", "model_other", dust=0.6)]
    entries = {ROGUE.path: stolen, KNIGHT.path: moved}
    return planned([KNIGHT, ROGUE], entries, models, base=ENTRIES)


@case
def move_and_rename() -> Plan:
    """One recipe moved, the other got another name."""
    recipes = [wants("Knight", "recipes/tutorial/knight.yaml", wash=0.65, ink=0.8)]
    recipes.append(replace(ROGUE, name="Scout"))
    return planned(recipes, ENTRIES, MODELS)


@case
def offline() -> Plan:
    """One scale changed, one recipe is new and names a LoRA that the lock doesn't know."""
    mage = recipe("recipes/mage.yaml", "Mage", {"Star Dust": 0.5})
    lock = TargetLock(recipes=ENTRIES)
    return plan_offline([KNIGHT, mage, wants("Rogue", dust=0.7)], lock, URL)


COMING = Entry(
    "Rogue",
    (("Pixel Dust", "lora_dust"),),
    next=Next("model_rogue", made_of(dust=0.6), "training"),
)


@case
def still_training() -> Plan:
    models = [MODELS[0], there("Rogue", "model_rogue", "training", dust=0.6)]
    return planned([KNIGHT, ROGUE], {KNIGHT.path: ENTRIES[KNIGHT.path], ROGUE.path: COMING}, models)


@case
def failed_training_with_a_price() -> Case:
    failed = replace(there("Rogue", "model_rogue", "failed", dust=0.6), error="out of memory")
    found = planned([ROGUE], {ROGUE.path: COMING}, [failed])
    return Case(found, prices={ROGUE.path: 12.5})


@case
def adopted() -> Plan:
    """`git revert`: the earlier composition is still there; and one with new words and tags."""
    old = there("Rogue", "model_before", dust=0.5)
    described = replace(KNIGHT, description="Soft knights.", tags=("tutorial",))
    return planned([described, wants("Rogue", dust=0.5)], ENTRIES, [*MODELS, old])
