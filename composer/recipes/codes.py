"""Every problem that a recipe can have: its stable code and what it means, in one table.

E1xx is about what a recipe says, E2xx about YAML, E3xx about files and the project. Printed with
each problem, and as the rules of a SARIF report. A code is never given a new meaning.
"""

from __future__ import annotations

from types import MappingProxyType

CODES = MappingProxyType(
    {
        "E101": "An unknown key",
        "E102": "A required key is missing",
        "E103": "A value of the wrong type",
        "E104": "A number out of range",
        "E105": "A scale with more than 4 decimal places",
        "E106": "A string that is empty or too long",
        "E107": "Too few or too many concepts",
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
        "E305": "File names that differ only in case",
        "E306": "Two recipes with the same name",
    }
)
