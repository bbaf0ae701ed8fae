"""The action's own steps in a simulated runner, against a server that plays GitHub's API."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import serving
from support.action_runner import Runner, action, ready_made
from support.cli import compose, edit, samples
from support.documents import rendered
from support.github_api import AT, BOT, HEAD, GitHubApi, pull_request, workflow_run, zipped

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from support.action_runner import Done

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the runner's bash is another on Windows")

ROGUE = "recipes/pixel-rogue.yaml"
PULL = pull_request()
MARK = "<!-- compose:plan: -->"


@pytest.fixture(scope="session")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ready_made(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def api() -> Iterator[GitHubApi]:
    with GitHubApi() as server:
        yield server


@pytest.fixture(scope="session")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose recipes have all been applied to the local target."""
    project = samples(tmp_path_factory.mktemp("applied") / "project")
    assert compose("apply", at=project).status == 0
    return project


@pytest.fixture
def runner(tmp_path: Path, api: GitHubApi, venv: Path, applied: Path) -> Runner:
    """A job on a copy of that project."""
    temp, workspace = tmp_path / "temp", tmp_path / "workspace"
    shutil.copytree(applied, workspace)
    temp.mkdir()
    (temp / "compose-venv-core").symlink_to(venv)
    return Runner(workspace, temp, env=api.env)


LOST = "name: Lost\nconcepts: [{name: Nobody Knows It, scale: 0.5}]\n"


def change(runner: Runner, before: str = "0.6", after: str = "0.7") -> None:
    edit(runner.workspace / ROGUE, f"scale: {before}\n", f"scale: {after}\n")


def failed(done: Done) -> str:
    assert not done.ok, done.log
    return done.log


# --- the file itself ---------------------------------------------------------------------


def test_expressions_stand_in_no_script() -> None:
    for step in action()["runs"]["steps"]:
        assert "${{" not in step["run"], step["id"]
        assert step["run"].startswith("exec "), "a signal reaches only the first process"


def test_only_steps_that_talk_to_github_get_the_token() -> None:
    steps = action()["runs"]["steps"]
    assert [s["id"] for s in steps if "TOKEN" in s["env"]] == ["comment", "approve", "report"]


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


# --- plan: outputs, annotations, summary --------------------------------------------------


def test_outputs_summary_and_annotations(runner: Runner) -> None:
    change(runner)
    done = runner.use({}, command="plan")
    plan = json.loads((runner.temp / "compose-files-" / "plan.json").read_text())
    assert done.outputs == {
        "has-changes": "true",
        "digest": plan["digest"],
        "exit-code": "2",
        "summary": "4 recipes: 1 to replace, 3 up to date.",
        "plan": str(runner.temp / "compose-files-" / "plan.json"),
        "document": str(runner.temp / "compose-files-" / "plan.md"),
        "artifact": "compose-plan",
    }
    assert rendered(done.summary).outline[0] == "h2 compose plan: 1 change"
    (notice,) = done.commands
    assert notice.startswith(f"::notice file={ROGUE},")
    assert done.exported == ""


def test_invalid_recipes_are_annotated_commented_and_fail(runner: Runner, api: GitHubApi) -> None:
    edit(runner.workspace / ROGUE, "scale: 0.6\n", "scale: 1.7\n")
    done = runner.use(PULL, command="plan")
    assert not done.ok
    assert (done.outputs["exit-code"], done.outputs["has-changes"]) == ("65", "")
    assert done.commands[0].startswith(f"::error file={ROGUE},line=")
    assert ROGUE in done.summary
    assert ROGUE in api.comments[5][0]["body"]
    assert HEAD not in api.statuses


def test_validate(runner: Runner, api: GitHubApi) -> None:
    good = runner.use(PULL, command="validate")
    assert (good.ok, good.outputs["summary"], good.commands) == (True, "no problems", [])
    edit(runner.workspace / ROGUE, "scale: 0.6\n", "scale: 1.7\n")
    bad = runner.use(PULL, command="validate")
    assert (bad.ok, bad.outputs["exit-code"]) == (False, "65")
    assert bad.summary.startswith("## compose validate: exit status 65\n")
    assert bad.commands[0].startswith(f"::error file={ROGUE},line=")
    assert api.seen == []


def test_what_only_the_talk_says_becomes_an_error(runner: Runner) -> None:
    done = runner.use(PULL, command="plan", target="https://127.0.0.1:9/v1")
    assert not done.ok
    (error,) = [line for line in done.commands if "compose plan" in line]
    assert "exit status 77" in error
    assert "compose plan: exit status 77" in done.summary


def test_an_unknown_command_is_refused(runner: Runner) -> None:
    assert "frobnicate is none of" in failed(runner.use(PULL, command="frobnicate"))


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"command": "plan", "arguments": "--upgrade 'x"}, "arguments: No closing quotation"),
        (
            {"command": "plan", "working_directory": "nope"},
            "working-directory: nope is not a folder",
        ),
        ({"command": "apply", "expect": "12226ad7"}, "all 64 digits"),
    ],
)
def test_inputs_that_cannot_be_meant_are_a_line(
    runner: Runner, inputs: dict[str, str], said: str
) -> None:
    runner.use(command="plan")  # what it left is none of this run's
    done = runner.use(**inputs)
    assert said in failed(done)
    assert not list(runner.temp.glob("compose-files-*/plan.*"))
    assert "Traceback" not in done.log
    assert done.outputs["exit-code"] == "64"
    assert sum(line.startswith("::error") for line in done.commands) == 1


def test_an_unknown_extra_is_refused(runner: Runner) -> None:
    log = failed(runner.use(PULL, command="plan", extra="local]; touch x #"))
    assert "extra: it must be local, serve, or empty" in log


# --- nobody's text is obeyed --------------------------------------------------------------


def test_inputs_are_words_not_shell(runner: Runner) -> None:
    hostile = "$(touch pwned)`touch pwned`'; touch pwned; '\"; touch pwned #"
    for name in ("paths", "target", "project", "base", "expect", "name"):
        runner.use(PULL, command="plan", **{name: hostile})
    assert not list(runner.workspace.rglob("pwned"))
    assert not list(runner.temp.rglob("pwned"))


def test_modules_of_the_checkout_are_not_imported(runner: Runner) -> None:
    for name in ("json", "composer", "runpy", "venv", "sitecustomize"):
        (runner.workspace / f"{name}.py").write_text("open('pwned', 'w')\n", encoding="utf-8")
    assert runner.use(PULL, command="plan").ok
    runner.use(PULL, command="apply", expect="approved")
    runner.use(workflow_run(), command="comment")
    assert not (runner.workspace / "pwned").exists()


def test_no_name_is_an_order_to_the_runner(runner: Runner, api: GitHubApi) -> None:
    name = "::error::##[add-mask]x%0A @team <img>"
    edit(runner.workspace / ROGUE, "name: Pixel Rogue", f'name: "{name}"')
    change(runner)
    done = runner.use(PULL, command="apply")
    assert done.ok, done.log
    assert done.commands == []
    assert rendered(done.summary).odd == []


# --- a fork's pull request ----------------------------------------------------------------


def test_a_fork_gets_a_plan_without_any_secret(runner: Runner, api: GitHubApi) -> None:
    change(runner)
    env = {name: value for name, value in runner.env.items() if name.startswith("GITHUB_")}
    assert not [name for name in env if "TOKEN" in name or "SCENARIO" in name]
    fork = pull_request(fork=True)
    job = Runner(runner.workspace, runner.temp, env=env)
    done = job.use(fork, command="plan", offline="true", token="")
    assert (done.ok, api.seen) == (True, []), done.log
    assert (done.outputs["digest"], done.outputs["exit-code"]) == ("", "2")
    assert "Offline" in done.summary
    assert job.use(fork, command="validate", token="").ok


def test_a_read_only_token_writes_nothing_on_a_fork(runner: Runner, api: GitHubApi) -> None:
    change(runner)
    assert runner.use(pull_request(fork=True), command="plan", offline="true").ok
    assert api.seen == []


def stranger(runner: Runner, api: GitHubApi, archive: bytes, **event: Any) -> Done:
    """Use `command: comment` after a run of a fork that left this artifact."""
    api.artifacts[99] = {"compose-plan": archive}
    branch, repo = "stranger:topic&state=all", {"id": 8}
    api.pulls = [
        {"number": 6, "head": {"label": branch, "sha": HEAD, "repo": repo}},
        {"number": 7, "head": {"label": branch, "sha": "f" * 40, "repo": repo}},
        {"number": 8, "head": {"label": branch, "sha": HEAD, "repo": {"id": 9}}},
    ]
    return runner.use(workflow_run(**event), command="comment")


def test_the_second_workflow_comments_on_the_pull_request_of_the_event(
    runner: Runner, api: GitHubApi
) -> None:
    said = "## compose plan: 1 change\n\n5 is the number\n"
    archive = zipped({"plan.md": said.encode(), "number": b"5", "plan.json": b"{}"})
    done = stranger(runner, api, archive)
    assert done.ok, done.log
    assert [*api.comments] == [6]
    assert said in api.comments[6][0]["body"]
    assert "nobody verified it" in api.comments[6][0]["body"]
    assert done.logs.keys() == {"install", "comment"}, "nothing is composed"
    assert stranger(runner, api, archive).ok
    assert api.writes == [f"POST {AT}/issues/6/comments"]


def test_a_fork_cannot_hide_its_pull_request_by_claiming_no_changes(
    runner: Runner, api: GitHubApi
) -> None:
    archive = zipped({"plan.md": b"## compose plan: no changes\n\nall as it was\n"})
    assert stranger(runner, api, archive).ok
    assert "nobody verified it" in api.comments[6][0]["body"]


def test_a_run_that_left_no_artifact_is_a_notice(runner: Runner, api: GitHubApi) -> None:
    stranger(runner, api, zipped({"plan.md": b"x"}))
    done = runner.use(workflow_run(), command="comment", name="staging")
    assert done.ok, done.log
    (notice,) = done.commands
    assert notice.startswith("::notice ")
    assert "no artifact compose-plan-staging" in notice


@pytest.mark.parametrize("event", [{"repository": 7}, {"event": "push"}])
def test_other_runs_are_none_of_a_fork(
    event: dict[str, Any], runner: Runner, api: GitHubApi
) -> None:
    assert stranger(runner, api, zipped({"plan.md": b"x"}), **event).ok
    assert api.seen == []


HOSTILE_TEXTS = {
    "markdown": "# @everyone\n\n[click](https://evil.test) <img src=x onerror=y> #1 GH-1",
    "the end of the block": "```\n@everyone [click](https://evil.test)\n```",
    "a long fence": "`````````\n@everyone\n~~~~~~\n@everyone",
    "our marker": f"{MARK}\nplan sha256:{'0' * 64}",
    "a comment that hides ours": "<!-- \n",
    "control characters": "\x1b[31mred\x00\x08 \u202egnp.exe\u200b \x85 \u2028 ::error::x",
    "line ends": "a\r\nb\rc",
    "an order to the runner": "::set-output name=x::y\n##[add-mask]x",
    "a quick action": "/close\n/merge",
    "too long": "x" * 200_000,
    "many lines": "@everyone\n" * 20_000,
}


@pytest.mark.parametrize("text", HOSTILE_TEXTS.values(), ids=[*HOSTILE_TEXTS])
def test_a_hostile_text_is_shown_as_text(text: str, runner: Runner, api: GitHubApi) -> None:
    done = stranger(runner, api, zipped({"plan.md": text.encode()}))
    assert done.ok, done.log
    assert done.commands == []
    (comment,) = api.comments[6]
    assert len(comment["body"]) <= 60_000
    document = rendered(comment["body"])
    assert [odd.split()[0] for odd in document.odd] == ["html_block", "fence", repr(HEAD)]
    assert not any(ord(c) < 32 and c != "\n" for c in comment["body"])
    assert not set("\u202e\u200b\x85\u2028") & set(comment["body"])


def bomb() -> bytes:
    return zipped({"plan.md": b"\0" * 300_000_000})


HOSTILE_ARCHIVES = {
    "no archive": b"<html>",
    "nothing": b"",
    "another file": zipped({"../plan.md": b"x", "/plan.md": b"x", "plan.md/x": b"x"}),
    "not UTF-8": zipped({"plan.md": b"\xff\xfe"}),
    "cut off": zipped({"plan.md": b"x" * 1000})[:-30],
    "torn": zipped({"plan.md": os.urandom(1000)}).replace(b"plan.md", b"plan.nd", 1),
    "nothing but backticks": zipped({"plan.md": b"`" * 50_000}),
    "too large": zipped({"plan.md": os.urandom(600_000)}),
}


@pytest.mark.parametrize("archive", [*HOSTILE_ARCHIVES.values()], ids=[*HOSTILE_ARCHIVES])
def test_a_hostile_archive_is_refused(archive: bytes, runner: Runner, api: GitHubApi) -> None:
    done = stranger(runner, api, archive)
    assert "Traceback" not in failed(done)
    assert len(done.commands) == 1
    assert api.writes == []


def test_a_bomb_is_read_no_further_than_allowed(runner: Runner, api: GitHubApi) -> None:
    assert "more than 262,144 bytes" in failed(stranger(runner, api, bomb()))


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


@pytest.mark.parametrize("missing", ["merge", "status", "author", "failed", "url"])
def test_without_an_approved_plan_only_nothing_is_done(
    missing: str, runner: Runner, api: GitHubApi
) -> None:
    planned_and_merged(runner, api)
    status = api.statuses[HEAD][0]
    if missing == "merge":
        api.merged.pop()
    elif missing == "status":
        api.statuses.clear()
    elif missing == "author":
        status["creator"]["login"] = "mallory"
    elif missing == "failed":
        status["state"] = "failure"
    else:
        status["target_url"] = "https://github.test/mallory/models/actions/runs/42"
    done = runner.use({}, command="apply", expect="approved")
    failed(done)
    assert done.outputs["exit-code"] == ("" if missing == "url" else "3")
    change(runner, "0.7", "0.6")
    if missing != "url":
        assert runner.use({}, command="apply", expect="approved").ok


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
