"""What the engine accepts: names, concepts, training parameters and wished ids.

The service asks before it writes. Each refusal is a `TargetError` that names what is wrong.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from composer.errors import TargetError
from composer.lora import families
from composer.lora.merging import OutputOptions
from composer.model import DESCRIBED, is_id
from composer.text import shorten, visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from composer.model import Concept, Described, Parameters
    from composer.targets.local.library import Lora

# The limits of the wire, which any client of the API knows.
NAME_LIMIT, CONCEPTS_LIMIT, SCALE_LIMIT = 64, 5, 2.0
UNSUPPORTED = MappingProxyType(
    {"modelEpoch": "a file has no epochs: put that epoch's file into the library"}
)
DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)\d", re.IGNORECASE)  # no file names on Windows


def check_texts(name: str | None, described: Described) -> None:
    """Refuse a text that is too long, or a name that is empty."""
    if name is not None and not 1 <= len(name) <= NAME_LIMIT:
        raise TargetError(f"a model's name has 1 to {NAME_LIMIT} characters, not {len(name)}")
    texts = described.texts
    for field in DESCRIBED:
        length = len(texts.get(field.name, ""))
        if length > field.longest:
            raise TargetError(f"a {field.name} has up to {field.longest} characters, not {length}")


def check_concepts(type: str, concepts: tuple[Concept, ...], loras: Mapping[str, Lora]) -> None:
    """Refuse concepts that can't be composed to this type; `loras` are the library's, by id."""
    family = families.of_type(type)
    if family is None:
        raise TargetError(
            f"unknown model type {shorten(visible(type), 64)}",
            hint=f"the types of compositions are {', '.join(sorted(families.composition_types()))}",
        )
    if not 1 <= len(concepts) <= CONCEPTS_LIMIT:
        raise TargetError(f"a composition has 1 to {CONCEPTS_LIMIT} concepts, not {len(concepts)}")
    for concept in concepts:
        _check_concept(concept)
        if concept.model_id not in loras:
            raise TargetError(
                f"the library has no LoRA {concept.model_id}",
                hint="`compose models` lists what is there; `--library` takes another folder",
            )
        lora_type = loras[concept.model_id].type
        if lora_type != family.types.lora:
            raise TargetError(
                f"{concept.model_id} is a {lora_type}; only a {family.types.lora} can be composed"
                f" to a {type}"
            )
    if len({concept.model_id for concept in concepts}) < len(concepts):
        raise TargetError("a composition can't have the same LoRA twice")


def _check_concept(concept: Concept) -> None:
    if not -SCALE_LIMIT <= concept.scale <= SCALE_LIMIT:  # NaN fails it too
        raise TargetError(f"the scale of {concept.model_id} is {concept.scale}, not within -2..2")
    if concept.epoch is not None:
        raise TargetError(
            f"{concept.model_id} is a file, and a file has no epoch {concept.epoch}",
            hint="take modelEpoch out of the recipe, and put that epoch's file into the library",
        )


def check_parameters(parameters: Parameters) -> None:
    """Refuse training parameters that would have to mean something, and can't."""
    OutputOptions.of(parameters)
    for name, _ in parameters:
        if name in UNSUPPORTED:
            raise TargetError(
                f"the training parameter {name} is not supported: {UNSUPPORTED[name]}",
                hint=f"take {name} out of the recipe's training",
            )


def can_be_granted(id: str) -> bool:
    """Whether a wished id can be one of ours: it becomes a file's name."""
    return is_id(id) and not DEVICES.fullmatch(id)
