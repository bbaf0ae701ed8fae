"""The fault script: what goes wrong, and at which calls. For tests.

    - when: POST /models        # method and path, `*` for any one part of it, `**` for any rest
      nth: 2                    # the second of all calls that match (default 1)
      times: 3                  # and the two that match after it (default 1)
      drop: after               # the connection closes without an answer, the effect took place
    - call: 7                   # the seventh call of all, whichever it is
      status: 429
      headers: {Retry-After: "1"}
      body: {error: slow down}

`read_script` makes `Fault`s of the file; `Script` says which of them a call gets: at most one, the
first in the file. `fault_middleware` carries them out.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from composer.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

BEFORE, AFTER = "before", "after"
MANGLINGS = ("truncated", "malformed", "not-json")
_ENDS = ("drop", "error", "status")  # with `body` alone, ways to answer: one at most
_KEYS = frozenset(
    [
        "when",
        "nth",
        "times",
        "call",
        "delay",
        "pause",
        "drop",
        "error",
        "status",
        "headers",
        "body",
        "stale_list",
        "late_replica",
        "duplicate",
    ]
)


@dataclass(frozen=True, slots=True)
class Pause:
    """Hold the call `before` or `after` its effect: for so many seconds, or until a file exists."""

    at: str
    seconds: float | None
    until: Path | None


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of the script; `what` is its short form for the log. Times in seconds."""

    method: str
    path: re.Pattern[str]
    nth: int
    times: int
    call: int | None
    what: Mapping[str, Any]
    delay: float = 0.0
    pause: Pause | None = None
    drop: str | None = None
    error: str | None = None
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    mangle: str | None = None
    stale_list: float = 0.0
    late_replica: float = 0.0
    duplicate: bool = False

    def matches(self, method: str, path: str) -> bool:
        return self.method in ("*", method) and self.path.fullmatch(path) is not None


@dataclass(slots=True)
class Script:
    """Counts calls, and says which fault each gets. Thread-safe."""

    faults: Sequence[Fault] = ()
    _calls: int = 0
    _matches: dict[int, int] = field(default_factory=dict)  # fault -> calls that matched so far
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def arrive(self, method: str, path: str) -> tuple[int, int | None]:
        """The number of this call, from 1, and the index of its fault; `path` is without `/v1`."""
        with self._lock:
            self._calls += 1
            due = [at for at, fault in enumerate(self.faults) if self._due(at, fault, method, path)]
            return self._calls, due[0] if due else None

    def _due(self, at: int, fault: Fault, method: str, path: str) -> bool:
        if not fault.matches(method, path):
            return False
        self._matches[at] = self._matches.get(at, 0) + 1
        first, count = (
            (fault.nth, self._matches[at]) if fault.call is None else (fault.call, self._calls)
        )
        return first <= count < first + fault.times


def read_script(file: Path) -> Script:
    """The script in this file (YAML or JSON); raises `InvalidInput` with the entry's number."""
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"the fault script {file} can't be read: {error.strerror or error}"
        raise InvalidInput(problem, hint="check --fault-script") from error
    except (ValueError, yaml.YAMLError) as error:
        words = " ".join(str(error).split())
        raise InvalidInput(f"the fault script {file} is not valid YAML: {words}") from error
    if not isinstance(entries, list):
        raise InvalidInput(f"the fault script {file} is not a list of faults")
    faults = []
    for number, entry in enumerate(entries, 1):
        try:
            faults.append(_fault(entry, file.absolute().parent))
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidInput(f"the fault script {file}, fault {number}: {error}") from error
    return Script(faults)


def _fault(entry: object, folder: Path) -> Fault:
    if not isinstance(entry, dict):
        raise TypeError("it is not a mapping")
    _check_keys(entry)
    scripted = "status" in entry
    method, path = _when(entry.get("when", "* **"))
    return Fault(
        method=method,
        path=path,
        nth=_whole(entry, "nth", 1),
        times=_whole(entry, "times", 1),
        call=_whole(entry, "call", 1) if "call" in entry else None,
        what={name: entry[name] for name in sorted(entry) if name not in ("headers", "when")},
        delay=_seconds(entry, "delay"),
        pause=_pause(entry["pause"], folder) if "pause" in entry else None,
        drop=_word(entry, "drop", (BEFORE, AFTER)),
        error=_word(entry, "error", (BEFORE, AFTER)),
        status=_status(entry) if scripted else None,
        headers=_headers(entry),
        body=_text(entry.get("body", "")) if scripted else "",
        mangle=None if scripted else _word(entry, "body", MANGLINGS),
        stale_list=_seconds(entry, "stale_list"),
        late_replica=_seconds(entry, "late_replica"),
        duplicate=bool(entry.get("duplicate", False)),
    )


def _check_keys(entry: Mapping[str, Any]) -> None:
    if unknown := sorted(map(str, entry.keys() - _KEYS)):
        raise ValueError(f"unknown key {unknown[0]}; the keys are {', '.join(sorted(_KEYS))}")
    ends = [name for name in _ENDS if name in entry]
    if "body" in entry and "status" not in entry:
        ends.append("body")
    if len(ends) > 1:
        raise ValueError(f"{' and '.join(ends)} can't be given together")


def _when(text: object) -> tuple[str, re.Pattern[str]]:
    if not isinstance(text, str):
        raise TypeError("when must be a method and a path")
    method, _, path = text.partition(" ")
    pattern = re.escape(path.strip())
    pattern = re.sub(r"\\\*\\\*|\\\*", lambda star: ".*" if len(star[0]) > 2 else "[^/]*", pattern)
    return method.upper(), re.compile(pattern)


def _pause(entry: Mapping[str, Any], folder: Path) -> Pause:
    if not isinstance(entry, dict) or not entry.keys() & {"seconds", "until"}:
        raise ValueError("pause needs seconds or until")
    if unknown := sorted(map(str, entry.keys() - {"at", "seconds", "until"})):
        raise ValueError(f"pause has no key {', '.join(unknown)}")
    return Pause(
        at=_word(entry, "at", (BEFORE, AFTER)) or AFTER,
        seconds=_seconds(entry, "seconds") if "seconds" in entry else None,
        until=folder / str(entry["until"]) if "until" in entry else None,
    )


def _status(entry: Mapping[str, Any]) -> int:
    status = _whole(entry, "status", 0)
    if not 200 <= status <= 599:
        raise ValueError("status must be from 200 to 599")
    return status


def _headers(entry: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    headers = entry.get("headers", {})
    if not isinstance(headers, dict):
        raise TypeError("headers must be a mapping")
    return tuple((str(name), str(value)) for name, value in headers.items())


def _whole(entry: Mapping[str, Any], name: str, default: int) -> int:
    value = entry.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number from 1")
    return value


def _seconds(entry: Mapping[str, Any], name: str) -> float:
    value = entry.get(name, 0)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 3600:
        raise ValueError(f"{name} must be a number of seconds, up to 3600")
    return float(value)


def _word(entry: Mapping[str, Any], name: str, words: Sequence[str]) -> str | None:
    value = entry.get(name)
    if value is not None and value not in words:
        raise ValueError(f"{name} must be one of {', '.join(words)}")
    return value


def _text(body: object) -> str:
    return body if isinstance(body, str) else json.dumps(body)
