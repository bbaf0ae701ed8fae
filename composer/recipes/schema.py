"""Judges a file's values by `schemas/recipe.schema.json`, the schema that editors use too.

jsonschema finds what is wrong; here it becomes a code, a place and words. A definition of the
schema that has a rule of its own carries the code of its problem as `x-code`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from jsonschema import Draft7Validator

from composer.files.schemas import schema as shipped
from composer.recipes.characters import unsafe_words
from composer.recipes.nodes import KeyPath, Node, Place, Report, dotted, quoted, said
from composer.recipes.scalars import core
from composer.text import UNSAFE, counted, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# What a sentence about a finding is made of: place, code, message without the path, hint.
Sentence: TypeAlias = "tuple[Place, str, str, str]"


@dataclass(frozen=True, slots=True)
class Finding:
    """What jsonschema has against one value: the rule, what the rule wants, the rule's schema."""

    rule: str
    wanted: Any
    schema: Mapping[str, Any]
    node: Node
    path: KeyPath


@cache
def _schema() -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", json.loads(shipped("recipe")))


@cache
def _validator(types: tuple[str, ...]) -> Draft7Validator:
    """The compiled schema, with the types of all registered families; compiled once.

    The shipped file has those that compose brings along.
    """
    schema = {**_schema()}
    type = {**schema["properties"]["type"], "enum": list(types), "default": types[0]}
    schema["properties"] = {**schema["properties"], "type": type}
    return Draft7Validator(schema)


@cache
def properties(*path: str) -> Mapping[str, Any]:
    """The keys and their schemas: of a recipe, or of a mapping in it (`training`, …)."""
    found: Any = _schema()
    for step in path:
        found = found["properties"][step]
    return dict(found["properties"])


def judge(root: Node, report: Report, types: tuple[str, ...]) -> None:
    """Reports whatever the schema has against a file's values.

    `types` are what a recipe's `type` may be, the default first.
    """
    for found in _findings(root, types):
        for place, code, message, hint in _SENTENCES[found.rule](found):
            report.add(place, code, said(found.path, message), hint)


def _findings(root: Node, types: tuple[str, ...]) -> Iterator[Finding]:
    error: Any  # what jsonschema says of its errors' types doesn't help
    for error in _validator(types).iter_errors(root.value):
        path: KeyPath = tuple(error.absolute_path)
        node = root.at(path)
        if not node.refused:
            yield Finding(error.validator, error.validator_value, error.schema, node, path)


# --- keys --------------------------------------------------------------------------------


def _unknown_keys(found: Finding) -> Iterator[Sentence]:
    known = found.schema["properties"]
    for key in (key for key in found.node.keys if key not in known):
        place = found.node.keys[key]
        if key.casefold().replace("_", "") == "wandbkey":
            message = f"{key} is a secret and must not be in a recipe"
            yield place, "E112", message, "remove it; revoke it if it was ever committed"
        else:
            hint = _key_hint(key, list(known), found.path)
            yield place, "E101", f"unknown key {quoted(key)}", hint


def _key_hint(key: str, known: list[str], path: KeyPath) -> str:
    if meant := did_you_mean(key, known):
        return f"did you mean {meant}?"
    if path != ("training", "parameters") and key in properties("training", "parameters"):
        return f"write it under training: parameters: {{{key}: …}}"
    few = len(known) < 9
    return f"valid keys: {', '.join(known)}" if few else "compose schema recipe lists the keys"


def _missing_keys(found: Finding) -> Iterator[Sentence]:
    """The required keys that aren't there, but for those that are only misspelt."""
    for key in found.wanted:
        if key not in found.node.keys and key not in _misspelt(found):
            yield found.node.place, "E102", f"{key} is missing", _ADD[key]


_ADD = {
    "name": "add the composed model's name, for instance name: Storybook Knight",
    "concepts": "list one to five LoRAs; if the file is not a recipe, leave it out with --exclude",
    "scale": "add the LoRA's weight, for instance scale: 0.65",
}


def _misspelt(found: Finding) -> set[str | None]:
    known = found.schema["properties"]
    return {did_you_mean(key, known) for key in found.node.keys if key not in known}


def _name_or_id(found: Finding) -> Iterator[Sentence]:
    """The one `oneOf` of the schema: a concept has `name` or `modelId`."""
    node, both = found.node, {"name", "modelId"}
    if not isinstance(node.value, dict):
        return  # its type is another finding
    if both <= node.value.keys():
        message = "names its LoRA twice, by name and by modelId"
        yield node.keys["modelId"], "E108", message, "keep either name or modelId"
    elif not both & _misspelt(found):
        yield node.place, "E108", "names no LoRA", "add the LoRA's name or its modelId"


# --- values ------------------------------------------------------------------------------

_NOUNS = {
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}


def _wrong_type(found: Finding) -> Iterator[Sentence]:
    noun = _NOUNS[found.wanted]
    message = "is empty" if found.node.value is None else f"{_what(found.node)}, not {noun}"
    yield found.node.place, "E103", message, _type_hint(found)


def _what(node: Node) -> str:
    if isinstance(node.value, dict | list):
        return "is a mapping" if isinstance(node.value, dict) else "is a list"
    if isinstance(node.value, bool):
        return f"{node.shown} is a boolean"
    return f"{node.shown} is {'a string' if isinstance(node.value, str) else 'a number'}"


def _type_hint(found: Finding) -> str:
    value, wanted = found.node.value, found.wanted
    if value is None:
        return f"write {_NOUNS[wanted]}, or leave the key out"
    if wanted == "string" and not isinstance(value, dict | list):
        return f'quote it: "{found.node.text}"'
    if isinstance(value, str) and _reads_as(value, wanted):
        return f"remove the quotes: {value}"
    return _range_hint(found.schema) if wanted in ("number", "integer") else _WRITE[wanted]


_WRITE = {
    "string": "write a string",
    "boolean": "write true or false",
    "array": "write a list: one item per line, each after a hyphen, or [a, b]",
    "object": "write keys and values, one per line: key: value",
}


def _reads_as(text: str, wanted: str) -> bool:
    value = core(text) if len(text) < 20 else text
    if wanted == "boolean":
        return isinstance(value, bool)
    fits = {"integer": isinstance(value, int), "number": isinstance(value, int | float)}
    return fits.get(wanted, False) and not isinstance(value, bool)


def _range_hint(schema: Mapping[str, Any]) -> str:
    noun = f"write {_NOUNS[schema['type']]}"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{noun} between {low} and {high}"
    return noun if low is None else f"{noun} of {low} or more"


def _out_of_range(found: Finding) -> Iterator[Sentence]:
    side = "above" if found.rule == "maximum" else "below"
    message = f"{found.node.shown} is {side} {found.wanted}"
    yield found.node.place, "E104", message, _range_hint(found.schema)


def _too_short(found: Finding) -> Iterator[Sentence]:
    yield found.node.place, "E106", "is empty", "write at least one character"


def _too_long(found: Finding) -> Iterator[Sentence]:
    length = len(str(found.node.value))
    message = f"has {counted(length, 'character')}; the maximum is {found.wanted}"
    yield found.node.place, "E106", message, f"shorten it by {length - found.wanted}"


def _how_many(found: Finding) -> Iterator[Sentence]:
    few, most = found.schema["minItems"], found.schema["maxItems"]
    size = len(found.node.children)
    message = f"has {size} items; the maximum is {most}" if size else "is empty"
    yield found.node.place, "E107", message, f"list {few} to {most} {dotted(found.path)}"


def _not_allowed(found: Finding) -> Iterator[Sentence]:
    node = found.node
    allowed = found.wanted if found.rule == "enum" else [found.wanted]
    meant = did_you_mean(str(node.value), allowed)
    what = node.shown if not isinstance(node.value, dict | list) else ""
    message = f"{what or 'this value'} is not allowed"
    hint = f"did you mean {meant}?" if meant else f"write {' or '.join(allowed)}"
    yield node.place, "E111", message, hint


# --- rules with a code of their own ------------------------------------------------------

_RULES = {
    "E109": ("is not a valid id", "an id has at most 64 characters: letters, digits, _ and -"),
    "E113": ("is a tag that only compose sets", "remove it"),
    "E114": ("has whitespace at the beginning or end", "remove it"),
    "E115": ("looks like a path", "write a plain name"),
}


def _own_rule(found: Finding) -> Iterator[Sentence]:
    code, text = found.schema["x-code"], str(found.node.value)
    if code == "E202":
        _, what = unsafe_words(UNSAFE.findall(text)[0])
        yield found.node.place, code, f"contains {what}", "write it on one line"
    else:
        words, hint = _RULES[code]
        yield found.node.place, code, f"{quoted(text)} {words}", hint


_SENTENCES: Mapping[str, Callable[[Finding], Iterator[Sentence]]] = {
    "additionalProperties": _unknown_keys,
    "required": _missing_keys,
    "oneOf": _name_or_id,
    "type": _wrong_type,
    "minimum": _out_of_range,
    "maximum": _out_of_range,
    "minLength": _too_short,
    "maxLength": _too_long,
    "minItems": _how_many,
    "maxItems": _how_many,
    "enum": _not_allowed,
    "const": _not_allowed,
    "pattern": _own_rule,
    "not": _own_rule,
}
