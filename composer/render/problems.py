"""Problems in files, as text, JSON, GitHub annotations and SARIF. Pure strings; `cli` prints them.

A problem's texts are safe to print already: those who make problems see to that.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from composer.recipes.codes import CODES
from composer.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from composer.errors import Problem

FORMAT_VERSION = 1

_RED, _DIM, _OFF = "\x1b[31m", "\x1b[2m", "\x1b[0m"


def text(problems: Sequence[Problem], *, files: int, color: bool = False) -> str:
    """A line for each problem, its hint below it, and a last line that counts.

    `files` is how many recipes were read, the ones without a problem too.
    """
    if not problems:
        return f"{counted(files, 'recipe')}, no problems.\n"
    lines = [line for problem in problems for line in _lines(problem, color=color)]
    bad = len({problem.file for problem in problems})
    among = counted(max(files, bad), "recipe")
    lines += ["", f"{counted(len(problems), 'problem')} in {bad} of {among}. Nothing was sent."]
    return "\n".join(lines) + "\n"


def _lines(problem: Problem, *, color: bool) -> Iterator[str]:
    red, dim, off = (_RED, _DIM, _OFF) if color else ("", "", "")
    yield f"{_place(problem)} {red}{problem.code}{off} {problem.message}"
    if problem.hint:
        yield f"    {dim}{problem.hint}{off}"


def _place(problem: Problem) -> str:
    return f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file


def as_json(problems: Sequence[Problem]) -> str:
    """`{"formatVersion": 1, "problems": [{file, line, column, code, message, hint}]}`."""
    listed = [
        {
            "file": problem.file,
            "line": problem.line,
            "column": problem.column,
            "code": problem.code,
            "message": problem.message,
            "hint": problem.hint,
        }
        for problem in problems
    ]
    return _json({"formatVersion": FORMAT_VERSION, "problems": listed})


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


# --- GitHub ------------------------------------------------------------------------------


def github(problems: Sequence[Problem]) -> str:
    """Workflow commands, which GitHub shows as annotations beside the lines of a pull request.

    The escapes are those of `@actions/core` (packages/core/src/command.ts): `%`, CR and LF
    everywhere, `:` and `,` in properties too.
    """
    return "".join(f"{_command(problem)}\n" for problem in problems)


def _command(problem: Problem) -> str:
    properties = {"file": problem.file}
    if problem.line:
        properties |= {"line": str(problem.line), "col": str(problem.column)}
    properties["title"] = problem.code
    listed = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::error {listed}::{_data(_whole(problem))}"


def _whole(problem: Problem) -> str:
    return f"{problem.message} ({problem.hint})" if problem.hint else problem.message


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")


# --- SARIF -------------------------------------------------------------------------------


def sarif(problems: Sequence[Problem]) -> str:
    """A SARIF 2.1.0 log: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html"""
    rules = sorted({*CODES, *(problem.code for problem in problems)})
    run = {
        "tool": {"driver": {"name": "compose", "rules": [_rule(code) for code in rules]}},
        "columnKind": "unicodeCodePoints",
        "results": list(_results(problems, rules)),
    }
    log = {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [run],
    }
    return _json(log)


def _rule(code: str) -> dict[str, Any]:
    return {"id": code, "shortDescription": {"text": CODES.get(code, code)}}


def _results(problems: Sequence[Problem], rules: list[str]) -> Iterator[dict[str, Any]]:
    seen: Counter[str] = Counter()
    for problem in problems:
        print_ = _fingerprint(problem)
        seen[print_] += 1
        yield {
            "ruleId": problem.code,
            "ruleIndex": rules.index(problem.code),
            "level": "error",
            "message": {"text": _whole(problem)},
            "locations": [{"physicalLocation": _location(problem)}],
            "partialFingerprints": {"composeProblem/v1": f"{print_}:{seen[print_]}"},
        }


def _fingerprint(problem: Problem) -> str:
    """The same for a problem that only moved to another line."""
    said = "\0".join((problem.file, problem.code, problem.message))
    return hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()[:32]


def _location(problem: Problem) -> dict[str, Any]:
    location: dict[str, Any] = {"artifactLocation": {"uri": quote(problem.file, errors="replace")}}
    if problem.line:
        location["region"] = {"startLine": problem.line, "startColumn": problem.column}
    return location
