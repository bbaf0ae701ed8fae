"""Checks a file's values by `schemas/recipe.schema.json`, the schema that editors use too.

fastjsonschema says quickly whether anything is wrong. Only then jsonschema, which is twenty times
slower, finds all that is; this module turns it into a code, a place and a message. A definition
of the schema with a rule of its own has the code of its problem as `$comment`.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import fastjsonschema

from composer.files.schemas import schema as shipped
from composer.recipes.problems import KeyPath, Place, Report, at_path, quoted
from composer.recipes.scalars import core
from composer.recipes.yaml_tree import unsafe_words
from composer.text import UNSAFE, counted, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from jsonschema import Draft7Validator

    from composer.recipes.yaml_tree import Node

# What a sentence about a finding is made of: place, code, message without the path, hint.
Sentence: TypeAlias = "tuple[Place, str, str, str]"
Sentences: TypeAlias = "Callable[[Finding], Iterator[Sentence]]"  # of one rule


class Finding(NamedTuple):
    """What jsonschema found wrong with one value: the rule, its setting, and its schema."""

    rule: str
    wanted: Any
    schema: Mapping[str, Any]
    node: Node
    path: KeyPath


@cache
def _schema() -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", json.loads(shipped("recipe")))


def _of_types(types: tuple[str, ...]) -> dict[str, Any]:
    """The schema with the types of all registered families.

    The shipped file has those that compose brings along.
    """
    schema = {**_schema()}
    type = {**schema["properties"]["type"], "enum": list(types), "default": types[0]}
    schema["properties"] = {**schema["properties"], "type": type}
    return schema


@cache
def _quick_check(types: tuple[str, ...], without: tuple[str, ...]) -> Callable[[object], object]:
    """The schema compiled. That takes longer than checking hundreds of recipes, so some keys that
    a recipe does not have are left out.
    """
    return compiled(_without(_of_types(types), without))


def _without(schema: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    known = schema["properties"]
    return {**schema, "properties": {key: known[key] for key in known if key not in keys}}


def compiled_without(schema: Mapping[str, Any], keys: Iterable[str]) -> Callable[[object], object]:
    """As `compiled`, for values that have none of these keys."""
    return compiled(_without(schema, keys))


def compiled(schema: Mapping[str, Any]) -> Callable[[object], object]:
    """A schema as Python code, which raises at the first thing that is wrong, without saying what:
    that takes less time to compile.
    """
    check = fastjsonschema.compile(
        _rules(schema), use_default=False, use_formats=False, detailed_exceptions=False
    )
    return cast("Callable[[object], object]", check)


def _is_right(value: object, types: tuple[str, ...]) -> bool:
    """Whether the schema allows this value."""
    without = absent(value, "training", "preview")  # few recipes have them
    try:
        _quick_check(types, without)(value)
    except fastjsonschema.JsonSchemaValueException:
        return False
    return True


def absent(value: object, *keys: str) -> tuple[str, ...]:
    """Which of these keys a mapping does not have."""
    return tuple(key for key in keys if not (isinstance(value, dict) and key in value))


_WORDS = frozenset({"title", "description", "$comment", "default", "examples"})


def _rules(schema: Any, *, names: bool = False) -> Any:
    """A schema without what is for readers. With `names`, keys are names and no keywords.

    `const` becomes an `enum`: fastjsonschema can't compile it without details.
    """
    if isinstance(schema, list):
        return [_rules(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    rules = {
        key: _rules(value, names=not names and key in ("properties", "definitions"))
        for key, value in schema.items()
        if names or key not in _WORDS
    }
    if not names and "const" in rules:
        rules["enum"] = [rules.pop("const")]
    return rules


@cache
def _validator(types: tuple[str, ...]) -> Draft7Validator:
    from jsonschema import Draft7Validator  # slow to import, and only a wrong file needs it

    return Draft7Validator(_of_types(types))


def with_names(names: Iterable[str]) -> str:
    """The text of the schema for editors, which offer these names of LoRAs. Others stay valid.

    A name that no recipe may use is left out.
    """
    schema = json.loads(shipped("recipe"))
    types = tuple(schema["properties"]["type"]["enum"])
    usable = [name for name in dict.fromkeys(names) if _is_right(_naming(name), types)]
    if usable:
        field = schema["definitions"]["concept"]["properties"]["name"]
        field["anyOf"] = [{"type": "string", "enum": usable}, {"type": "string"}]
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _naming(lora: str) -> dict[str, Any]:
    """A recipe with this LoRA."""
    return {"name": "any", "concepts": [{"name": lora, "scale": 1}]}


@cache
def properties(*path: str) -> Mapping[str, Any]:
    """The keys and their schemas: of a recipe, or of a mapping in it (`training`, …)."""
    schema: Any = _schema()
    for step in path:
        schema = schema["properties"][step]
    return dict(schema["properties"])


def check(root: Node, report: Report, types: tuple[str, ...]) -> None:
    """Report every value that the schema does not allow.

    `types` are what a recipe's `type` may be, the default first.
    """
    if not _is_right(root.value, types):  # jsonschema finds what is wrong, and the rest
        add_findings(root, report, _validator(types), SENTENCES)


def add_findings(
    root: Node, report: Report, validator: Draft7Validator, sentences: Mapping[str, Sentences]
) -> None:
    """Report every value that a schema does not allow, by the sentences of each rule."""
    for finding in _findings(root, validator):
        for place, code, message, hint in sentences[finding.rule](finding):
            report.add(place, code, at_path(finding.path, message), hint)


def _findings(root: Node, validator: Draft7Validator) -> Iterator[Finding]:
    error: Any  # what jsonschema says of its errors' types doesn't help
    wrong_types: set[KeyPath] = set()  # the schema repeats types for the range of the scales
    for error in validator.iter_errors(root.value):
        path: KeyPath = tuple(error.absolute_path)
        node = root.at(path)
        if error.validator == "type" and path in wrong_types:
            continue
        wrong_types |= {path} if error.validator == "type" else set()
        if not node.refused:
            yield Finding(error.validator, error.validator_value, error.schema, node, path)


# --- keys --------------------------------------------------------------------------------


def _unknown_keys(finding: Finding) -> Iterator[Sentence]:
    valid_keys = finding.schema["properties"]
    for key in (key for key in finding.node.keys if key not in valid_keys):
        place = finding.node.keys[key]
        if key.casefold().replace("_", "") == "wandbkey":
            message = f"{key} is a secret and must not be in a recipe"
            hint = f"remove {key}; revoke the secret if it was ever committed"
            yield place, "E112", message, hint
        else:
            hint = _key_hint(key, list(valid_keys), finding)
            yield place, "E101", f"unknown key {quoted(key)}", hint


def _key_hint(key: str, valid_keys: list[str], finding: Finding) -> str:
    if meant := _meant(key, valid_keys, finding.node):
        return f"did you mean {meant}?"
    if finding.path != ("training", "parameters") and key in properties("training", "parameters"):
        return f"write it under training: parameters: {{{key}: …}}"
    few = len(valid_keys) < 10
    return f"valid keys: {', '.join(valid_keys)}" if few else "compose schema recipe lists the keys"


# What other programs call these keys.
_ELSEWHERE = {
    "loras": "concepts",
    **dict.fromkeys(("lora", "lora_name", "file"), "name"),
    **dict.fromkeys(("weight", "strength", "strength_model"), "scale"),
    **dict.fromkeys(("prompt", "prompts", "previews"), "preview"),
}


def _meant(key: str, valid_keys: list[str], node: Node) -> str | None:
    name = _ELSEWHERE.get(key.casefold())
    fits = name in valid_keys and name not in node.keys
    return name if fits else did_you_mean(key, valid_keys)


def _missing_keys(finding: Finding) -> Iterator[Sentence]:
    """The required keys that are missing, except those that are only misspelt."""
    misspelt = _misspelt(finding)
    for key in (key for key in finding.wanted if key not in finding.node.keys):
        if key == "name" and finding.path[:1] == ("concepts",):
            if not {"name", "modelId"} & misspelt:
                message = "names no LoRA"
                yield finding.node.place, "E108", message, "add the LoRA's name or its modelId"
        elif key not in misspelt:
            yield finding.node.place, "E102", f"{key} is missing", _ADD[key]


_ADD = {
    "name": "add the composed model's name, for instance name: Storybook Knight",
    "concepts": "list one to five LoRAs; if the file is not a recipe, leave it out with --exclude",
    "scale": "add the LoRA's weight, for instance scale: 0.65",
}


def _misspelt(finding: Finding) -> set[str | None]:
    """Valid keys of the mapping that unknown ones in it are near to."""
    valid = _schema() if not finding.path else _schema()["definitions"]["concept"]
    unknown = (key for key in finding.node.keys if key not in valid["properties"])
    return {_meant(key, list(valid["properties"]), finding.node) for key in unknown}


def _named_twice(finding: Finding) -> Iterator[Sentence]:
    """The `not` of a concept with a `modelId`; that of a tag is a rule of its own."""
    if finding.path[:1] != ("concepts",):
        yield from _own_rule(finding)
        return
    message = "names its LoRA twice, by name and by modelId"
    yield finding.node.keys["modelId"], "E108", message, "keep either name or modelId"


# --- values ------------------------------------------------------------------------------

_NOUNS = {
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}


def _wrong_type(finding: Finding) -> Iterator[Sentence]:
    noun = _NOUNS[finding.wanted]
    message = "is empty" if finding.node.value is None else f"{_what(finding.node)}, not {noun}"
    yield finding.node.place, "E103", message, _type_hint(finding)


def _what(node: Node) -> str:
    if isinstance(node.value, dict | list):
        return "is a mapping" if isinstance(node.value, dict) else "is a list"
    if isinstance(node.value, bool):
        return f"{node.shown} is a boolean"
    return f"{node.shown} is {'a string' if isinstance(node.value, str) else 'a number'}"


def _type_hint(finding: Finding) -> str:
    value, wanted = finding.node.value, finding.wanted
    if value is None:
        return f"write {_NOUNS[wanted]}, or leave the key out"
    if wanted == "string" and not isinstance(value, dict | list):
        return f'quote it: "{finding.node.text}"'
    if isinstance(value, str) and _reads_as(value, wanted):
        return f"remove the quotes: {value}"
    if wanted == "number" and isinstance(value, str) and (meant := _number_meant(value)):
        return f"write {meant}"
    return _range_hint(finding.schema) if wanted in ("number", "integer") else _WRITE[wanted]


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


def _number_meant(text: str) -> str | None:
    """A number with a decimal comma, or in percent, as a recipe writes it."""
    if found := re.fullmatch(r"(-?\d),(\d{1,4})", text, re.ASCII):
        return f"{found[1]}.{found[2]}"
    found = re.fullmatch(r"(\d{1,3}) ?%", text, re.ASCII)
    return f"{int(found[1]) / 100:g}" if found else None


def _range_hint(schema: Mapping[str, Any]) -> str:
    noun = f"write {_NOUNS[schema['type']]}"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{noun} between {low} and {high}"
    return noun if low is None else f"{noun} of {low} or more"


def _out_of_range(finding: Finding) -> Iterator[Sentence]:
    side = "above" if finding.rule == "maximum" else "below"
    message = f"{finding.node.shown} is {side} {finding.wanted}"
    hint, value = _range_hint(finding.schema), cast("float", finding.node.value)
    if finding.path[-1] == "scale" and finding.wanted in (0, 1) and -2 <= value <= 2:
        hint += f"; {_EXTENDED}"
    yield finding.node.place, "E104", message, hint


_EXTENDED = "on the local target `scaleRange: extended` in the recipe allows -2 to 2"


def _too_short(finding: Finding) -> Iterator[Sentence]:
    yield finding.node.place, "E106", "is empty", "write at least one character"


def _too_long(finding: Finding) -> Iterator[Sentence]:
    length = len(str(finding.node.value))
    message = f"has {counted(length, 'character')}; the maximum is {finding.wanted}"
    yield finding.node.place, "E106", message, f"shorten it by {length - finding.wanted}"


def _how_many(finding: Finding) -> Iterator[Sentence]:
    few, most = finding.schema["minItems"], finding.schema["maxItems"]
    size = len(finding.node.children)
    listed = finding.path[-1]
    if size > most:
        message, hint = f"has {size} {listed}; the maximum is {most}", f"remove {size - most}"
    else:
        message, hint = "is empty", f"list {few} to {most} {listed}"
    yield finding.node.place, "E107", message, hint


def _not_allowed(finding: Finding) -> Iterator[Sentence]:
    node = finding.node
    allowed = finding.wanted if finding.rule == "enum" else [finding.wanted]
    meant = did_you_mean(str(node.value), allowed)
    what = node.shown if not isinstance(node.value, dict | list) else ""
    message = f"{what or 'this value'} is not allowed"
    hint = f"did you mean {meant}?" if meant else f"write {' or '.join(allowed)}"
    yield node.place, "E111", message, hint


# --- rules with a code of their own ------------------------------------------------------

_RULES = {
    "E109": ("is not a valid id", "an id has at most 64 characters: letters, digits, _ and -"),
    "E113": ("is a tag that only compose sets", "remove the tag"),
    "E114": ("has whitespace at the beginning or end", "remove the whitespace"),
    "E115": ("looks like a path", "write a plain name"),
}


_WEIGHTS, _SLASHES = ".safetensors", r"[/\\]"


def _own_rule(finding: Finding) -> Iterator[Sentence]:
    code, text = finding.schema["$comment"], str(finding.node.value)
    if code == "E202":
        unsafe = UNSAFE.findall(text)
        _, what = unsafe_words(next((one for one in unsafe if one not in "\t\n\r"), unsafe[0]))
        yield finding.node.place, code, f"contains {what}", "write it on one line"
    else:
        words, hint = _RULES[code]
        if code == "E115" and text.lower().endswith(_WEIGHTS):
            file = re.split(_SLASHES, text)[-1]
            hint = f"write the name of the file alone: {quoted(file[: -len(_WEIGHTS)])}"
        yield finding.node.place, code, f"{quoted(text)} {words}", hint


SENTENCES: Mapping[str, Sentences] = {
    "additionalProperties": _unknown_keys,
    "required": _missing_keys,
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
    "not": _named_twice,
}
