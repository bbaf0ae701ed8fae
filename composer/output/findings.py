"""Findings: GitHub's workflow commands, which show them in a pull request, and SARIF logs.

Problems of recipes and the dangers of a plan become findings, in texts that are safe to print
already. SARIF: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from composer.output.style import dumped
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


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


_DRIVER = {"name": "compose", "informationUri": "https://pypi.org/project/lora-compose/"}
_LEVELS = {NOTICE: "note"}  # the others have the same name


def log(findings: Sequence[Finding], rules: Mapping[str, str]) -> str:
    """One run with these results; `rules` are all that there are, by their stable ids."""
    ids = sorted({*rules, *(finding.rule for finding in findings)})
    described = [_rule(id, rules.get(id, id)) for id in ids]
    run = {
        "tool": {"driver": {**_DRIVER, "version": __version__, "rules": described}},
        "columnKind": "unicodeCodePoints",
        "results": list(_results(findings, ids)),
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return dumped({"$schema": schema, "version": "2.1.0", "runs": [run]})


def _rule(id: str, words: str) -> dict[str, Any]:
    """GitHub's code scanning shows all three: in the list, beside an alert, and below it."""
    help = f"{words}. Each result says where, and what to write instead. See docs/errors.md ({id})."
    return {
        "id": id,
        "shortDescription": {"text": words},
        "fullDescription": {"text": f"{words}."},
        "help": {"text": help},
    }


def _results(findings: Sequence[Finding], ids: list[str]) -> Iterator[dict[str, Any]]:
    seen: Counter[str] = Counter()
    for finding in findings:
        print_ = _fingerprint(finding)
        seen[print_] += 1
        yield {
            "ruleId": finding.rule,
            "ruleIndex": ids.index(finding.rule),
            "level": _LEVELS.get(finding.kind, finding.kind),
            "message": {"text": _unlinked(finding.message)},
            "locations": [{"physicalLocation": _location(finding)}],
            "partialFingerprints": {"composeProblem/v1": f"{print_}:{seen[print_]}"},
        }


def _unlinked(message: str) -> str:
    """A message can hold links, `[text](target)`: a name can't (3.11.6)."""
    return message.replace("](", "] (")


def _fingerprint(finding: Finding) -> str:
    """The same for a problem that only moved to another line."""
    identity = "\0".join((finding.file, finding.rule, finding.message))
    return hashlib.sha256(identity.encode("utf-8", "replace")).hexdigest()[:32]


def _location(finding: Finding) -> dict[str, Any]:
    """Every result has a region, as code scanning asks for: the first line for a whole file."""
    place = {"startLine": finding.line or 1, "startColumn": finding.column or 1}
    uri = quote(finding.file, errors="replace")
    return {"artifactLocation": {"uri": uri}, "region": place}
