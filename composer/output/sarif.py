"""Findings as a SARIF 2.1.0 log, for code scanners.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from composer.output.annotations import NOTICE
from composer.output.escape import dumped
from composer.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from composer.output.annotations import Finding

_LEVELS = {NOTICE: "note"}  # the others have the same name


def log(findings: Sequence[Finding], rules: Mapping[str, str]) -> str:
    """One run with these results; `rules` are all that there are, by their stable ids."""
    ids = sorted({*rules, *(finding.rule for finding in findings)})
    told = [_rule(id, rules.get(id, id)) for id in ids]
    run = {
        "tool": {"driver": {"name": "compose", "version": __version__, "rules": told}},
        "columnKind": "unicodeCodePoints",
        "results": list(_results(findings, ids)),
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return dumped({"$schema": schema, "version": "2.1.0", "runs": [run]})


def _rule(id: str, words: str) -> dict[str, Any]:
    return {"id": id, "shortDescription": {"text": words}}


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
    said = "\0".join((finding.file, finding.rule, finding.message))
    return hashlib.sha256(said.encode("utf-8", "replace")).hexdigest()[:32]


def _location(finding: Finding) -> dict[str, Any]:
    location: dict[str, Any] = {"artifactLocation": {"uri": quote(finding.file, errors="replace")}}
    if finding.line:
        location["region"] = {"startLine": finding.line, "startColumn": finding.column}
    return location
