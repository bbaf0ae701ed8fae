"""The workflows that bring a lock back: their conditions, and their scripts on real repositories.

The artifact may be anybody's, so nothing of it but a plain compose.lock may get anywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.action_runner import Runner
from support.cli import REPO

from composer.lock import dump, parse
from composer.model import Entry, Lock, TargetLock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the runner's bash is another on Windows")

BRANCHES = {"lock-app": "main", "lock-pull-request": "compose/lock"}


def lock_text(**compositions: str) -> str:
    """A lock with these compositions, by the names of their recipes."""
    entries = {f"{n}.yaml": Entry(n, composition=id) for n, id in compositions.items()}
    return dump(Lock({"local": TargetLock(None, entries)}))


BASE_LOCK, NEW_LOCK = lock_text(a="a1", b="b1"), lock_text(a="a2", b="b1")
UNREVIEWED = "is not on the default branch"
HOOKS = ("post-checkout", "post-commit", "pre-commit", "pre-push", "reference-transaction")
# GitHub's own tool, as far as the scripts use it: notes what it was asked, and lists the pull
# requests of `listed.json` whose head and base were asked for.
GH = r"""#!/bin/bash
echo "gh $1 $2 $GH_TOKEN" >>"$RUNNER_TEMP/gh.log"
[ "$1 $2" = "pr list" ] || exit 0
shift 2
while [ $# -gt 0 ]; do declare "${1#--}=$2"; shift 2; done
[ -n "$limit" ] || limit=30
jq --arg head "$head" --arg base "$base" --argjson limit "$limit" \
  'map(select(.headRefName == $head and ($base == "" or .baseRefName == $base))) | .[:$limit]' \
  "$RUNNER_TEMP/listed.json" | jq --raw-output "$jq"
"""
# What the step `install` would install.
COMPOSE = f'#!/bin/sh\nPYTHONPATH="{REPO}" exec "{sys.executable}" -m composer "$@"\n'


def job(workflow: str) -> dict[str, Any]:
    text = (REPO / f"docs/workflows/{workflow}.yml").read_text(encoding="utf-8")
    described: dict[str, Any] = yaml.safe_load(text)["jobs"]["lock"]
    return described


class LockJob:
    """A bare repository, a merge that was applied, and the job of one workflow on its checkout."""

    def __init__(self, at: Path, workflow: str) -> None:
        self.workflow, self.branch = workflow, BRANCHES[workflow]
        self.remote, self.clone, self.temp = at / "remote", at / "clone", at / "temp"
        self.artifact = self.temp / "lock"
        self.artifact.mkdir(parents=True)
        self.list_pull_requests()
        (at / "bin").mkdir()
        for program, script in (("gh", GH), ("compose", COMPOSE)):
            (at / "bin" / program).write_text(script, encoding="utf-8")
            (at / "bin" / program).chmod(0o755)
        self.env = {
            "PATH": f"{at / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(at),
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_OUTPUT": str(self.temp / "output"),
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        self.git(at, "init", "--quiet", "--bare", "--initial-branch=main", str(self.remote))
        self.git(at, "clone", "--quiet", str(self.remote), str(self.clone))
        self.git(self.clone, "config", "user.name", "amy")
        self.git(self.clone, "config", "user.email", "amy@example.org")
        self.git(self.clone, "checkout", "--quiet", "-B", "main")
        self.applied = self.commit("compose.lock", BASE_LOCK)
        self.artifact.joinpath("compose.lock").write_text(NEW_LOCK, encoding="utf-8")

    def git(self, at: Path, *arguments: str) -> str:
        ran = subprocess.run(
            ["git", *arguments], cwd=at, env=self.env, capture_output=True, text=True, check=True
        )
        return ran.stdout.strip()

    def commit(self, file: str, text: str, branch: str = "main") -> str:
        """Push a commit; its name."""
        (self.clone / file).write_text(text, encoding="utf-8")
        self.git(self.clone, "add", file)
        self.git(self.clone, "commit", "--quiet", "--message", file)
        self.git(self.clone, "push", "--quiet", "origin", f"HEAD:refs/heads/{branch}")
        return self.git(self.clone, "rev-parse", "HEAD")

    def list_pull_requests(self, *listed: dict[str, Any]) -> None:
        """What GitHub says is open; fields that are left out are those of the workflow's own."""
        own = {"headRefName": "compose/lock", "baseRefName": "main", "isCrossRepository": False}
        full = [{"number": n, **own, **fields} for n, fields in enumerate(listed, start=1)]
        (self.temp / "listed.json").write_text(json.dumps(full), encoding="utf-8")

    def merge(self, *commits: tuple[str, str], fast_forward: bool = False) -> list[str]:
        """Merge a branch of these commits (file and text) into the default branch; their names."""
        base = self.git(self.clone, "rev-parse", "HEAD")
        names = [self.commit(file, text, branch="topic") for file, text in commits]
        if not fast_forward:
            self.git(self.clone, "reset", "--quiet", "--hard", base)
            self.git(self.clone, "merge", "--quiet", "--no-ff", "-m", "merge", names[-1])
        self.git(self.clone, "push", "--quiet", "origin", "HEAD:refs/heads/main")
        return names

    def run(self) -> tuple[int, str]:
        """The workflow's scripts, as far as their conditions go; the status and the log."""
        log, output = "", self.temp / "output"
        output.write_text("", encoding="utf-8")
        for step in job(self.workflow)["steps"]:
            if "run" not in step or step["id"] == "install":
                continue
            commit = output.read_text(encoding="utf-8").strip().removeprefix("commit=")
            if "if" in step and not commit:
                continue
            assert ("GH_TOKEN" in step["env"]) == (step["id"] == "push")
            values = {"BASE": "main", "APPLIED": self.applied, "COMMIT": commit, "GH_TOKEN": "t"}
            given = {name: values.get(name, text) for name, text in step["env"].items()}
            ran = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                cwd=self.clone,
                env={**self.env, **given},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            log += ran.stdout
            if ran.returncode:
                return ran.returncode, log
        return 0, log

    def refs(self) -> str:
        return self.git(self.remote, "for-each-ref")

    def pushed(self, file: str = "compose.lock") -> str:
        return self.git(self.remote, "show", f"{self.branch}:{file}") + "\n"


@pytest.fixture(params=[*BRANCHES])
def lock(request: pytest.FixtureRequest, tmp_path: Path) -> LockJob:
    return LockJob(tmp_path, request.param)


def test_the_lock_comes_back_as_one_commit_of_one_file(lock: LockJob) -> None:
    status, log = lock.run()
    assert (status, lock.pushed()) == (0, NEW_LOCK), log
    changed = lock.git(lock.remote, "diff", "--name-only", lock.applied, lock.branch)
    count = lock.git(lock.remote, "rev-list", "--count", f"{lock.applied}..{lock.branch}")
    assert (changed, count) == ("compose.lock", "1")
    asked = (lock.temp / "gh.log").read_text(encoding="utf-8")
    assert ("gh pr create t" in asked) == (lock.workflow == "lock-pull-request")


def test_a_lock_that_is_as_it_was_pushes_nothing(lock: LockJob) -> None:
    (lock.artifact / "compose.lock").write_text(BASE_LOCK, encoding="utf-8")
    before = lock.refs()
    status, log = lock.run()
    assert (status, "unchanged" in log, lock.refs()) == (0, True, before), log


def test_a_first_lock_is_added(lock: LockJob) -> None:
    lock.git(lock.clone, "rm", "--quiet", "compose.lock")
    lock.applied = lock.commit("README", "none yet")
    status, log = lock.run()
    assert (status, lock.pushed()) == (0, NEW_LOCK), log


def test_nothing_else_of_an_artifact_is_run_or_committed(lock: LockJob, tmp_path: Path) -> None:
    for folder in (lock.artifact / ".git/hooks", lock.artifact / "hooks"):
        folder.mkdir(parents=True)
        for name in HOOKS:
            (folder / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\n", encoding="utf-8")
            (folder / name).chmod(0o755)
    (lock.artifact / ".git/config").write_text("[core]\n\thooksPath = hooks\n", encoding="utf-8")
    (lock.artifact / "recipes.yaml").write_text("hostile", encoding="utf-8")
    status, log = lock.run()
    assert (status, lock.pushed()) == (0, NEW_LOCK), log
    assert not (tmp_path / "pwned").exists()
    assert lock.git(lock.remote, "ls-tree", "-r", "--name-only", lock.branch) == "compose.lock"


def test_commits_that_nobody_reviewed_stay_where_they_are(lock: LockJob) -> None:
    before = lock.git(lock.remote, "rev-parse", "main")
    lock.applied = lock.commit("evil.yml", "unreviewed", branch="topic")
    lock.git(lock.clone, "checkout", "--quiet", "-B", "main", before)
    refs = lock.refs()
    status, log = lock.run()
    assert (status, UNREVIEWED in log, lock.refs()) == (1, True, refs), log


EVIL = (".github/workflows/apply.yml", "name: compose apply # on: push: tags")


@pytest.mark.parametrize("which", [0, 1])
def test_a_commit_inside_a_merged_pull_request_is_not_the_default_branchs(
    which: int, lock: LockJob
) -> None:
    """A tag named as the branch makes an unreviewed workflow of such a commit look like its own."""
    (lock.clone / ".github/workflows").mkdir(parents=True)
    commits = lock.merge(EVIL, ("README", "all that the review shows"))
    lock.applied = commits[which]
    lock.git(lock.clone, "tag", "main", lock.applied)
    lock.git(lock.clone, "push", "--quiet", "origin", "refs/tags/main")
    refs = lock.refs()
    status, log = lock.run()
    assert (status, UNREVIEWED in log, lock.refs()) == (1, True, refs), log


def test_a_merge_of_the_default_branch_into_a_topic_reviews_no_commit(lock: LockJob) -> None:
    lock.merge(("a.txt", "a"))
    base = lock.git(lock.clone, "rev-parse", "HEAD")
    lock.git(lock.clone, "checkout", "--quiet", "-B", "other", lock.applied)
    lock.applied = lock.commit("b.txt", "unreviewed", branch="other")
    lock.git(lock.clone, "merge", "--quiet", "--no-ff", "-m", "update", base)
    topic = lock.git(lock.clone, "rev-parse", "HEAD")
    lock.git(lock.clone, "checkout", "--quiet", "-B", "main", base)
    lock.git(lock.clone, "merge", "--quiet", "--no-ff", "-m", "merge", topic)
    status, log = lock.run()
    assert (status, UNREVIEWED in log) == (1, True), log


@pytest.mark.parametrize("later", ["merge", "push"])
def test_an_older_head_of_the_default_branch_is_its_own(later: str, lock: LockJob) -> None:
    lock.merge(("a.txt", "a"))
    lock.applied = lock.git(lock.clone, "rev-parse", "HEAD")
    lock.merge(*((f"{n}.txt", "later") for n in range(3)), fast_forward=later == "push")
    status, log = lock.run()
    assert (status, lock.pushed()) == (0, NEW_LOCK), log


@pytest.mark.parametrize(
    ("listed", "creates"),
    [
        ([], True),
        ([{}], False),
        ([{"isCrossRepository": True}], True),
        ([{"baseRefName": "release"}], True),
        ([{"headRefName": "compose/locks"}], True),
        ([{"isCrossRepository": True}] * 40 + [{}], False),
    ],
)
def test_only_the_repositorys_own_pull_request_counts(
    listed: list[dict[str, Any]], creates: bool, tmp_path: Path
) -> None:
    lock = LockJob(tmp_path, "lock-pull-request")
    lock.list_pull_requests(*listed)
    status, log = lock.run()
    asked = (lock.temp / "gh.log").read_text(encoding="utf-8")
    assert (status, "gh pr create" in asked) == (0, creates), log


def _link(file: Path) -> None:
    file.with_name("secret").write_text("secret", encoding="utf-8")
    file.symlink_to("secret")


def _large(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(64 * 1024 * 1024 + 1)


@pytest.mark.parametrize("make", [_link, _large, lambda file: file.mkdir(), lambda file: None])
def test_only_a_plain_file_is_a_lock(make: Callable[[Path], None], lock: LockJob) -> None:
    (lock.artifact / "compose.lock").unlink()
    make(lock.artifact / "compose.lock")
    before = lock.refs()
    status, log = lock.run()
    assert (status, "is not a regular file" in log, lock.refs()) == (1, True, before), log


def test_what_was_merged_meanwhile_stays(lock: LockJob) -> None:
    main = lock.commit("compose.lock", lock_text(a="a1", b="b2", c="c1"))
    status, log = lock.run()
    parent = lock.git(lock.remote, "rev-parse", f"{lock.branch}^")
    if lock.workflow == "lock-app":
        merged = lock_text(a="a2", b="b2", c="c1")
        assert (status, parent, lock.pushed()) == (0, main, merged), log
    else:
        assert (status, parent, lock.pushed()) == (0, lock.applied, NEW_LOCK), log


def test_an_app_keeps_both_ids_of_a_conflict(tmp_path: Path) -> None:
    lock = LockJob(tmp_path, "lock-app")
    lock.commit("compose.lock", lock_text(a="a3", b="b1"))
    status, log = lock.run()
    assert (status, "both sides changed 1 entry" in log) == (0, True), log
    merged = parse(lock.pushed()).target("local").recipes["a.yaml"]
    assert (merged.name, {*merged.all_ids}) == ("a", {"a2", "a3"})


def test_an_app_refuses_an_invalid_lock(tmp_path: Path) -> None:
    lock = LockJob(tmp_path, "lock-app")
    (lock.artifact / "compose.lock").write_text("{}", encoding="utf-8")
    before = lock.refs()
    status, log = lock.run()
    assert (status, "is not valid" in log, lock.refs()) == (1, True, before), log


def test_an_app_refuses_a_branch_that_moved(tmp_path: Path) -> None:
    lock = LockJob(tmp_path, "lock-app")
    applied = lock.applied
    lock.commit("README", "somebody was faster")
    lock.git(lock.clone, "reset", "--quiet", "--hard", applied)
    before = lock.refs()
    status, log = lock.run()
    assert (status, "run this job again" in log, lock.refs()) == (1, True, before), log


@pytest.mark.parametrize("workflow", [*BRANCHES])
def test_only_the_default_branchs_own_runs_bring_a_lock(workflow: str, tmp_path: Path) -> None:
    run, ours = "github.event.workflow_run", "studio/models"
    good = {
        f"{run}.event": "push",
        f"{run}.head_branch": "main",
        f"{run}.conclusion": "failure",  # whatever came of it, the lock says what happened
        f"{run}.head_repository.full_name": ours,
        "github.event.repository.default_branch": "main",
        "github.repository": ours,
    }
    bad = {
        f"{run}.event": "pull_request",
        f"{run}.head_branch": "topic",
        f"{run}.conclusion": "skipped",
        f"{run}.head_repository.full_name": "stranger/models",
    }
    runner = Runner(tmp_path, tmp_path)
    assert runner.job_runs(job(workflow), good)
    assert runner.job_runs(job(workflow), {**good, f"{run}.event": "workflow_dispatch"})
    for name, value in bad.items():
        assert not runner.job_runs(job(workflow), {**good, name: value}), name


@pytest.mark.parametrize("workflow", [*BRANCHES])
def test_an_artifact_is_unpacked_outside_the_default_branchs_checkout(workflow: str) -> None:
    checkout, download = (step["with"] for step in job(workflow)["steps"][:2])
    assert checkout["ref"] == "${{ github.event.repository.default_branch }}"
    assert checkout["persist-credentials"] is False
    assert download["path"] == "${{ runner.temp }}/lock"
