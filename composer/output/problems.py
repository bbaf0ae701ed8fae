"""Problems in files, as text, JSON, Markdown, annotations and SARIF: pure strings.

`cli` prints them. A problem's texts are safe to print already: those who make problems see to that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.output.findings import ERROR, Finding, annotated, log
from composer.output.markdown import COMMENT, Budget, Section, cell, fitted
from composer.output.style import dumped
from composer.recipes.problems import CODES
from composer.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
    return dumped({"formatVersion": FORMAT_VERSION, "problems": listed})


# --- for reviews -------------------------------------------------------------------------


def findings(problems: Sequence[Problem]) -> list[Finding]:
    """Problems as what annotations and SARIF show: all are errors."""
    return [Finding(ERROR, p.code, _whole(p), p.file, p.line, p.column) for p in problems]


def _whole(problem: Problem) -> str:
    return f"{problem.message} ({problem.hint})" if problem.hint else problem.message


def github(problems: Sequence[Problem]) -> str:
    """Annotations beside the lines of a pull request."""
    return annotated(findings(problems), whole="compose validate")


def sarif(problems: Sequence[Problem], rules: Mapping[str, str] = CODES) -> str:
    """A SARIF log; its rules are the codes of recipes, unless there are more."""
    return log(findings(problems), rules)


def markdown(problems: Sequence[Problem], *, files: int, budget: Budget = COMMENT) -> str:
    """A document for a comment: how many, then a table of them."""
    bad = len({problem.file for problem in problems})
    count = f"{counted(len(problems), 'problem')} in {bad} of {counted(max(files, bad), 'recipe')}"
    rows = [
        f"| {cell(_place(p))} | {p.code} | {cell(p.message)} | {cell(p.hint)} |" for p in problems
    ]
    lead = "| where | code | what | write instead |\n|---|---|---|---|"
    table = Section("problems", 0, lead, rows)
    head = f"## compose: {count}\n\nNothing was sent, and there is no plan.\n"
    return fitted(head, [table], "", budget, whole="compose validate")
