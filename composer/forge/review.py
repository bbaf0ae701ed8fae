"""What a pull request and a merge show of a plan, the same on every forge.

A comment, a status with the digest, an issue while there is drift, and the plan that was approved.
Comments and issues are found again by a hidden marker in their first line. Anybody can copy a
marker, so the author has to match as well. Nothing is written where nothing changed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from composer.forge.base import Status, drifted, read_plan
from composer.text import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from composer.forge.base import Forge, Note

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})\b")
_MAX_DESCRIPTION = 140  # characters; GitHub's limit


def marker(kind: str, name: str) -> str:
    """The hidden first line of a comment or an issue; `name` is one that `plan_name` accepts."""
    return f"<!-- compose:{kind}:{name} -->"


def status_name(name: str) -> str:
    """The name of the status that holds a plan's digest."""
    return f"compose/plan/{name}" if name else "compose/plan"


def comment(forge: Forge, number: int, name: str, plan: Path, document: Path) -> str:
    """Write or update the comment with this plan on a pull request; what was done, in words."""
    parsed = read_plan(plan)
    body = document.read_text(encoding="utf-8") if document.is_file() else ""
    quiet = parsed is not None and _says_nothing(parsed)
    if not body.strip():
        body, quiet = "## compose plan: it failed\n\nThe log of the run says why.\n", True
    return keep_comment(forge, number, marker("plan", name), body, quiet=quiet)


def _says_nothing(plan: Mapping[str, Any]) -> bool:
    """Whether nobody needs to see this plan."""
    blocked = any(action["action"] == "blocked" for action in plan["actions"])
    loud = plan["hasChanges"] or plan["guards"] or plan["lockEdits"] or drifted(plan)
    return not (blocked or loud)


def attest(forge: Forge, commit: str, name: str, plan: Path, *, ok: bool, url: str) -> str:
    """Set the status with the plan's digest and the URL of the run; what was done, in words."""
    parsed = read_plan(plan)
    if parsed is None or parsed["digest"] is None:
        return "no status: the plan has no digest"
    description = shorten(f"sha256:{parsed['digest']} {parsed['summary']}", _MAX_DESCRIPTION)
    status = Status(ok and not parsed["guards"], description, url)
    forge.set_status(commit, status_name(name), status)
    return "set the commit's status to the plan's digest"


def drift(forge: Forge, name: str, plan: Path, document: Path, *, ok: bool) -> str:
    """Open, update or close the issue about drift; what was done, in words.

    A plan with a blocked recipe is not `ok`. It can prove that there is drift, but not that there
    is none.
    """
    has_drift = bool(drifted(read_plan(plan)))
    if not ok and not has_drift:
        return "the check for drift failed: the issue was left as it is"
    body = document.read_text(encoding="utf-8") if has_drift else None
    title = "The target has drifted" + (f" ({name})" if name else "")
    return keep_issue(forge, marker("drift", name), title, body)


def approved(forge: Forge, commit: str, name: str, into: Path) -> tuple[str, str]:
    """Write the plan that was reviewed for this merge; its digest, and an explanation.

    Without one the digest is empty and the file approves nothing: `compose apply --expect` then
    succeeds only if there is nothing to do. `compose apply --digest` checks that file and digest
    belong together.
    """
    digest, raw = "", b'{"changeDigests": []}\n'
    head, context = forge.reviewed(commit), status_name(name)
    status = forge.status(head, context) if head else None
    stated = _DIGEST.match(status.description) if status else None
    if head is None:
        explanation = f"no pull request was merged as {commit[:12]}"
    elif status is None or stated is None:
        explanation = f"{head[:12]}, the head of the pull request, has no status {context}"
    elif not status.ok:
        explanation = f"the plan of {head[:12]} failed, or would be refused"
    else:
        digest = stated[1]
        explanation = f"the plan of {head[:12]}: sha256:{digest}"
        raw = forge.plan(status, name)
    into.write_bytes(raw)
    return digest, explanation


# --- one comment, one issue --------------------------------------------------------------


def keep_comment(forge: Forge, number: int, mark: str, body: str, *, quiet: bool) -> str:
    """Write the body into compose's comment on this pull request; what was done, in words.

    `quiet`: add no comment, but update one that exists.
    """
    text = f"{mark}\n{body}"
    existing = _existing(forge.comments(number), mark, forge.me())
    if existing is None and quiet:
        return "no comment: nothing to report"
    if existing is None:
        forge.add_comment(number, text)
        return "added a comment"
    if _alike(existing.body, text):
        return "the comment is up to date"
    forge.edit_comment(number, existing.id, text)
    return "updated the comment"


def keep_issue(forge: Forge, mark: str, title: str, body: str | None) -> str:
    """Open or update the issue; close it if `body` is None. What was done, in words."""
    existing = _existing(forge.issues(), mark, forge.me())
    if body is None:
        if existing is None:
            return "no issue is open"
        closing = f"{mark}\nResolved: the target matches the lock again.\n"
        forge.edit_issue(existing.id, closing, close=True)
        return "closed the issue"
    text = f"{mark}\n{body}"
    if existing is None:
        forge.add_issue(title, text)
        return "opened an issue"
    if _alike(existing.body, text):
        return "the issue is up to date"
    forge.edit_issue(existing.id, text)
    return "updated the issue"


def _existing(notes: Iterable[Note], mark: str, me: str) -> Note | None:
    """The oldest note of this author that begins with the marker."""
    return next((n for n in notes if n.author == me and n.body.lstrip().startswith(mark)), None)


def _alike(one: str, other: str) -> bool:
    """Whether two bodies read the same: forges change line ends, and trim."""
    return one.replace("\r\n", "\n").strip() == other.replace("\r\n", "\n").strip()
