"""Turns one file's bytes into a Recipe, or into all its problems. Pure: no file is opened.

The stages: characters, YAML, the JSON Schema, and the rules that a schema can't express.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NamedTuple

from composer.errors import Problem
from composer.model import DESCRIBED, ConceptRef, Recipe, parameters, rounded
from composer.recipes import schema
from composer.recipes.problems import NOWHERE, Place, Report, at_path, other_normalisation, quoted
from composer.recipes.yaml_tree import LOADER, decode, place_of, read_document
from composer.text import canonical, did_you_mean, is_invisible, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from composer.model import ModelTypes
    from composer.recipes.problems import KeyPath
    from composer.recipes.yaml_tree import Document, Node

MAX_BYTES = 256 * 1024
MAX_DECIMALS = 4
NOT_A_RECIPE = "E120"  # the code of a file that is none at all

_ALIKE = 0.86  # `concept` is nearly `concepts`; `project` is not nearly `protect`


class Parsed(NamedTuple):
    """The result for one file. `name` is set even if a problem leaves no recipe."""

    problems: tuple[Problem, ...]
    recipe: Recipe | None = None
    name: str | None = None
    name_place: Place = NOWHERE


def parse(text: bytes, *, file: str, types: Sequence[ModelTypes], loader: Any = LOADER) -> Parsed:
    """A file's recipe and problems; `file` is its path relative to the root, with `/`.

    `types` are what its `type` may be, the default first; `loader` is the PyYAML loader whose
    parser gives the events.
    """
    report = Report(file)
    if len(text) > MAX_BYTES:
        report.add(NOWHERE, "E302", *too_large(len(text)))
        return Parsed(tuple(report.problems))
    decoded = decode(text, report)
    if decoded is None or _has_conflict(decoded, report):
        return Parsed(tuple(report.problems))
    document = read_document(decoded, report, loader=loader)
    if document.complete and not _is_recipe(document):
        return Parsed((_not_a_recipe(document, file),))
    if document.root is None:
        return Parsed(tuple(_with_exclude_hint(report, document)))
    return _checked(document.root, report, types)


def too_large(size: int) -> tuple[str, str]:
    """Message and hint of a file over the limit."""
    message = f"the file has {size:,} bytes; a recipe has at most {MAX_BYTES:,}"
    return message, "if it is not a recipe, leave it out with --exclude"


# The lines that git writes around both versions of a conflict. In YAML they are invalid.
_MARKER = re.compile(r"^([<|=>])\1{6,}(?=[ \r\n]|\Z)", re.MULTILINE)


def _has_conflict(text: str, report: Report) -> bool:
    """Whether the text has git's conflict markers; the first one is reported."""
    marker = _MARKER.search(text)
    if marker:
        hint = "keep one version, and delete the lines with <<<<<<<, ======= and >>>>>>>"
        report.add(place_of(text[: marker.start()]), "E204", "git's conflict markers", hint)
    return marker is not None


def _checked(root: Node, report: Report, types: Sequence[ModelTypes]) -> Parsed:
    by_name = {one.composition: one for one in types}
    schema.check(root, report, tuple(by_name))
    _check_concepts(root, report)
    _check_visible(root, report)
    problems = tuple(report.problems)
    recipe = None if problems else _recipe(root.value, report.file, by_name)
    name = root.children.get("name")
    if name is None or name.refused or not isinstance(name.value, str):
        return Parsed(problems, recipe)
    return Parsed(problems, recipe, name.value, name.place)


# --- what JSON Schema can't express ------------------------------------------------------
# Decimals are counted in the source text: in binary, 0.65 is not a multiple of 0.0001.


def _check_concepts(root: Node, report: Report) -> None:
    """Report scales with too many decimals, and duplicate concepts."""
    concepts = list(_concepts(root))
    for path, concept in concepts:
        _check_decimals(concept.children.get("scale"), (*path, "scale"), report)
    for key in ("name", "modelId"):
        _check_once(key, concepts, report)


def _check_visible(root: Node, report: Report) -> None:
    """Report names, tags and prompts that nobody can see; the schema finds the empty ones."""
    for path, node in _names(root):
        text = node.value
        if node.refused or not isinstance(text, str) or not text:
            continue
        if path[0] != "preview" and text != text.strip():  # the schema tells that
            continue
        if is_invisible(text):
            first = " ".join(f"U+{ord(c):04X}" for c in text[:4])
            message = f"has no visible character: {first}{' …' * (len(text) > 4)}"
            report.add(node.place, "E106", at_path(path, message), "write one that can be seen")


def _names(root: Node) -> Iterator[tuple[KeyPath, Node]]:
    if name := root.children.get("name"):
        yield ("name",), name
    for path, concept in _concepts(root):
        if name := concept.children.get("name"):
            yield (*path, "name"), name
    if tags := root.children.get("tags"):
        for index, tag in tags.children.items():
            yield ("tags", index), tag
    preview = root.children.get("preview")
    if prompts := preview.children.get("prompts") if preview else None:
        for index, prompt in prompts.children.items():
            yield ("preview", "prompts", index), prompt


def _concepts(root: Node) -> Iterator[tuple[KeyPath, Node]]:
    if concepts := root.children.get("concepts"):
        for index, concept in concepts.children.items():
            yield ("concepts", index), concept


def concept_names(text: bytes) -> dict[str, tuple[KeyPath, Place]]:
    """Where each LoRA's name stands in a valid recipe."""
    report = Report("")
    decoded = decode(text, report)
    document = read_document(decoded, report) if decoded is not None else None
    if document is None or document.root is None:
        return {}
    named = ((path, concept.children.get("name")) for path, concept in _concepts(document.root))
    return {str(node.value): ((*path, "name"), node.place) for path, node in named if node}


def _check_decimals(scale: Node | None, path: KeyPath, report: Report) -> None:
    if scale is None or scale.refused or not isinstance(scale.value, float):
        return
    if _has_too_many_decimals(scale.text):
        message = f"{scale.shown} has more than {MAX_DECIMALS} decimal places"
        hint = f"write {round(scale.value, MAX_DECIMALS):g}" if abs(scale.value) <= 2 else ""
        report.add(scale.place, "E105", at_path(path, message), hint)


def _has_too_many_decimals(text: str) -> bool:
    """Whether a number has too many decimals, zeros at the end not counted."""
    try:
        _, digits, exponent = Decimal(text).as_tuple()
    except InvalidOperation:  # a huge exponent
        return True
    kept = "".join(map(str, digits)).rstrip("0")
    return bool(kept) and int(exponent) + len(digits) - len(kept) < -MAX_DECIMALS


def _check_once(key: str, concepts: list[tuple[KeyPath, Node]], report: Report) -> None:
    first: dict[str, tuple[KeyPath, str]] = {}
    for path, concept in concepts:
        node = concept.children.get(key)
        if node is None or node.refused or not isinstance(node.value, str):
            continue
        there, other = first.setdefault(canonical(node.value), (path, node.value))
        if there != path:
            message = f"{quoted(node.value)} is already concepts[{there[1]}]"
            message += other_normalisation(node.value, other)
            hint = "keep one of the two, with the scale that you want"
            report.add(node.place, "E110", at_path((*path, key), message), hint)


# --- files that are not recipes ----------------------------------------------------------


def _is_recipe(document: Document) -> bool:
    """Whether it has a key of a recipe, or one that is spelt nearly like it."""
    valid_keys = schema.properties()
    root = document.root
    keys = root.keys if root and root.keys else document.keys
    return not valid_keys.keys().isdisjoint(keys) or any(
        did_you_mean(key, valid_keys, likeness=_ALIKE) for key in keys
    )


def _not_a_recipe(document: Document, file: str) -> Problem:
    root = document.root
    place = root.place if root else Place(1, 1)
    message = f"not a recipe: the file {_kind(root.value if root else None)}"
    hint = f"a recipe has the keys name and concepts; leave other files out with {_exclude(file)}"
    hint += ", or exclude in compose.toml"
    return Problem(file, place.line, place.column, NOT_A_RECIPE, message, hint)


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "has none of a recipe's keys"
    if value in (None, []):
        return "is empty"
    return "is a list" if isinstance(value, list) else "is a single value"


def _with_exclude_hint(report: Report, document: Document) -> list[Problem]:
    """The problems of a file that was read in part, with a hint in case it is not a recipe."""
    if _is_recipe(document):
        return report.problems
    hint = f"if it is not a recipe, leave it out with {_exclude(report.file)}"
    return [
        Problem(p.file, p.line, p.column, p.code, p.message, f"{p.hint}; {hint}".lstrip("; "))
        for p in report.problems
    ]


def _exclude(file: str) -> str:
    return f'--exclude "{file}"' if " " in file else f"--exclude {file}"


# --- the recipe --------------------------------------------------------------------------


def _recipe(raw: Any, path: str, types: Mapping[str, ModelTypes]) -> Recipe:
    """A Recipe from values that fit the schema; the first of `types` is the default."""
    training = raw.get("training", {}).get("parameters", {})
    return Recipe(
        path=path,
        name=raw["name"],
        concepts=tuple(_concept(concept) for concept in raw["concepts"]),
        types=types[raw["type"]] if "type" in raw else next(iter(types.values())),
        training=parameters({key: _parameter(key, value) for key, value in training.items()}),
        tags=tuple(sorted(set(raw.get("tags", ())))),
        protect=raw.get("protect", False),
        prompts=tuple(dict.fromkeys(map(one_line, raw.get("preview", {}).get("prompts", ())))),
        **{field.name: raw[field.name].strip() for field in DESCRIBED if field.name in raw},
    )


def _concept(raw: dict[str, Any]) -> ConceptRef:
    return ConceptRef(
        scale=rounded(raw["scale"]),
        name=raw.get("name"),
        model_id=raw.get("modelId"),
        epoch=raw.get("modelEpoch"),
    )


def _parameter(key: str, value: Any) -> Any:
    """One number, one value: `1` and `1.0` are the same learning rate."""
    kind = schema.properties("training", "parameters")[key].get("type")
    if kind == "integer":
        return int(value)
    return float(value) + 0.0 if kind == "number" else value
