"""A comment on a fork's pull request, from a workflow that trusts nothing in the fork's run.

That run executed the fork's own files, so its artifact may contain anything. The event says which
pull request it was; the text is shown as text, in a code block, below a notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from composer.forge.api import ForgeError
from composer.forge.base import artifact_name, plan_name
from composer.forge.clients import GitHub, NoArtifact, event
from composer.forge.review import keep_comment, marker
from composer.forge.run import annotate, say
from composer.output.markdown import COMMENT, fenced
from composer.text import shorten, visible_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_DOCUMENT = 256 * 1024  # bytes
_RESERVED = 2_000  # characters of the comment for what is not the artifact's
_NOTICE = (
    "The output of this fork's run at {commit}: recipes compared with the lock, without asking the "
    "target. It is untrusted text: **nobody verified it**, and it approves nothing.\n\n"
)


def comment(env: Mapping[str, str]) -> int:
    """Comment on the pull request behind a `workflow_run`. Raises `ForgeError`.

    There is always a comment: a run may claim that nothing changes in order to hide a change.
    """
    name = plan_name(env.get("INPUT_NAME", ""))
    run = _run_of_a_fork(event(env))
    if run is None:
        say("no comment: the run is not of a fork's pull request")
        return 0
    forge = GitHub.from_env(env)
    numbers = forge.pull_requests(run)
    if not numbers:
        say("no comment: no open pull request has the commit of that run as its head")
        return 0
    try:
        raw = forge.artifact(int(run["id"]), artifact_name(name), "plan.md", _MAX_DOCUMENT)
    except NoArtifact as missing:
        annotate("notice", "compose comment", f"no comment: {missing}")
        return 0
    body = _NOTICE.format(commit=run["head_sha"]) + _as_code_block(raw)
    for number in numbers:
        done = keep_comment(forge, number, marker("plan", name), body, quiet=False)
        say(f"#{number}: {done}")
    return 0


def _run_of_a_fork(trigger: Mapping[str, Any]) -> Mapping[str, Any] | None:
    run: Mapping[str, Any] | None = trigger.get("workflow_run")
    if run is None:
        raise ForgeError("`command: comment` works only in a workflow for the event workflow_run")
    repository = trigger["repository"]["id"]
    head = (run.get("head_repository") or {}).get("id")
    return run if run["event"] == "pull_request" and head not in (None, repository) else None


def _as_code_block(raw: bytes) -> str:
    """The document as a block of text. Raises `ForgeError` if it can't be shown as one."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as bad:
        raise ForgeError("plan.md in the artifact is not UTF-8 text") from bad
    text = shorten(visible_lines(text.replace("\r\n", "\n")), COMMENT.limit - _RESERVED)
    block = fenced(text, "markdown")
    if len(block) > COMMENT.limit:
        raise ForgeError("plan.md in the artifact is mostly backticks")
    return block
