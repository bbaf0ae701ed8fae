"""The action's own steps in a simulated runner, against a server that plays GitHub's API."""

from __future__ import annotations

import json
import os
import signal
import time
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import serving
from support.action_runner import Runner, action, change, failed
from support.documents import rendered
from support.github_api import AT, BOT, HEAD, GitHubApi, pull_request, workflow_run, zipped

if TYPE_CHECKING:
    import subprocess


pytestmark = pytest.mark.skipif(os.name == "nt", reason="the runner's bash is another on Windows")

ROGUE = "recipes/pixel-rogue.yaml"
PULL = pull_request()
MARK = "<!-- compose:plan: -->"


LOST = "name: Lost\nconcepts: [{name: Nobody Knows It, scale: 0.5}]\n"


# --- the file itself ---------------------------------------------------------------------


def test_expressions_stand_in_no_script() -> None:
    for step in action()["runs"]["steps"]:
        assert "${{" not in step["run"], step["id"]
        assert step["run"].startswith("exec "), "a signal reaches only the first process"


def test_only_steps_that_talk_to_github_get_the_token() -> None:
    steps = action()["runs"]["steps"]
    with_token = [step["id"] for step in steps if "TOKEN" in step["env"]]
    assert with_token == ["comment", "approve", "report", "show"]


def test_every_input_is_used() -> None:
    described = action()
    used = json.dumps(described["runs"])
    assert [name for name in described["inputs"] if f"inputs.{name}" not in used] == []


# --- plan: one comment -------------------------------------------------------------------


def test_a_comment_is_made_then_left_alone_then_patched(runner: Runner, api: GitHubApi) -> None:
    change(runner)
    first = runner.use(PULL, command="plan")
    assert first.ok, first.log
    (comment,) = api.comments[5]
    assert comment["body"].startswith(f"{MARK}\n## compose plan: 1 change")
    assert api.writes == [f"POST {AT}/statuses/{HEAD}", f"POST {AT}/issues/5/comments"]
    assert runner.use(PULL, command="plan").ok
    assert api.writes[2:] == [f"POST {AT}/statuses/{HEAD}"]
    change(runner, "0.7", "0.65")
    assert runner.use(PULL, command="plan").ok
    assert api.writes[4:] == [f"PATCH {AT}/issues/comments/{comment['id']}"]
    assert "**0.65**" in comment["body"]
    assert runner.use(PULL, command="plan").ok  # as GitHub stores it, with other line ends
    assert len(api.writes) == 6


def test_a_plan_without_changes_is_silent(runner: Runner, api: GitHubApi) -> None:
    done = runner.use(PULL, command="plan")
    assert done.ok, done.log
    assert api.comments == {}
    assert "nothing to report" in done.log
    assert done.commands == []


def test_a_comment_is_corrected_when_the_change_is_taken_back(
    runner: Runner, api: GitHubApi
) -> None:
    change(runner)
    runner.use(PULL, command="plan")
    change(runner, "0.7", "0.6")
    runner.use(PULL, command="plan")
    (comment,) = api.comments[5]
    assert "compose plan: no changes" in comment["body"]


def test_our_comment_is_found_on_any_page(runner: Runner, api: GitHubApi) -> None:
    for n in range(130):
        api.comment(5, "somebody", f"comment {n}")
    ours = api.comment(5, BOT, f"{MARK}\nold")
    for n in range(70):
        api.comment(5, "somebody", f"more {n}")
    change(runner)
    assert runner.use(PULL, command="plan").ok
    assert len(api.comments[5]) == 201
    assert "1 change" in ours["body"]


def test_somebody_elses_comment_with_our_marker_is_not_ours(runner: Runner, api: GitHubApi) -> None:
    theirs = api.comment(5, "mallory", f"{MARK}\nall is well, sha256:{'0' * 64}")
    quoted = api.comment(5, BOT, f"see {MARK}")
    change(runner)
    assert runner.use(PULL, command="plan").ok
    assert "all is well" in theirs["body"]
    assert quoted["body"] == f"see {MARK}"
    assert api.comments[5][2]["body"].startswith(MARK)


def test_two_names_are_two_comments(runner: Runner, api: GitHubApi) -> None:
    change(runner)
    runner.use(PULL, command="plan", name="staging")
    runner.use(PULL, command="plan", name="production")
    assert [c["body"].split("\n")[0] for c in api.comments[5]] == [
        "<!-- compose:plan:staging -->",
        "<!-- compose:plan:production -->",
    ]
    assert [s["context"] for s in api.statuses[HEAD]] == [
        "compose/plan/production",
        "compose/plan/staging",
    ]


def test_a_token_without_the_right_says_so(runner: Runner, api: GitHubApi) -> None:
    api.forbidden = {"POST"}
    change(runner)
    log = failed(runner.use(PULL, command="plan"))
    assert "403: Resource not accessible by integration; docs/gitops.md" in log


# --- apply --------------------------------------------------------------------------------


def planned_and_merged(runner: Runner, api: GitHubApi, name: str = "") -> dict[str, Any]:
    """A change whose plan ran on its pull request, was uploaded, and is merged now."""
    change(runner)
    done = runner.use(PULL, command="plan", name=name)
    assert done.ok, done.log
    file = Path(done.outputs["plan"])
    archive = zipped({"plan.json": file.read_bytes(), "plan.md": b""})
    api.artifacts[42] = {done.outputs["artifact"]: archive}
    api.was_merged()
    plan: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return plan


def test_a_merge_applies_the_plan_that_was_reviewed(runner: Runner, api: GitHubApi) -> None:
    plan = planned_and_merged(runner, api)
    assert api.statuses[HEAD][0]["description"].startswith(f"sha256:{plan['digest']} 4 recipes")
    done = runner.use({}, command="apply", expect="approved")
    assert done.ok, done.log
    assert f"approved: the plan of {HEAD[:12]}: sha256:{plan['digest']}" in done.log
    assert done.outputs["summary"] == "3 kept, 1 replaced"
    assert done.outputs["has-changes"] == "true"
    assert rendered(done.summary).tables[0].rows[1][:3] == [ROGUE, "Pixel Rogue", "replaced"]
    again = runner.use({}, command="apply", expect="approved")
    assert (again.ok, again.outputs["has-changes"]) == (True, "false")


def test_a_plan_with_a_name_is_approved_under_that_name_alone(
    runner: Runner, api: GitHubApi
) -> None:
    planned_and_merged(runner, api, name="prod-eu")
    assert [*api.artifacts[42]] == ["compose-plan-prod-eu"]
    other = runner.use({}, command="apply", expect="approved", name="prod-us")
    assert (other.ok, other.outputs["exit-code"]) == (False, "3"), other.log
    done = runner.use({}, command="apply", expect="approved", name="prod-eu")
    assert (done.ok, done.outputs["summary"]) == (True, "3 kept, 1 replaced"), done.log


@pytest.mark.parametrize("command", ["plan", "apply", "drift", "comment"])
def test_a_name_that_could_be_taken_for_another_is_refused(command: str, runner: Runner) -> None:
    log = failed(runner.use(workflow_run(), command=command, name="prod_eu"))
    assert "name: 'prod_eu' is not at most 60 letters, digits and hyphens" in log


def test_an_artifact_of_other_changes_than_the_status_says_is_refused(
    runner: Runner, api: GitHubApi
) -> None:
    plan = planned_and_merged(runner, api)
    change(runner, "0.7", "0.9")  # what somebody wants to slip in
    forged = runner.use({}, command="plan")
    raw = (runner.temp / "compose-files-" / "plan.json").read_bytes()
    raw = raw.replace(forged.outputs["digest"].encode(), plan["digest"].encode())
    api.artifacts[42] = {"compose-plan": zipped({"plan.json": raw})}
    done = runner.use({}, command="apply", expect="approved")
    assert done.outputs["exit-code"] == "3"
    assert "the changes in" in failed(done)
    assert "are not those of sha256:" in done.summary


def test_a_change_that_nobody_reviewed_is_refused(runner: Runner, api: GitHubApi) -> None:
    planned_and_merged(runner, api)
    change(runner, "0.7", "0.9")
    done = runner.use({}, command="apply", expect="approved")
    assert done.outputs["exit-code"] == "3"
    assert "replace Pixel Rogue" in failed(done)


def test_without_an_approved_plan_only_nothing_is_done(runner: Runner, api: GitHubApi) -> None:
    planned_and_merged(runner, api)
    approved = deepcopy((api.merged, api.statuses))
    for takes_away in (_merge, _status, _author, _success, _url):
        api.merged, api.statuses = deepcopy(approved)
        takes_away(api)
        done = runner.use({}, command="apply", expect="approved")
        failed(done)
        assert done.outputs["exit-code"] == ("" if takes_away is _url else "3"), takes_away
    change(runner, "0.7", "0.6")
    for takes_away in (_merge, _status, _author, _success):
        api.merged, api.statuses = deepcopy(approved)
        takes_away(api)
        assert runner.use({}, command="apply", expect="approved").ok, takes_away


def _merge(api: GitHubApi) -> None:
    api.merged.pop()


def _status(api: GitHubApi) -> None:
    api.statuses.clear()


def _author(api: GitHubApi) -> None:
    api.statuses[HEAD][0]["creator"]["login"] = "mallory"


def _success(api: GitHubApi) -> None:
    api.statuses[HEAD][0]["state"] = "failure"


def _url(api: GitHubApi) -> None:
    api.statuses[HEAD][0]["target_url"] = "https://github.test/mallory/models/actions/runs/42"


def test_sigterm_reaches_compose_and_the_next_run_heals(
    runner: Runner, tmp_path: Path, api: GitHubApi
) -> None:
    slow = {"when": "PUT /models/*/train", "times": 4, "delay": 1.5}
    (tmp_path / "server").mkdir()
    (runner.workspace / "compose.lock").unlink()
    library = runner.workspace / "recipes/loras"
    with serving.thread(tmp_path / "server", library, faults=[slow]) as served:
        runner.env |= {**served.env, "COMPOSE_TARGET": served.url}

        def cancel(id: str, process: subprocess.Popen[str]) -> None:
            if id == "compose":
                deadline = time.monotonic() + 60
                while not served.faults:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                runner.cancelled = True
                process.send_signal(signal.SIGTERM)

        done = runner.use(PULL, watch=cancel, command="apply", arguments="--grace 0.3")
        assert done.outputs["exit-code"] == "143", done.log
        assert "stopping; once more to leave at once" in done.log
        assert "interrupted; the next run continues" in done.summary
        runner.cancelled = False
        healed = runner.use(PULL, command="apply", arguments="--grace 0.3")
        assert healed.ok, healed.log
        models = served.ok("GET", "/models", params={"type": "flux.1-composition"})["models"]
        assert len(models) == 4
        assert {model["status"] for model in models} == {"trained"}


# --- drift --------------------------------------------------------------------------------


def test_one_issue_follows_the_drift(runner: Runner, tmp_path: Path, api: GitHubApi) -> None:
    (tmp_path / "server").mkdir()
    (runner.workspace / "compose.lock").unlink()
    with serving.thread(tmp_path / "server", runner.workspace / "recipes/loras") as served:
        runner.env |= {**served.env, "COMPOSE_TARGET": served.url}
        applied = runner.use(command="apply", arguments="--grace 0.3")
        assert applied.ok, applied.log
        assert runner.use(command="drift").outputs["exit-code"] == "0"
        assert api.all_issues == []
        listed = served.ok("GET", "/models", params={"type": "flux.1-composition"})["models"]
        first, second = (str(model["id"]) for model in listed[:2])
        served.ok("PUT", f"/models/{first}", {"name": "Renamed"})
        drifted = runner.use(command="drift")
        assert drifted.ok, drifted.log
        assert drifted.outputs["exit-code"] == "2"
        assert drifted.outputs["summary"] == "1 drifted"
        (issue,) = api.all_issues
        assert issue["title"] == "The target has drifted"
        assert "Renamed" in issue["body"]
        writes = len(api.writes)
        assert runner.use(command="drift").ok
        assert len(api.writes) == writes, "the issue is left alone"
        served.ok("PUT", f"/models/{second}", {"name": "Renamed too"})
        assert runner.use(command="drift").ok
        assert api.writes[writes:] == [f"PATCH {AT}/issues/1"]
        (runner.workspace / "recipes/lost.yaml").write_text(LOST)
        served.ok("PUT", f"/models/{second}", {"name": "Renamed again"})
        blocked = runner.use(
            command="drift"
        )  # one recipe is blocked: the drift is told all the same
        assert (blocked.ok, blocked.outputs["exit-code"]) == (False, "1"), blocked.log
        assert "Renamed again" in api.all_issues[0]["body"]
        (runner.workspace / "recipes/lost.yaml").unlink()
        assert runner.use(command="apply", arguments="--grace 0.3").ok
        (runner.workspace / "recipes/lost.yaml").write_text(LOST)
        assert not runner.use(command="drift").ok
        assert api.all_issues[0]["state"] == "open", "that there is no drift, it can't tell"
        (runner.workspace / "recipes/lost.yaml").unlink()
        assert runner.use(command="drift").ok
        assert [(i["number"], i["state"]) for i in api.all_issues] == [(1, "closed")]
        assert runner.use(command="drift").ok
        assert len(api.writes) == writes + 3
