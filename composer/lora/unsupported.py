"""Files and keys that we don't read, each with the reason in words.

`reading` asks here before it looks closer. A key that no format knows is never passed over: left
out silently, it would make a model that looks right and isn't.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.lora.format_error import LoraFormatError, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from composer.lora.families import Family

_BASE_KEYS = ("modelspec.architecture", "ss_base_model_version")


def check(family: Family, keys: Mapping[str, object], metadata: Mapping[str, str]) -> None:
    """Raise `LoraFormatError` if the file is for another model, is empty, or has an unknown key."""
    if not keys:
        raise LoraFormatError("has no tensors")
    unknown = [key for key in keys if not family.has_key(key)]
    if unknown:
        raise _refusal(family, unknown)
    if all(key in family.norm_keys for key in keys):
        raise LoraFormatError("has scales of norms and nothing else: no LoRA")
    for field in _BASE_KEYS:
        for pattern, words in family.other_models:
            if pattern.search(metadata.get(field, "")):
                raise LoraFormatError(
                    f"is for {words}, says its metadata ({field}): not for {family.label}"
                )


def unsupported_layer(stem: str, encoder: str | None, form: str) -> LoraFormatError:
    """What is wrong with a part for a text encoder that the result's form can't hold."""
    return LoraFormatError(
        f"{stem} is a part for {encoder}, which the {form} form can't hold",
        hint="`compose merge --format kohya` keeps it",
    )


def _refusal(family: Family, unknown: list[str]) -> LoraFormatError:
    for pattern, words in family.refusals:
        hits = [key for key in unknown if pattern.search(key)]
        if hits:
            return LoraFormatError(f"{_named(hits)}: {words}")
    return LoraFormatError(f"{_named(unknown)}: no key of a {family.label} LoRA that we know")


def _named(keys: list[str]) -> str:
    more = f" and {len(keys) - 1} more keys" if len(keys) > 1 else ""
    return f"has {shown(keys[0])}{more}"
