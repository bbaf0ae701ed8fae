"""Reads `compose.toml`, the settings of a project, or tells everything that is wrong with it.

The file comes with the repository, which may be a stranger's: it chooses among what flags and
environment allow, and names no host and no folder outside the project.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import tomllib
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from fastjsonschema import JsonSchemaValueException

from composer.files.repository import NotRegularError, OutsideError, is_inside, read_inside
from composer.files.schemas import schema
from composer.previews.look import NO_PREVIEW_SETTINGS, Look, PreviewSettings
from composer.project.settings import ReadSettings, Settings
from composer.project.toml_places import tree
from composer.recipes.problems import Place, Report, at_path, quoted
from composer.recipes.schema import SENTENCES, absent, add_findings, compiled_without
from composer.recipes.yaml_tree import decode, place_of
from composer.text import SETTINGS_NAME, did_you_mean, is_invisible, one_line, shorten, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from jsonschema import Draft7Validator

    from composer.recipes.problems import KeyPath
    from composer.recipes.schema import Finding, Sentence, Sentences
    from composer.recipes.yaml_tree import Node

MAX_BYTES = 64 * 1024
_MOST_DOTS = 200  # on a line


def read_settings(root: Path) -> ReadSettings:
    """The settings of the project in this folder, or all problems of the file."""
    file = root / SETTINGS_NAME
    if not os.path.lexists(file):
        return ReadSettings()
    report = Report(SETTINGS_NAME)
    node = _read(file, root, report)
    if node is not None and not is_right(node.value):
        add_findings(node, report, validator(), _SENTENCES)
    elif node is not None:
        for path in (("library",), ("previews", "baseModel")):
            _check_inside(node, path, root, report)
        _check_previews(node, report)
    if node is None or report.problems:
        return ReadSettings(problems=tuple(report.problems), exists=True)
    return ReadSettings(_settings(node.value), exists=True)


def _settings(value: Any) -> Settings:
    given = {**value, "exclude": tuple(value.get("exclude", ()))}
    if "parallelism" in given:
        given["parallelism"] = int(given["parallelism"])  # 8.0 is an integer, too
    return Settings(**{**given, "previews": _previews(value.get("previews", {}))})


def _previews(given: Mapping[str, Any]) -> PreviewSettings:
    usual = NO_PREVIEW_SETTINGS
    look = usual.look
    sizes = (int(given.get(name, getattr(look, name))) for name in ("width", "height", "steps"))
    prompts = (one_line(prompt) for prompt in given.get("prompts", ()))
    width, height, steps = sizes
    return PreviewSettings(
        tuple(dict.fromkeys(prompts)),
        tuple(dict.fromkeys(int(seed) for seed in given.get("seeds", usual.seeds))),
        Look(width, height, steps, float(given.get("guidance", look.guidance)) + 0.0),
        given.get("baseModel"),
    )


def is_right(value: object) -> bool:
    """Whether the schema allows these settings."""
    try:
        _quick_check(absent(value, "previews"))(value)
    except JsonSchemaValueException:
        return False
    return True


@cache
def _quick_check(without: tuple[str, ...]) -> Callable[[object], object]:
    return compiled_without(_schema(), without)


@cache
def validator() -> Draft7Validator:
    """Finds all that the schema does not allow."""
    from jsonschema import Draft7Validator  # slow to import, and only a wrong file needs it

    return Draft7Validator(_schema())


@cache
def _schema() -> dict[str, Any]:
    return dict(json.loads(schema("settings")))


# --- the file ----------------------------------------------------------------------------


def _read(file: Path, root: Path, report: Report) -> Node | None:
    """The file's values with their places; None if it can't be read, which is reported."""
    data = _bytes(file, root, report)
    text = decode(data, report) if data is not None else None
    if text is None:
        return None
    try:
        if any(line.count(".") > _MOST_DOTS for line in text.split("\n")):
            raise RecursionError  # a key of 8,000 parts takes tomllib seconds
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        _report_syntax(error, text, report)
        return None
    return tree(text, document)


def _bytes(file: Path, root: Path, report: Report) -> bytes | None:
    try:
        data = read_inside(file, root, limit=MAX_BYTES)
    except OutsideError:
        message = f"the file is a link that leads out of {visible(str(root))}"
        report.add(Place(), "E303", message, "replace the link with a file")
    except FileNotFoundError:
        message = "the file is a link to a file that does not exist"
        report.add(Place(), "E301", message, "remove the link, or write a text file")
    except NotRegularError:
        report.add(Place(), "E301", "this is not a regular file", "remove it, or write a text file")
    except OSError as error:
        why = error.strerror or type(error).__name__
        report.add(Place(), "E301", f"the file can't be read: {why}", "check its permissions")
    else:
        if len(data) <= MAX_BYTES:
            return data
        message = f"the file has more than {MAX_BYTES:,} bytes"
        report.add(Place(), "E302", message, "remove what is no setting of compose")
    return None


_AT = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


def _report_syntax(error: Exception, text: str, report: Report) -> None:
    """What `tomllib` says, at its place."""
    if isinstance(error, RecursionError):
        report.add(Place(), "E501", "invalid TOML: nested too deep", "remove the nesting")
        return
    if not isinstance(error, tomllib.TOMLDecodeError):
        message = "invalid TOML: a number has too many digits"
        report.add(Place(), "E501", message, "write fewer digits")
        return
    words, place = str(error), Place()
    if match := _AT.fullmatch(words):
        words, line, column = match.groups()
        place = Place(int(line), int(column)) if line else place_of(text)
    hint = "quote strings, close quotes and brackets, and write / in paths, not \\"
    report.add(place, "E501", f"invalid TOML: {visible(shorten(words, 100))}", hint)


def _check_inside(root: Node, path: KeyPath, folder: Path, report: Report) -> None:
    """Report a folder, at this path of keys, that leads out of the project through a link."""
    node: Node | None = root
    for key in path:
        node = node.children.get(key) if node is not None else None
    if node is not None and not is_inside(folder / str(node.value), folder):
        message = f"{node.shown} leads out of the project through a link"
        report.add(node.place, "E502", at_path(path, message), _FOLDERS[path].hint)


def _check_previews(root: Node, report: Report) -> None:
    """Report prompts that say nothing, and a guidance that is not a number (NaN is in no range)."""
    previews = root.children.get("previews", root)
    prompts, guidance = (previews.children.get(name) for name in ("prompts", "guidance"))
    for index, node in prompts.children.items() if prompts else ():
        if is_invisible(str(node.value)):
            message = at_path(("previews", "prompts", index), "has no visible character")
            report.add(node.place, "E106", message, "write what the image shows")
    if guidance is not None and guidance.value != guidance.value:
        message = at_path(("previews", "guidance"), f"{guidance.shown} is not a number")
        report.add(guidance.place, "E104", message, "write a number between 0 and 10")


# --- the words for what the schema refuses -----------------------------------------------


class _Folder(NamedTuple):
    """What messages say of a key that names a folder: what it is, and how to name one outside."""

    what: str
    flags: str
    hint: str


_FOLDERS: Mapping[KeyPath, _Folder] = {
    ("library",): _Folder(
        "a folder inside the project",
        "--library or COMPOSE_LIBRARY",
        "write a folder inside the project; for one outside: compose init --library DIR remembers"
        " it on this machine, or use --library or COMPOSE_LIBRARY",
    ),
    ("previews", "baseModel"): _Folder(
        "a model's id or a folder inside the project",
        "--base-model",
        "write a model's id, or a folder inside the project; for one outside: --base-model FOLDER",
    ),
}
_EXAMPLES: Mapping[KeyPath, Mapping[str, str]] = {
    (): {
        "target": 'target = "local"',
        "project": 'project = "proj_1"',
        "library": 'library = "loras"',
        "exclude": 'exclude = ["*.draft.yaml"]',
        "parallelism": "parallelism = 8",
        "previews": "[previews], and its keys below",
    },
    ("previews",): {
        "prompts": 'prompts = ["a knight in the rain"]',
        "seeds": "seeds = [7, 8]",
        "width": "width = 1024",
        "height": "height = 1024",
        "steps": "steps = 28",
        "guidance": "guidance = 3.5",
        "baseModel": 'baseModel = "models/flux"',
    },
}
_NOUNS = {
    "string": "a string",
    "array": "a list",
    "integer": "an integer",
    "number": "a number",
    "object": "a table",
}


def _unknown_keys(finding: Finding) -> Iterator[Sentence]:
    known = _EXAMPLES[finding.path]
    for key, place in finding.node.keys.items():
        if key not in known:
            is_table = isinstance(finding.node.children[key].value, dict)
            meant = did_you_mean(key, known)
            hint = f"did you mean {meant}?" if meant else f"valid keys: {', '.join(known)}"
            if finding.path and key in _EXAMPLES[()]:
                hint = f"write it above the line [{finding.path[0]}]"
            message = f"unknown {'table' if is_table else 'key'} {quoted(key)}"
            yield place, "E101", message, hint


def _wrong_type(finding: Finding) -> Iterator[Sentence]:
    node, wanted = finding.node, _NOUNS[finding.wanted]
    *above, key = [step for step in finding.path if isinstance(step, str)]
    hint = f"write it like {_EXAMPLES[tuple(above)][key]}"
    if finding.wanted == "array" and isinstance(node.value, str):
        hint = f"write a list: {key} = [{node.shown}]"
    yield node.place, "E103", f"{_what(node)}, not {wanted}", hint


def _what(node: Node) -> str:
    value = node.value
    if isinstance(value, dict | list):
        return "is a table" if isinstance(value, dict) else "is a list"
    if isinstance(value, bool):
        return f"{node.shown} is a boolean"
    if isinstance(value, datetime.date | datetime.time):
        return f"{node.shown} is a date or a time"
    return f"{node.shown} is {'a string' if isinstance(value, str) else 'a number'}"


def _not_allowed(finding: Finding) -> Iterator[Sentence]:
    """The one `enum` of the schema: the target."""
    node, value = finding.node, finding.node.value
    if isinstance(value, str) and ("://" in value or "@" in value):
        message = "a URL can't be written here"  # nor is it shown: it may hold a secret
        yield node.place, "E502", message, "use --target URL or COMPOSE_TARGET"
        return
    meant = did_you_mean(value, finding.wanted) if isinstance(value, str) else None
    choice = f"write {' or '.join(json.dumps(one) for one in finding.wanted)}"
    hint = f"did you mean {meant}?" if meant else f"{choice}; for others: --target, COMPOSE_TARGET"
    shown = f"{node.shown} is" if not isinstance(value, dict | list) else "this value is"
    yield node.place, "E111", f"{shown} not allowed", hint


def _own_rule(finding: Finding) -> Iterator[Sentence]:
    node, text = finding.node, str(finding.node.value)
    if finding.schema["$comment"] != "E502":
        yield from SENTENCES["pattern"](finding)
        return
    folder = _FOLDERS[finding.path]
    if "\\" in text:
        fixed = quoted(text.replace("\\", "/"))
        yield node.place, "E502", f"{node.shown} has a backslash", f"write / instead: {fixed}"
    elif "://" in text:
        message = "a URL can't be written here"  # nor is it shown: it may hold a secret
        yield node.place, "E502", message, f"use {folder.flags}"
    else:
        yield node.place, "E502", f"{node.shown} is not {folder.what}", folder.hint


def _no_multiple(finding: Finding) -> Iterator[Sentence]:
    """Of an integer within its range; what is wrong with others is said already."""
    node, step, value = finding.node, finding.wanted, finding.node.value
    low, high = finding.schema["minimum"], finding.schema["maximum"]
    if isinstance(value, int | float) and value == value // 1 and low <= value <= high:
        below = int(value) // step * step
        hint = f"write {below} or {below + step}"
        yield node.place, "E111", f"{node.shown} is not a multiple of {step}", hint


_SENTENCES: Mapping[str, Sentences] = {
    **SENTENCES,
    "additionalProperties": _unknown_keys,
    "type": _wrong_type,
    "enum": _not_allowed,
    "pattern": _own_rule,
    "multipleOf": _no_multiple,
}
