"""What a pipeline runs beside `compose`: python -I -m composer.forge COMMAND.

`action.yml` calls the first six commands, docs/gitlab-ci.yml the others. Their input comes from
the environment, and from plan.json and plan.md, which `compose plan` wrote.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from composer.forge import fork, previews, review, run
from composer.forge.api import ForgeError, Refusal
from composer.forge.base import Environment, plan_name
from composer.forge.clients import GitHub, GitLab, event, own_pull_request
from composer.forge.run import annotate, say, set_outputs
from composer.forge.sheet_branch import Remote
from composer.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def main(arguments: list[str]) -> int:
    """Run a command; returns its exit status."""
    if len(arguments) != 1 or arguments[0] not in _COMMANDS:
        sys.stderr.write(f"usage: python -I -m composer.forge {'|'.join(_COMMANDS)}\n")
        return 64
    try:
        return _COMMANDS[arguments[0]](Environment(os.environ))
    except ForgeError as error:
        message = visible(str(error))
        if "GITHUB_ACTIONS" in os.environ:
            hint = "; docs/gitops.md lists the permissions" if isinstance(error, Refusal) else ""
            annotate("error", "compose", message + hint)
        else:
            sys.stderr.write(f"{message}\n")
        return error.exit_status


def approve(env: Mapping[str, str]) -> int:
    """`expect: approved`: pass the plan that was reviewed for this merge to the next step."""
    files = run.Files.from_env(env)
    files.folder.mkdir(parents=True, exist_ok=True)
    into = files.folder / "approved.json"
    name = plan_name(env.get("INPUT_NAME", ""))
    digest, why = review.approved(GitHub.from_env(env), env["GITHUB_SHA"], name, into)
    annotate("notice", "compose apply", _approval(digest, why))
    set_outputs(files.outputs, {"expect": str(into), "digest": digest})
    return 0


def report(env: Mapping[str, str]) -> int:
    """After a plan: comment and status. After a check for drift: the issue."""
    files, name = run.Files.from_env(env), plan_name(env.get("INPUT_NAME", ""))
    ok = int(env["EXIT_CODE"]) in (0, run.CHANGES)
    if env["INPUT_COMMAND"] == "drift":
        say(review.drift(GitHub.from_env(env), name, files.plan, files.document, ok=ok))
        return 0
    pull = own_pull_request(event(env))
    if pull is None:
        say("no comment: the run is not of a pull request from this repository")
        return 0
    forge = GitHub.from_env(env)
    url = f"{forge.web}/actions/runs/{env['GITHUB_RUN_ID']}"
    say(review.attest(forge, str(pull["head"]["sha"]), name, files.plan, ok=ok, url=url))
    say(review.comment(forge, int(pull["number"]), name, files.plan, files.document))
    return 0


def preview(env: Mapping[str, str]) -> int:
    """`previews: true`: render what the pull request changes. A failure is a warning."""
    files = run.Files.from_env(env)
    if own_pull_request(event(env)) is None:
        say("no previews: the run is not of a pull request from this repository")
        return 0
    try:
        more = shlex.split(env.get("INPUT_PREVIEW_ARGUMENTS", ""))
    except ValueError as bad:
        _warn(f"preview-arguments: {bad}")
        return 0
    options = run.given(env, "base", "target", "project", "library")
    web = f"{env['GITHUB_SERVER_URL']}/{env['GITHUB_REPOSITORY']}"
    failure = previews.render(
        [*options, *more, "--", *run.paths(env)],
        files.previews,
        previews.folder_url(GitHub, web),
        env.get("INPUT_WORKING_DIRECTORY") or ".",
    )
    if failure:
        _warn(failure)
    folder = str(files.previews) if files.previews.is_dir() else ""
    set_outputs(files.outputs, {"rendered": "true", "previews": folder})
    return 0


def show_preview(env: Mapping[str, str]) -> int:
    """After `preview`: the contact sheets' branch, and the comment. A failure is a warning."""
    files, name = run.Files.from_env(env), plan_name(env.get("INPUT_NAME", ""))
    pull = own_pull_request(event(env))
    assert pull is not None  # `preview` renders nothing else
    try:
        forge = GitHub.from_env(env)
        remote = Remote(f"{forge.web}.git", env["TOKEN"])
        for line in previews.show(forge, remote, int(pull["number"]), name, files.previews):
            say(line)
    except ForgeError as error:
        _warn(f"{error}; docs/previews.md lists the permissions")
    return 0


def _warn(message: str) -> None:
    annotate("warning", "compose preview", visible(message))


def gitlab_preview(env: Mapping[str, str]) -> int:
    """In a merge request's pipeline: render what it changes, and show it in a note."""
    forge = GitLab.from_env(env)
    try:
        more = shlex.split(env.get("COMPOSE_PREVIEW_ARGUMENTS", ""))
    except ValueError as bad:
        raise ForgeError(f"COMPOSE_PREVIEW_ARGUMENTS: {bad}") from bad
    options = ["--base", env["CI_MERGE_REQUEST_DIFF_BASE_SHA"], *more]
    failure = previews.render(options, _PREVIEWS, previews.folder_url(GitLab, forge.web), ".")
    remote = Remote(f"{forge.web}.git", env["COMPOSE_GITLAB_TOKEN"])
    name, number = plan_name(env.get("COMPOSE_NAME", "")), int(env["CI_MERGE_REQUEST_IID"])
    for line in previews.show(forge, remote, number, name, _PREVIEWS):
        say(line)
    if failure:
        raise ForgeError(f"compose preview: {failure}")
    return 0


def gitlab_report(env: Mapping[str, str]) -> int:
    """In a merge request's pipeline, after `compose plan`: note and status."""
    forge = GitLab.from_env(env)
    name = plan_name(env.get("COMPOSE_NAME", ""))
    ok = env.get("COMPOSE_STATUS", "0") in ("0", str(run.CHANGES))
    url = env["CI_JOB_URL"]
    # Where results are merged before the pipeline, CI_COMMIT_SHA is of that merge.
    commit = env.get("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA") or env["CI_COMMIT_SHA"]
    say(review.attest(forge, commit, name, _PLAN, ok=ok, url=url))
    say(review.comment(forge, int(env["CI_MERGE_REQUEST_IID"]), name, _PLAN, _DOCUMENT))
    return 0


def gitlab_approve(env: Mapping[str, str]) -> int:
    """After a merge: write approved.json; its digest on stdout, the explanation on stderr."""
    forge, name = GitLab.from_env(env), plan_name(env.get("COMPOSE_NAME", ""))
    digest, why = review.approved(forge, env["CI_COMMIT_SHA"], name, Path("approved.json"))
    sys.stderr.write(f"{_approval(digest, why)}\n")
    say(digest)
    return 0


def gitlab_drift(env: Mapping[str, str]) -> int:
    """On a schedule, after `compose plan`: the issue."""
    forge = GitLab.from_env(env)
    name = plan_name(env.get("COMPOSE_NAME", ""))
    ok = env.get("COMPOSE_STATUS", "0") == "0"
    say(review.drift(forge, name, _PLAN, _DOCUMENT, ok=ok))
    return 0


def _approval(digest: str, why: str) -> str:
    return f"approved: {why}" if digest else f"no approved plan: {why}"


# Where GitLab's jobs write them.
_PLAN, _DOCUMENT, _PREVIEWS = Path("plan.json"), Path("plan.md"), Path("previews")
_COMMANDS: dict[str, Callable[[Mapping[str, str]], int]] = {
    "run": run.run,
    "approve": approve,
    "report": report,
    "comment": fork.comment,
    "preview": preview,
    "show-preview": show_preview,
    "gitlab-report": gitlab_report,
    "gitlab-approve": gitlab_approve,
    "gitlab-drift": gitlab_drift,
    "gitlab-preview": gitlab_preview,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
