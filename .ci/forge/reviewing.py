"""What a pull request and a merge have of a plan: a comment, a status with the digest, an issue
while there is drift, and the plan that was approved. The same on every forge.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from api import ForgeError
from forge import MOST_PLAN, Status
from texts import marker
from upkeep import keep_comment, keep_issue

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from forge import Forge

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})\b")
_MOST_DESCRIPTION = 140  # characters; GitHub takes no more


def status_name(name: str) -> str:
    """The name of the status that holds a plan's digest."""
    return f"compose/plan/{name}" if name else "compose/plan"


def comment(forge: Forge, number: int, name: str, plan: Path, document: Path) -> str:
    """Keep the comment with this plan on a pull request; what was done, in words."""
    made = _read(plan)
    body = document.read_text(encoding="utf-8") if document.is_file() else ""
    quiet = made is not None and _says_nothing(made)
    if not body.strip():
        body, quiet = "## compose plan: it failed\n\nThe log of the run says why.\n", True
    return keep_comment(forge, number, marker("plan", name), body, quiet=quiet)


def _says_nothing(plan: Mapping[str, Any]) -> bool:
    """Whether nobody needs to see this plan."""
    loud = any(action["action"] == "blocked" or action.get("drift") for action in plan["actions"])
    return not (plan["hasChanges"] or plan["guards"] or plan["lockEdits"] or loud)


def attest(forge: Forge, commit: str, name: str, plan: Path, *, ok: bool, url: str) -> str:
    """Set the status that tells the plan's digest, and which run has it; what was done."""
    made = _read(plan)
    if made is None or made["digest"] is None:
        return "no digest to put into a status"
    said = f"sha256:{made['digest']} {made['summary']}"
    if len(said) > _MOST_DESCRIPTION:
        said = said[: _MOST_DESCRIPTION - 1] + "…"
    forge.set_status(commit, status_name(name), Status(ok and not made["guards"], said, url))
    return "the commit's status has the digest"


def drift(forge: Forge, name: str, plan: Path, document: Path, *, ok: bool) -> str:
    """Keep one issue about drift: opened, brought up to date, closed; what was done.

    A plan in which a recipe is blocked, which is not `ok`, may tell of drift; that there is none
    it doesn't tell.
    """
    made = _read(plan) or {}
    drifted = any(action.get("drift") for action in made.get("actions", ()))
    if not ok and not drifted:
        return "the look for drift failed: no issue was touched"
    body = document.read_text(encoding="utf-8") if drifted else None
    title = "The target has drifted" + (f" ({name})" if name else "")
    return keep_issue(forge, marker("drift", name), title, body)


def approved(forge: Forge, commit: str, name: str, into: Path) -> tuple[str, str]:
    """Write the plan that was reviewed for this merge; its digest, and what was found.

    Without one the file approves nothing: `compose apply --expect` then runs only if nothing
    is to be done, and the digest is empty. Whether file and digest belong together is for
    `compose apply --digest` to say.
    """
    digest, words, raw = "", "", b'{"changeDigests": []}\n'
    head = forge.reviewed(commit)
    status = forge.status(head, status_name(name)) if head else None
    said = _DIGEST.match(status.description) if status else None
    if head is None:
        words = f"no pull request was merged as {commit[:12]}"
    elif status is None or said is None:
        words = f"{head[:12]}, the head of the pull request, has no status {status_name(name)}"
    elif not status.ok:
        words = f"the plan of {head[:12]} failed, or would be refused"
    else:
        digest, words = said[1], f"the plan of {head[:12]}: sha256:{said[1]}"
        raw = forge.plan(status, name)
    into.write_bytes(raw)
    return digest, words


def _read(plan: Path) -> dict[str, Any] | None:
    if not plan.is_file():
        return None
    if plan.stat().st_size > MOST_PLAN:
        raise ForgeError(f"{plan.name} is too large to be a plan")
    try:
        parsed = json.loads(plan.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as bad:
        raise ForgeError(f"{plan.name} holds no JSON of a plan") from bad
    if not isinstance(parsed, dict):
        raise ForgeError(f"{plan.name} holds no JSON of a plan")
    return parsed
