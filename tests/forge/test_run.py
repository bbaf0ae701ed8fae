"""The action's step that runs `compose`: its outputs, annotations and summary, and its inputs."""

from __future__ import annotations

import json
import os

import pytest
from support.action_runner import Runner, change, failed
from support.cli import edit
from support.documents import rendered
from support.github_api import HEAD, GitHubApi, pull_request, workflow_run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the runner's bash is another on Windows")

ROGUE = "recipes/pixel-rogue.yaml"
PULL = pull_request()

# --- plan: outputs, annotations, summary --------------------------------------------------


def test_outputs_summary_and_annotations(runner: Runner) -> None:
    change(runner)
    done = runner.use({}, command="plan")
    plan = json.loads((runner.temp / "compose-files-" / "plan.json").read_text())
    assert done.outputs == {
        "has-changes": "true",
        "digest": plan["digest"],
        "exit-code": "2",
        "summary": "4 recipes: 1 to replace, 3 unchanged.",
        "plan": str(runner.temp / "compose-files-" / "plan.json"),
        "document": str(runner.temp / "compose-files-" / "plan.md"),
        "artifact": "compose-plan",
        "previews": "",
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
    assert "frobnicate is not one of" in failed(runner.use(PULL, command="frobnicate"))


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
    assert "extra: it must be local, serve, preview, render, or empty" in log


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
