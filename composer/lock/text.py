"""`compose.lock` as text: the one writer, and the reader that checks what it reads.

The writer's form is YAML 1.2 that YAML 1.1 reads alike: strings double-quoted as in JSON,
numbers as shortest decimals, one order, LF; so equal locks are equal bytes on every platform.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import jsonschema
import yaml

from composer.errors import InvalidInput
from composer.files.schemas import schema
from composer.lock.codec import Plain, checked_id, checked_path, plain_entry, read_entry
from composer.model import Lock, TargetLock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VERSION = 1
HEADER = "# Written by compose. Commit it; don't edit it.\n"
MAX_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 20

# What JSON leaves as it is, but YAML may not hold, or a reader could not see.
_UNSAFE = re.compile(
    "[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
# Keys whose values are named by people or targets: quoted, and in order of code points.
_FREE = ("targets", "recipes", "pins")
# Names of training parameters that YAML 1.1 would read as something else.
_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# --- writing -----------------------------------------------------------------------------


def dump(lock: Lock) -> str:
    """The lock as it is written: the same text for equal locks, everywhere."""
    targets = {key: _plain_target(target) for key, target in lock.targets.items()}
    body = {"version": VERSION, "targets": targets}
    return HEADER + "".join(f"{line}\n" for line in _mapping(body, free=False))


def _plain_target(target: TargetLock) -> Plain:
    owner = {"owner": target.owner} if target.owner else {}
    return {**owner, "recipes": {path: plain_entry(e) for path, e in target.recipes.items()}}


def _mapping(plain: Mapping[str, object], *, free: bool) -> Iterator[str]:
    for key, value in sorted(plain.items()) if free else plain.items():
        label = quoted(key) if free or key.lower() in _WORDS else key
        yield from _pair(label, value, free=key in _FREE and not free)


def _pair(label: str, value: object, *, free: bool) -> Iterator[str]:
    """One key with what is under it, two columns further in."""
    if isinstance(value, dict) and value:
        yield f"{label}:"
        yield from (f"  {line}" for line in _mapping(value, free=free))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield f"{label}:"
        for item in value:
            first, *rest = _mapping(item, free=False)
            yield f"  - {first}"
            yield from (f"    {line}" for line in rest)
    else:
        yield f"{label}: {_scalar(value)}"


def _scalar(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_scalar(item) for item in value)}]"
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return number(value) if isinstance(value, int | float) else quoted(str(value))


def number(value: float) -> str:
    """The shortest decimal, without an exponent: YAML 1.1 would read `1e-05` as text."""
    text = format(Decimal(repr(value + 0)), "f").removesuffix(".0")
    if isinstance(value, float) and "." not in text and int(text) != value:
        return f"{text}.0"  # a large float, which isn't the integer of these digits
    return text


def quoted(text: str) -> str:
    """A string as JSON writes it, with what is invisible or not YAML as an escape."""
    return _UNSAFE.sub(lambda m: f"\\u{ord(m[0]):04x}", json.dumps(text, ensure_ascii=False))


# --- reading -----------------------------------------------------------------------------


def parse(text: str, *, source: str = "compose.lock") -> Lock:
    """A lock from its text. Raises `InvalidInput`, naming `source` and the line if there is one."""
    plain = read_yaml(text, source)
    return Lock() if plain is None else read_plain(plain, source)


def read_plain(plain: object, source: str) -> Lock:
    """A lock from plain values. Raises `InvalidInput`."""
    if not isinstance(plain, dict):
        raise InvalidInput(f"{source}: not a lock: its top level is no mapping", hint=RESTORE)
    _check_version(plain, source)
    _check_schema(plain, source)
    try:
        return Lock({key: _read_target(target) for key, target in plain["targets"].items()})
    except InvalidInput as bad:
        raise InvalidInput(f"{source}: {bad.message}", hint=RESTORE) from bad


RESTORE = "compose lock --repair mends it, or restore it from git"


def _read_target(plain: Plain) -> TargetLock:
    entries = {checked_path(path): read_entry(e) for path, e in plain["recipes"].items()}
    owner = checked_id(plain["owner"]) if "owner" in plain else None
    return TargetLock(owner, dict(sorted(entries.items())))


def _check_version(plain: Plain, source: str) -> None:
    version = plain.get("version")
    if isinstance(version, int) and version > VERSION:
        raise InvalidInput(
            f"{source}: written by a newer compose (version {version}, this one reads {VERSION})",
            hint="upgrade compose: pip install --upgrade lora-compose",
        )


def _check_schema(plain: Plain, source: str) -> None:
    validator = jsonschema.Draft7Validator(json.loads(schema("lock")))
    worst = jsonschema.exceptions.best_match(validator.iter_errors(plain))
    if worst is not None:
        place = ".".join(str(part) for part in worst.absolute_path) or "the top level"
        raise InvalidInput(f"{source}: {place}: {worst.message[:200]}", hint=RESTORE)


def read_yaml(text: str, source: str, *, twice: str = "") -> Any:
    """The plain values of a lock's YAML. Raises `InvalidInput`.

    `twice` is which one counts where a key stands twice: `first` or `last`; else it is refused.
    """
    if len(text) > MAX_BYTES:
        raise InvalidInput(f"{source}: larger than {MAX_BYTES} bytes", hint=RESTORE)
    try:
        _walk(text, source)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        why = getattr(error, "problem", None) or "it can't be read"
        raise InvalidInput(f"{source}{line}: not YAML: {why}", hint=RESTORE) from error
    return None if node is None else _value(node, source, twice)


def _walk(text: str, source: str) -> None:
    """Refuse what a lock never has before anything is built: deep YAML crashes libyaml."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent)
        depth -= isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent)
        odd = getattr(event, "anchor", None) or getattr(event, "tag", None)
        if odd or depth > MAX_DEPTH:
            raise InvalidInput(f"{source}{_line(event)}: not written by compose", hint=RESTORE)


def _value(node: yaml.Node, source: str, twice: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        pairs = [tuple(_value(part, source, twice) for part in pair) for pair in node.value]
        if twice == "first":
            pairs.reverse()
        plain = {str(key): value for key, value in pairs}
        if len(plain) != len(pairs) and not twice:
            raise InvalidInput(f"{source}{_line(node)}: a key stands twice below", hint=RESTORE)
        return plain
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, source, twice) for item in node.value]
    assert isinstance(node, yaml.ScalarNode)
    return node.value if node.style else _plain_scalar(node.value)


def _line(place: yaml.Node | yaml.Event) -> str:
    return f":{place.start_mark.line + 1}" if place.start_mark else ""


def _plain_scalar(text: str) -> object:
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    return float(text) if re.fullmatch(r"-?\d+\.\d+", text) else text
