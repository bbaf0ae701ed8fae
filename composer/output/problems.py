"""Problems in files as text for people; `problem_formats` has the other formats.

A problem's texts are safe to print already: those who make problems see to that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.text import SETTINGS_NAME, counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from composer.errors import Problem

_RED, _DIM, _OFF = "\x1b[31m", "\x1b[2m", "\x1b[0m"


def text(problems: Sequence[Problem], *, files: int, color: bool = False) -> str:
    """A line for each problem, its hint below it, and a last line that counts.

    `files` is how many recipes were read, the ones without a problem too.
    """
    if not problems:
        return f"{counted(files, 'recipe')}, no problems.\n"
    lines = [line for problem in problems for line in _lines(problem, color=color)]
    count = f"{counted(len(problems), 'problem')} in {among(problems, files)}"
    lines += ["", f"{count}. Nothing was sent."]
    return "\n".join(lines) + "\n"


def among(problems: Sequence[Problem], files: int) -> str:
    """How many files have problems, of how many recipes, if all of those are recipes."""
    bad = {problem.file for problem in problems}
    if SETTINGS_NAME in bad:
        return counted(len(bad), "file")
    return f"{len(bad)} of {counted(max(files, len(bad)), 'recipe')}"


def _lines(problem: Problem, *, color: bool) -> Iterator[str]:
    red, dim, off = (_RED, _DIM, _OFF) if color else ("", "", "")
    yield f"{place(problem)} {red}{problem.code}{off} {problem.message}"
    if problem.hint:
        yield f"    {dim}{problem.hint}{off}"


def place(problem: Problem) -> str:
    """`recipes/ink.yaml:3:5`; without a line, the file alone."""
    return f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
