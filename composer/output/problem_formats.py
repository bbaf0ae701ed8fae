"""Problems in files as JSON, Markdown, annotations and SARIF: pure strings."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from composer.output.findings import ERROR, Finding, annotated, log
from composer.output.markdown import COMMENT, Budget, Section, cell, fitted
from composer.output.problems import among, place
from composer.output.style import dumped
from composer.recipes.problems import CODES, SETTINGS_CODES
from composer.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from composer.errors import Problem

FORMAT_VERSION = 1
RULES = MappingProxyType({**CODES, **SETTINGS_CODES})


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


def sarif(problems: Sequence[Problem], rules: Mapping[str, str] = RULES) -> str:
    """A SARIF log; its rules are the codes of files, unless there are more."""
    return log(findings(problems), rules)


def markdown(problems: Sequence[Problem], *, files: int, budget: Budget = COMMENT) -> str:
    """A document for a comment: how many, then a table of them."""
    count = f"{counted(len(problems), 'problem')} in {among(problems, files)}"
    rows = [
        f"| {cell(place(p))} | {p.code} | {cell(p.message)} | {cell(p.hint)} |" for p in problems
    ]
    lead = "| where | code | what | write instead |\n|---|---|---|---|"
    table = Section("problems", 0, lead, rows)
    head = f"## compose: {count}\n\nNothing was sent, and there is no plan.\n"
    return fitted(head, [table], "", budget, whole="compose validate")
