"""The problems that a file can have: their codes, and the report that they are added to.

E1xx is about what a recipe says, E2xx about YAML, E3xx about files and the project, E5xx about its
settings. The codes are printed with each problem, and are the rules of a SARIF report. A code is
never given a new meaning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from composer.errors import Problem
from composer.text import code_points, shorten, visible

CODES = MappingProxyType(
    {
        "E101": "An unknown key",
        "E102": "A required key is missing",
        "E103": "A value of the wrong type",
        "E104": "A number out of range",
        "E105": "A scale with more than 4 decimal places",
        "E106": "A string that is empty, invisible or too long",
        "E107": "Too few or too many concepts, or other items of a list",
        "E108": "A concept names its LoRA twice, or not at all",
        "E109": "An invalid id",
        "E110": "A duplicate concept",
        "E111": "A value that is not allowed",
        "E112": "A secret in a recipe",
        "E113": "A tag that only compose sets",
        "E114": "Whitespace around a name or a tag",
        "E115": "A name that looks like a path",
        "E120": "Not a recipe",
        "E201": "Not UTF-8",
        "E202": "A control character",
        "E203": "A character that changes the text direction",
        "E204": "Invalid YAML",
        "E205": "More than one document",
        "E206": "An anchor or an alias",
        "E207": "A YAML tag",
        "E208": "A merge key",
        "E209": "Nested too deep, or too many values",
        "E210": "A value that YAML 1.1 and 1.2 read differently",
        "E211": "A number that is not finite or has too many digits",
        "E212": "A duplicate key",
        "E213": "A key that is not a string",
        # The E3xx need more than one small file: the test makes their cases itself.
        "E301": "The file can't be read",
        "E302": "The file is too large",
        "E303": "The file is outside the project",
        "E304": "A file name with unsafe characters",
        "E305": "File names that differ only in case or Unicode normalisation",
        "E306": "Two recipes with the same name, in whatever Unicode normalisation",
        "E307": "A name that no LoRA of the library has",
    }
)
# What only the settings of a project can have; else they have the codes of recipes.
SETTINGS_CODES = MappingProxyType(
    {
        "E501": "Invalid TOML",
        "E502": "A host or a folder that only a flag or the environment may name",
    }
)

KeyPath: TypeAlias = "tuple[str | int, ...]"  # ("concepts", 1, "scale")

LONGEST_SHOWN = 40  # characters of a value or key that a message repeats


class Place(NamedTuple):
    """Where something begins in a file, counted from 1; 0 if there is no place."""

    line: int = 0
    column: int = 0


NOWHERE = Place()


@dataclass(slots=True)
class Report:
    """Collects the problems of one file; equal ones are kept once."""

    file: str
    _problems: dict[Problem, None] = field(default_factory=dict)

    def add(self, place: Place, code: str, message: str, hint: str = "") -> None:
        problem = Problem(self.file, place.line, place.column, code, message, hint)
        self._problems.setdefault(problem)

    @property
    def problems(self) -> list[Problem]:
        """All problems, sorted by place."""
        return sorted(self._problems)


def quoted(text: str) -> str:
    """A string from a file in quotes, shortened, safe to print."""
    return f'"{visible(shorten(text, LONGEST_SHOWN))}"'


def other_normalisation(name: str, other: str) -> str:
    """What to add to a message on two names that look the same; empty if they are the same."""
    return f", in another Unicode normalisation ({difference(name, other)})" * (name != other)


def difference(name: str, other: str) -> str:
    """The code points in which two names differ, this one's first."""
    return f"{code_points(name, other)}, there {code_points(other, name)}"


def dotted(path: KeyPath) -> str:
    """A path for a message: `concepts[1].scale`; empty for the whole file."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{_key(step)}" for step in path)
    return "".join(steps).removeprefix(".")


def _key(step: str) -> str:
    return visible(shorten(step, LONGEST_SHOWN)) or '""'


def at_path(path: KeyPath, message: str) -> str:
    """A message about the value at a path."""
    return f"{dotted(path)}: {message}" if path else message
