"""A comment for the pull request of a fork, posted by a workflow that trusts nothing of its run.

The run executed the fork's own files, so its artifact may say anything. Which pull request is
meant comes from the event; the text is shown as text, in a block, below words of ours.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from api import ForgeError
from forge import artifact_name, plan_name
from github import GitHub, NoArtifact, event
from runner import annotate, say
from texts import COMMENT, fenced, marker, shortened, visible
from upkeep import keep_comment

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_DOCUMENT = 256 * 1024  # bytes
_OURS = 2_000  # characters of the comment that are not the artifact's
_NOTICE = (
    "What the run of this fork printed at {commit}, recipes against the lock alone. It is "
    "untrusted text: **nobody verified it**, and it approves nothing.\n\n"
)


def comment(env: Mapping[str, str] = os.environ) -> int:
    """Keep the comment on the pull request behind a `workflow_run`. Raises `ForgeError`.

    It is never left out: a run that claims that nothing changes may say so to hide a change.
    """
    name = plan_name(env.get("INPUT_NAME", ""))
    run = _run_of_a_fork(event(env))
    if run is None:
        say("no run of a fork's pull request: nothing to comment")
        return 0
    forge = GitHub.here(env)
    numbers = forge.pull_requests(run)
    if not numbers:
        say("no open pull request has the commit of that run as its head")
        return 0
    try:
        raw = forge.artifact(int(run["id"]), artifact_name(name), "plan.md", _MOST_DOCUMENT)
    except NoArtifact as none:
        annotate("notice", "compose comment", f"{none}: nothing to comment")
        return 0
    body = _NOTICE.format(commit=run["head_sha"]) + _as_text(raw)
    for number in numbers:
        done = keep_comment(forge, number, marker("plan", name), body, quiet=False)
        say(f"#{number}: {done}")
    return 0


def _run_of_a_fork(happened: Mapping[str, Any]) -> Mapping[str, Any] | None:
    run: Mapping[str, Any] | None = happened.get("workflow_run")
    if run is None:
        raise ForgeError("`command: comment` is for the event workflow_run")
    here = happened["repository"]["id"]
    there = (run.get("head_repository") or {}).get("id")
    return run if run["event"] == "pull_request" and there not in (None, here) else None


def _as_text(raw: bytes) -> str:
    """The document as a block of text. Raises `ForgeError` if it is none."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as bad:
        raise ForgeError("plan.md in the artifact is no UTF-8 text") from bad
    shown = shortened(visible(text.replace("\r\n", "\n")), COMMENT - _OURS)
    document = fenced(shown, "markdown")
    if len(document) > COMMENT:
        raise ForgeError("plan.md in the artifact is mostly backticks")
    return document
