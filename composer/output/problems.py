"""Problems in files as text for people; `problem_formats` has the other formats.

A problem's texts are safe to print already: those who make problems see to that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from composer.output.style import width
from composer.text import SETTINGS_NAME, counted, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from composer.errors import Problem

_RED, _DIM, _OFF = "\x1b[31m", "\x1b[2m", "\x1b[0m"


def text(problems: Sequence[Problem], *, files: int, color: bool = False) -> str:
    """Each problem with the line that it is about and a hint below it; a last line that counts.

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
    if problem.source.strip() and problem.column:
        line, caret = _excerpt(problem.source, problem.column)
        number = str(problem.line)
        yield f"    {dim}{number} |{off} {line}"
        yield f"    {dim}{' ' * len(number)} |{off} {caret}"
    if problem.hint:
        yield f"    {dim}{problem.hint}{off}"


_LONGEST = 48  # columns of a line that are shown
_BEFORE = 24  # of those before the column, where the line is longer


def _excerpt(source: str, column: int) -> tuple[str, str]:
    """A line of a file, safe to print, and the caret that stands below its column."""
    line, at = visible(source.rstrip()), width(visible(source[: column - 1]))
    start = max(0, at - _BEFORE) if width(line) > _LONGEST else 0
    if width(line) > _LONGEST:
        line = _cut(line, start)
    return line, " " * (at - start) + "^"


def _cut(line: str, start: int) -> str:
    """The columns of a line that are shown, from `start`; an ellipsis where something is cut."""
    from wcwidth import clip

    end = start + _LONGEST
    head, tail = "…" if start else "", "…" if width(line) > end else ""
    return head + clip(line, start + len(head), end - len(tail)) + tail


def place(problem: Problem) -> str:
    """`recipes/ink.yaml:3:5`; without a line, the file alone."""
    return f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
