"""Every problem that a recipe can have: its stable code and what it means, in one table.

E1xx is about what a recipe says, E2xx about YAML, E3xx about files and the project. Printed with
each problem, and as the rules of a SARIF report. A code is never given a new meaning.
"""

from __future__ import annotations

from types import MappingProxyType

CODES = MappingProxyType(
    {
        "E101": "A key that recipes don't have",
        "E102": "A key is missing",
        "E103": "A value of the wrong type",
        "E104": "A number out of its range",
        "E105": "A scale with more than 4 decimals",
        "E106": "A text that is empty or too long",
        "E107": "Too few or too many concepts",
        "E108": "A concept names its LoRA twice, or not at all",
        "E109": "Not an id",
        "E110": "The same concept twice",
        "E111": "Not one of the values that are allowed",
        "E112": "A secret in a recipe",
        "E113": "A tag that compose sets itself",
        "E114": "White space around a name or a tag",
        "E115": "A name that looks like a path",
        "E120": "No recipe at all",
        "E201": "Not UTF-8",
        "E202": "A control character",
        "E203": "A character that turns the reading direction",
        "E204": "Not YAML",
        "E205": "More than one document",
        "E206": "An anchor or an alias",
        "E207": "A YAML tag",
        "E208": "A merge key",
        "E209": "Nested too deep, or too many values",
        "E210": "A value that YAML 1.1 and 1.2 read differently",
        "E211": "A number that is not finite, or too long",
        "E212": "The same key twice",
        "E213": "A key that is no text",
        # The E3xx need more than one small file: the test makes their cases itself.
        "E301": "The file can't be read",
        "E302": "The file is too large",
        "E303": "The file lies outside the project",
        "E304": "A file name with unsafe characters",
        "E305": "File names that differ in case only",
        "E306": "Two recipes with the same name",
    }
)
