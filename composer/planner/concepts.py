"""A recipe's concepts as ids: pinned names keep theirs, new names are looked up."""

from __future__ import annotations

from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING

from composer.model import EPOCH, SCALE_RANGE, Concept, Content, scale_limits
from composer.text import counted, did_you_mean, listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from composer.model import ConceptRef, Entry, Model, Observed, Recipe
    from composer.planner.plan import Options


MOST = 6  # LoRAs of one name that a message lists


@dataclass(slots=True)
class Resolution:
    """What came of it. `problems` block the recipe; `missing` only block training it.

    `lora_type` is the type that each concept's model must have.
    """

    lora_type: str
    content: Content | None = None
    pins: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def under_pins(recipe: Recipe, entry: Entry) -> Content | None:
    """The recipe's content under this entry's pins alone; None where a name has no pin."""
    ids = [ref.model_id or entry.pin(ref.name or "") for ref in recipe.concepts]
    concepts = [
        Concept(id, ref.scale, ref.epoch)
        for id, ref in zip(ids, recipe.concepts, strict=True)
        if id
    ]
    if len(concepts) < len(ids):
        return None
    return Content.of(recipe.types.composition, concepts, recipe.training)


def resolve(
    recipe: Recipe, entry: Entry | None, observed: Observed, options: Options
) -> Resolution:
    """Find each concept's LoRA. Raises nothing: problems are in the result."""
    resolution = Resolution(recipe.types.lora)
    ids = [_id_of(ref, entry, observed, options, resolution) for ref in recipe.concepts]
    resolution.problems += _unsupported(recipe, observed)
    concepts = [
        Concept(id, ref.scale, ref.epoch)
        for id, ref in zip(ids, recipe.concepts, strict=True)
        if id
    ]
    twice = sorted({id for id in ids if id and ids.count(id) > 1})
    resolution.problems += [
        f"two concepts are one model: {id} ({_names(ids, recipe, id)})" for id in twice
    ]
    if not resolution.problems:
        resolution.content = Content.of(recipe.types.composition, concepts, recipe.training)
    return resolution


def _unsupported(recipe: Recipe, observed: Observed) -> Iterator[str]:
    """What this recipe asks for and the target does not take."""
    for name, _ in recipe.training:
        if name in observed.unsupported:
            yield f"training.{name}: {observed.unsupported[name]}"
    if EPOCH in observed.unsupported and any(ref.epoch for ref in recipe.concepts):
        yield f"{EPOCH}: {observed.unsupported[EPOCH]}"
    low, high = scale_limits(observed.unsupported)
    if outside := [ref.scale for ref in recipe.concepts if not low <= ref.scale <= high]:
        why = observed.unsupported[SCALE_RANGE]
        yield f"the scale {outside[0]:g} is outside {low}..{high}: {why}"


def _names(ids: list[str | None], recipe: Recipe, id: str) -> str:
    return " and ".join(
        ref.label for other, ref in zip(ids, recipe.concepts, strict=True) if other == id
    )


def _id_of(
    ref: ConceptRef,
    entry: Entry | None,
    observed: Observed,
    options: Options,
    resolution: Resolution,
) -> str | None:
    if ref.name is None:
        return _given(ref, observed, resolution)
    pin = entry.pin(ref.name) if entry else None
    upgraded = options.upgrade_all or ref.name in options.upgrade
    id = _pinned(ref.name, pin, observed, resolution) if pin and not upgraded else None
    id = id or _find_by_name(ref.name, observed, resolution)
    if id:
        resolution.pins[ref.name] = id
        resolution.labels[id] = ref.name
    return id


def _given(ref: ConceptRef, observed: Observed, resolution: Resolution) -> str | None:
    id = ref.model_id or ""
    model = observed.get(id)
    resolution.labels[id] = model.name if model else id
    if model is None:
        resolution.missing.append(f"there is no LoRA {id} on the target")
    else:
        _check_type(id, model, resolution)
    return id


def _check_type(label: str, model: Model, resolution: Resolution) -> None:
    if model.type != resolution.lora_type:
        resolution.problems.append(_wrong_type(label, model, resolution.lora_type))


def _wrong_type(label: str, model: Model, lora_type: str) -> str:
    return f"{label} is a {model.type}; only a {lora_type} can be composed"


def _pinned(name: str, pin: str, observed: Observed, resolution: Resolution) -> str:
    """A concept by name keeps the id that the lock pins, whatever the name means by now."""
    model = observed.get(pin)
    loras = named_loras(name, resolution.lora_type, observed)
    others = sorted(model.id for model in loras if model.id != pin)
    if model is None and not others and name in observed.rejected:
        resolution.missing.append(f"{name} can't be used: {observed.rejected[name]}")
        return pin
    if model is not None:
        _check_type(f"{name} ({pin})", model, resolution)
    if model is None and len(others) == 1:
        upgrade = f"{name} now means {others[0]}: --upgrade '{name}'"
        resolution.missing.append(f"the LoRA {pin} is not on the target; {upgrade}")
    elif model is None:  # an upgrade could not find it, either
        why = _unknown(name, resolution.lora_type, observed, loras)
        resolution.missing.append(f"the LoRA {pin} is not on the target; {why}")
    elif others and name not in (model.name, *model.aliases):
        resolution.notes.append(_other_meaning(name, pin, others))
    return pin


def _other_meaning(name: str, pin: str, others: list[str]) -> str:
    way = f"--upgrade '{name}'" if len(others) == 1 else "write the modelId that you want"
    return f"{name} now means {' or '.join(others)}, and is pinned to {pin}: {way}"


def named_loras(name: str, type: str, observed: Observed) -> list[Model]:
    """The project's own LoRAs of this name and type."""
    return [model for model in observed.own_by_name.get(name, ()) if model.type == type]


def _find_by_name(name: str, observed: Observed, resolution: Resolution) -> str | None:
    """Among the project's own LoRAs: exactly one of this name."""
    models = named_loras(name, resolution.lora_type, observed)
    if len(models) == 1:
        return models[0].id
    resolution.problems.append(_unknown(name, resolution.lora_type, observed, models))
    return None


def _unknown(name: str, lora_type: str, observed: Observed, models: Sequence[Model]) -> str:
    """Why this name means no LoRA: `models` are several, or none."""
    if models:
        return _ambiguous(name, models, observed)
    if name in observed.rejected:
        return f"{name} can't be used: {observed.rejected[name]}"
    for other in observed.own_by_name.get(name, ()):
        if other.name == name:
            return _wrong_type(name, other, lora_type)
    loras = [
        model for id in observed.own if (model := observed.get(id)) and model.type == lora_type
    ]
    where, next_step = _where(loras, observed), _near(name, loras)
    unusable = _unusable(name, observed.rejected, has_near=next_step.endswith("?"))
    if not loras and observed.library and not unusable and not observed.library.earlier:
        next_step = "; put LoRA files there, or name their folder: --library DIR"
    return f"no LoRA is named {name} {where}{next_step}{unusable}"


def _ambiguous(name: str, models: Sequence[Model], observed: Observed) -> str:
    """Each LoRA of this name with its file and id, after what a recipe should say instead."""
    known = [*sorted(models, key=lambda model: (model.files, model.name, model.id))]
    if not any(model.files for model in known):
        ids = listed([model.id for model in known], most=MOST)
        return f"{len(known)} LoRAs are named {name}: write one's modelId ({ids})"
    ways = listed([_way_to_write(model, observed) for model in known], most=MOST)
    return f"{len(known)} LoRAs are named {name}: write the name or modelId of one: {ways}"


def _way_to_write(model: Model, observed: Observed) -> str:
    """`ink-4 (ink-4.safetensors, model_...)`; without the name if that is another's too."""
    is_unique = len(named_loras(model.name, model.type, observed)) == 1
    known = [*model.files[:1], model.id]
    return f"{model.name} ({', '.join(known)})" if is_unique else f"{known[-1]} ({known[0]})"


def _where(loras: Sequence[Model], observed: Observed) -> str:
    """Where it was looked for, among how many, and another library that an earlier run had."""
    count, place = counted(len(loras), "LoRA"), observed.library
    if place is None:
        return f"on {observed.key} ({count})"
    inside = f"in {place.folder} ({count if place.exists else 'no such folder'})"
    before = f"; an earlier run used the library {place.earlier}: --library {quote(place.earlier)}"
    return inside + (before if place.earlier else "")


def _near(name: str, loras: Sequence[Model]) -> str:
    """The LoRA whose name or file is most like this one; else how to find out what there is."""
    by_name = {other: model for model in loras for other in (*model.aliases, model.name)}
    near = did_you_mean(name, sorted(by_name))
    if near is None:
        return "; `compose models` lists them" if loras else ""
    file = by_name[near].files[:1]
    return f"; did you mean {near}{f' ({file[0]})' if file else ''}?"


def _unusable(name: str, rejected: Mapping[str, str], *, has_near: bool) -> str:
    """The files that can't be used, as the title in one of them may be the name; the likeliest.

    None of them where a usable LoRA has a name like it, and they don't.
    """
    names = sorted(rejected)
    near = did_you_mean(name, names)
    if not rejected or (has_near and not near):
        return ""
    reason = rejected[near or names[0]]
    one = ", one of them" if len(names) > 1 else ""
    return f"; {counted(len(names), 'LoRA file')} can't be used{one}: {reason}"
