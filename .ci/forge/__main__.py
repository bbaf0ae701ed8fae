"""What a forge's pipeline runs beside `compose`: python -I .ci/forge COMMAND.

Standard library alone. `action.yml` calls the first four, docs/gitlab-ci.yml the others; what they
need comes from the environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import gitlab
import reviewing
import running
import stranger
from api import ForgeError, Refusal
from forge import plan_name
from github import GitHub, event, own_pull_request
from runner import annotate, outputs, say
from texts import visible

if TYPE_CHECKING:
    from collections.abc import Callable


def main(arguments: list[str]) -> int:
    """Run a command; its exit status."""
    if len(arguments) != 1 or arguments[0] not in _COMMANDS:
        sys.stderr.write(f"usage: python -I .ci/forge {'|'.join(_COMMANDS)}\n")
        return 64
    try:
        return _COMMANDS[arguments[0]]()
    except ForgeError as error:
        words = visible(str(error))
        if "GITHUB_ACTIONS" in os.environ:
            hint = "; docs/gitops.md lists the permissions" if isinstance(error, Refusal) else ""
            annotate("error", "compose", words + hint)
        else:
            sys.stderr.write(f"{words}\n")
        return 1


def approve() -> int:
    """`expect: approved`: the plan that was reviewed for this merge, as inputs of the next step."""
    env = os.environ
    files = running.Files.of(env)
    files.folder.mkdir(parents=True, exist_ok=True)
    into = files.folder / "approved.json"
    name = plan_name(env.get("INPUT_NAME", ""))
    digest, words = reviewing.approved(GitHub.here(env), env["GITHUB_SHA"], name, into)
    annotate("notice", "compose apply", f"approved: {words if digest else f'nothing: {words}'}")
    outputs({"expect": str(into), "digest": digest})
    return 0


def report() -> int:
    """After a plan or a look for drift: comment and status, or the issue."""
    env = os.environ
    files, name = running.Files.of(env), plan_name(env.get("INPUT_NAME", ""))
    ok = int(env["EXIT_CODE"]) in (0, running.CHANGES)
    if env["INPUT_COMMAND"] == "drift":
        say(reviewing.drift(GitHub.here(env), name, files.plan, files.document, ok=ok))
        return 0
    pull = own_pull_request(event(env))
    if pull is None:
        say("no pull request of this repository: nothing to comment")
        return 0
    forge = GitHub.here(env)
    url = f"{forge.web}/actions/runs/{env['GITHUB_RUN_ID']}"
    say(reviewing.attest(forge, str(pull["head"]["sha"]), name, files.plan, ok=ok, url=url))
    say(reviewing.comment(forge, int(pull["number"]), name, files.plan, files.document))
    return 0


def gitlab_report() -> int:
    """In a merge request's pipeline, after `compose plan`: note and status."""
    env, forge = os.environ, gitlab.GitLab.here(os.environ)
    name = plan_name(env.get("COMPOSE_NAME", ""))
    plan, document = Path("plan.json"), Path("plan.md")
    ok = env.get("COMPOSE_STATUS", "0") in ("0", "2")
    url = env["CI_JOB_URL"]
    # Where results are merged before the pipeline, CI_COMMIT_SHA is of that merge.
    commit = env.get("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA") or env["CI_COMMIT_SHA"]
    say(reviewing.attest(forge, commit, name, plan, ok=ok, url=url))
    say(reviewing.comment(forge, int(env["CI_MERGE_REQUEST_IID"]), name, plan, document))
    return 0


def gitlab_approve() -> int:
    """After a merge: approved.json; its digest on stdout, the talk on stderr."""
    env = os.environ
    forge, name = gitlab.GitLab.here(env), plan_name(env.get("COMPOSE_NAME", ""))
    into = Path("approved.json")
    digest, words = reviewing.approved(forge, env["CI_COMMIT_SHA"], name, into)
    sys.stderr.write(f"approved: {words if digest else f'nothing: {words}'}\n")
    say(digest)
    return 0


def gitlab_drift() -> int:
    """On a schedule, after `compose plan`: the issue."""
    env, forge = os.environ, gitlab.GitLab.here(os.environ)
    name = plan_name(env.get("COMPOSE_NAME", ""))
    ok = env.get("COMPOSE_STATUS", "0") == "0"
    say(reviewing.drift(forge, name, Path("plan.json"), Path("plan.md"), ok=ok))
    return 0


_COMMANDS: dict[str, Callable[[], int]] = {
    "run": running.run,
    "approve": approve,
    "report": report,
    "comment": stranger.comment,
    "gitlab-report": gitlab_report,
    "gitlab-approve": gitlab_approve,
    "gitlab-drift": gitlab_drift,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
