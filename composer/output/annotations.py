"""Findings, and GitHub's workflow commands, which show them beside the files of a pull request.

Problems of recipes and the dangers of a plan become findings, in texts that are safe to print
already; `sarif` has their other form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ERROR, WARNING, NOTICE = "error", "warning", "notice"
MOST = 10  # of a kind: GitHub shows no more of one step


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to show at a file: how grave, by which rule, what; line 0 means the whole file."""

    kind: str  # error, warning or notice
    rule: str  # stable: E104, P201
    message: str
    file: str
    line: int = 0
    column: int = 0


def annotated(findings: Sequence[Finding], *, whole: str) -> str:
    """Workflow commands, ten of a kind at most, the first ones first.

    The last of a kind then says how many there are besides, and `whole` where they all are.
    """
    lines = []
    for kind in (ERROR, WARNING, NOTICE):
        alike = [finding for finding in findings if finding.kind == kind]
        kept = alike if len(alike) <= MOST else alike[: MOST - 1]
        lines += [_shown(finding) for finding in kept]
        if len(kept) < len(alike):
            more = f"{len(alike) - len(kept)} more of {len(alike)} are not shown: {whole}"
            lines.append(command(kind, more, title="compose"))
    return "".join(f"{line}\n" for line in lines)


def _shown(finding: Finding) -> str:
    place = {"line": str(finding.line), "col": str(finding.column)} if finding.line else {}
    kind, message, rule = finding.kind, finding.message, finding.rule
    return command(kind, message, file=finding.file, **place, title=rule)


def command(kind: str, message: str, **properties: str) -> str:
    """A workflow command: `::error file=recipes/a.yaml::...`.

    The escapes are those of `@actions/core` (packages/core/src/command.ts): `%`, CR and LF
    everywhere, `:` and `,` in properties too.
    """
    listed = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{kind} {listed}::{_data(message)}"


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
