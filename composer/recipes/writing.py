"""Writes a recipe as the text of its file, for `compose import`.

Strings are quoted only where necessary. The strict reader reads every written text back as the same
recipe.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import TYPE_CHECKING

from composer.recipes.scalars import number, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from composer.model import ConceptRef, ModelTypes, Recipe, Value

# Letters, digits and a few signs, words one space apart: plain in block and in flow style.
_PLAIN = re.compile(r"[A-Za-z0-9_](?:[\w.+/()'-]| (?=[\w(]))*", re.ASCII)

_LONGEST_SLUG = 60
_RESERVED = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]")  # Windows' device names


def write(recipe: Recipe, *, default: ModelTypes) -> str:
    """The YAML text of a recipe; default values are left out, the type too."""
    return "".join(f"{line}\n" for line in _lines(recipe, default))


def _lines(recipe: Recipe, default: ModelTypes) -> Iterator[str]:
    if recipe.types != default:
        yield f"type: {_text(recipe.types.composition)}"
    yield f"name: {_text(recipe.name)}"
    yield from (f"{name}: {_text(text)}" for name, text in recipe.texts.items())
    yield "concepts:"
    for concept in recipe.concepts:
        first, *others = _concept(concept)
        yield f"  - {first}"
        yield from (f"    {line}" for line in others)
    if any(not 0 <= concept.scale <= 1 for concept in recipe.concepts):
        yield "scaleRange: extended"
    if recipe.training:
        yield "training:"
        yield "  parameters:"
        yield from (f"    {key}: {_value(value)}" for key, value in recipe.training)
    if recipe.tags:
        yield f"tags: {_value(recipe.tags)}"
    if recipe.protect:
        yield "protect: true"
    if recipe.prompts:
        yield "preview:"
        yield "  prompts:"
        yield from (f"    - {_text(prompt)}" for prompt in recipe.prompts)


def _concept(concept: ConceptRef) -> Iterator[str]:
    if concept.name is not None:
        yield f"name: {_text(concept.name)}"
    if concept.model_id is not None:
        yield f"modelId: {_text(concept.model_id)}"
    yield f"scale: {scale_text(concept.scale)}"
    if concept.epoch is not None:
        yield f"modelEpoch: {json.dumps(concept.epoch)}"  # mostly digits: always in quotes


def scale_text(scale: float) -> str:
    """The shortest decimals of a scale, which has at most four."""
    return f"{scale:.4f}".rstrip("0").rstrip(".")


def _value(value: Value) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return _text(value) if isinstance(value, str) else number(value)


def _text(text: str) -> str:
    """Plain if both versions of YAML read the same string back, else in double quotes."""
    plain = _PLAIN.fullmatch(text) and read(text) == text
    return text if plain else json.dumps(text, ensure_ascii=False)


def slug(name: str) -> str:
    """A file's stem for a recipe's name: ASCII, lower case, hyphens; valid on every system."""
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    words = re.findall("[a-z0-9]+", ascii_only.lower())
    stem = "-".join(words)[:_LONGEST_SLUG].strip("-") or "recipe"
    return f"{stem}-recipe" if _RESERVED.fullmatch(stem) else stem
