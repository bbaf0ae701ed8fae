"""The registry of model families. FLUX.1 is one; `register` adds another.

Looking a family up costs next to nothing: its tables are built when its first file is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.lora.families.family import Family
from composer.lora.families.flux1 import FLUX1

if TYPE_CHECKING:
    from collections.abc import Collection

    from composer.model import ModelTypes

__all__ = [
    "Family",
    "composition_types",
    "default",
    "lora_types",
    "model_types",
    "of_base_model",
    "of_keys",
    "of_type",
    "output_formats",
    "programs",
    "register",
    "registered",
]

_FAMILIES: dict[str, Family] = {FLUX1.types.composition: FLUX1}


def register(family: Family) -> None:
    """Add a family, or replace the one of the same composition type."""
    _FAMILIES[family.types.composition] = family


def registered() -> tuple[Family, ...]:
    """All families, the default first."""
    return tuple(_FAMILIES.values())


def default() -> Family:
    """The family of a recipe that names no type."""
    return FLUX1


def model_types() -> tuple[ModelTypes, ...]:
    """The types of all families' models, the default's first: what a recipe's `type` may be."""
    return tuple(family.types for family in registered())


def composition_types() -> frozenset[str]:
    """The types that a composition may have."""
    return frozenset(types.composition for types in model_types())


def lora_types() -> frozenset[str]:
    """The types that a LoRA may have."""
    return frozenset(types.lora for types in model_types())


def output_formats() -> tuple[str, ...]:
    """The names of all families' output formats, the default's first."""
    names = (name for family in registered() for name in family.files.output_formats)
    return tuple(dict.fromkeys(names))


def programs() -> tuple[str, ...]:
    """The programs of which some family knows how they use a composed file, by name."""
    return tuple(dict.fromkeys(name for family in registered() for name in family.usages))


def of_type(composition_type: str) -> Family | None:
    """The family of this composition type, None if it is not registered."""
    return _FAMILIES.get(composition_type)


def of_base_model(id: str) -> Family | None:
    """The family whose base model has this id on Scenario, None if none has."""
    return next((family for family in registered() if family.base_model == id), None)


def of_keys(keys: Collection[str]) -> Family:
    """The first family that knows all keys of a file, else the default."""
    fitting = (family for family in registered() if all(map(family.files.has_key, keys)))
    return next(fitting, default())
