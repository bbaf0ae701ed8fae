"""Runs `compose` in a step of the action, and writes what a GitHub runner reads.

Signals reach `compose`, its messages go to the log as plain text, and the result becomes the step's
outputs, annotations and summary.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from composer.errors import ExitStatus
from composer.forge.base import artifact_name, drifted, plan_name, read_plan
from composer.output.findings import command as workflow_command
from composer.output.markdown import cell, fenced
from composer.text import shorten, visible, visible_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

COMMANDS = ("validate", "plan", "apply", "drift")
CHANGES = 2  # the exit status of a plan with changes, or of a check that found drift
_LAST_LINES = 40  # of stderr, kept for an error message
_MAX_MESSAGES, _MAX_SUMMARY = 10_000, 250_000  # characters
_UNTOUCHED = ("kept", "left alone", "moved", "forgotten", "not started", "blocked", "failed")


@dataclass(frozen=True, slots=True)
class Files:
    """Where a run writes the plan for later steps, and the files that the runner reads.

    `artifact` is the name of the artifact to upload the plan under.
    """

    folder: Path
    artifact: str
    outputs: Path
    summary: Path

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Files:
        """Those of this job, by the action's input `name`. Raises `ForgeError`."""
        name = plan_name(env.get("INPUT_NAME", ""))
        folder = Path(env["RUNNER_TEMP"], f"compose-files-{name}")
        outputs, summary = Path(env["GITHUB_OUTPUT"]), Path(env["GITHUB_STEP_SUMMARY"])
        return cls(folder, artifact_name(name), outputs, summary)

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def document(self) -> Path:
        return self.folder / "plan.md"

    @property
    def previews(self) -> Path:
        return self.folder / "previews"


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished `compose`: its exit status, its stdout, and the last lines of its stderr."""

    status: int
    out: str
    messages: str


def run(env: Mapping[str, str]) -> int:
    """Run `compose` as the inputs say; returns its exit status, 0 for pending changes."""
    command = env["INPUT_COMMAND"]
    files = Files.from_env(env)
    files.folder.mkdir(parents=True, exist_ok=True)
    for old in (files.plan, files.document):
        old.unlink(missing_ok=True)
    if command not in COMMANDS:
        return _refuse(files, f"command: {command} is not one of {', '.join(COMMANDS)}, comment")
    if command == "apply" and re.fullmatch("[0-9a-fA-F]{1,63}", env.get("INPUT_EXPECT", "")):
        return _refuse(files, "expect: give all 64 digits of the digest")
    folder = env.get("INPUT_WORKING_DIRECTORY") or "."
    if not Path(folder).is_dir():
        return _refuse(files, f"working-directory: {visible(folder)} is not a folder")
    try:
        arguments = shlex.split(env.get("INPUT_ARGUMENTS", ""))
    except ValueError as bad:
        return _refuse(files, f"arguments: {bad}")
    with commands_stopped():
        completed = compose(_arguments(command, files, env, arguments), folder)
    status = _report(command, completed, files)
    return 0 if status == CHANGES else status


def _refuse(files: Files, message: str) -> int:
    """The inputs are invalid: run nothing."""
    annotate("error", "compose", message)
    set_outputs(files.outputs, {"exit-code": str(ExitStatus.USAGE)})
    return ExitStatus.USAGE


def _arguments(
    command: str, files: Files, env: Mapping[str, str], more: Sequence[str]
) -> list[str]:
    """The command line of `compose`; empty inputs are left out."""
    offline = ["--offline"] if env.get("INPUT_OFFLINE") == "true" else []
    into = ["--json-into", str(files.plan), "--markdown-into", str(files.document)]
    into += ["--summary-into", str(files.summary)]
    base = given(env, "base")
    arguments = {
        "validate": ["validate", "-o", "github"],
        "plan": ["plan", "-o", "github", "--detailed-exitcode", *into, *offline, *base],
        "drift": ["plan", "-o", "github", *into],
        "apply": ["apply", "-o", "json", *given(env, "expect", "digest")],
    }[command]
    arguments += [] if command == "validate" else given(env, "target", "project", "library")
    return [*arguments, *more, "--", *paths(env)]


def given(env: Mapping[str, str], *names: str) -> list[str]:
    """Those of the action's inputs that are not empty, as options of these names."""
    values = ((f"--{name}", env.get(f"INPUT_{name.upper()}", "")) for name in names)
    return [part for flag, value in values if value for part in (flag, value)]


def paths(env: Mapping[str, str]) -> list[str]:
    """The action's input `paths`: one per line."""
    return [line.strip() for line in env.get("INPUT_PATHS", "").splitlines() if line.strip()]


def compose(arguments: Sequence[str], folder: str) -> Completed:
    """Run it; stderr goes to the log line by line, stdout is returned."""
    last = deque[str](maxlen=_LAST_LINES)
    say(shlex.join(["compose", *arguments]))
    with tempfile.TemporaryFile() as out:
        # Isolated: the working directory may be a stranger's; no module in it is imported.
        process = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", "-m", "composer", *arguments],
            cwd=folder,
            stdout=out,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        with _signals_forwarded(process):
            assert process.stderr is not None
            for line in process.stderr:
                say(line.rstrip("\n"))
                last.append(line)
            status = process.wait()
        out.seek(0)
        stdout = out.read().decode("utf-8", "replace")
    return Completed(status, stdout, "".join(last))


@contextmanager
def _signals_forwarded(process: subprocess.Popen[str]) -> Iterator[None]:
    """Forward signals: a cancelled workflow signals only the step's first process, this one."""

    def forward(number: int, frame: object) -> None:
        if os.name != "nt":  # there a console's signal reaches all of its processes
            process.send_signal(number)

    before = {n: signal.signal(n, forward) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- the result --------------------------------------------------------------------------


def _report(command: str, completed: Completed, files: Files) -> int:
    """Write annotations, summary and outputs; returns the exit status, 2 if there is drift."""
    applied = _applied(completed) if command == "apply" else None
    if applied is not None:
        _append(files.summary, _apply_summary(applied))
    elif command != "apply":
        for line in completed.out.splitlines():
            say(line)
    plan = read_plan(files.plan)
    status = completed.status
    if command == "drift" and status == 0 and drifted(plan):
        status = CHANGES
    if status not in (0, CHANGES) and applied is None:
        _report_failure(command, completed, files)
    counts = _counts(applied) if applied is not None else _plan_counts(command, plan, status)
    set_outputs(
        files.outputs,
        {
            "has-changes": _has_changes(command, plan, applied),
            "digest": (plan or {}).get("digest") or "",
            "exit-code": str(status),
            "summary": counts,
            "plan": str(files.plan) if plan is not None else "",
            "document": str(files.document) if files.document.is_file() else "",
            "artifact": files.artifact,
        },
    )
    return status


def _has_changes(
    command: str, plan: Mapping[str, Any] | None, applied: Mapping[str, Any] | None
) -> str:
    if applied is not None:
        touched = (item["state"] not in _UNTOUCHED for item in applied["outcomes"])
        return "true" if any(touched) else "false"
    if plan is None:
        return ""
    return "true" if (drifted(plan) if command == "drift" else plan["hasChanges"]) else "false"


def _plan_counts(command: str, plan: Mapping[str, Any] | None, status: int) -> str:
    if command == "drift" and plan is not None:
        return f"{len(drifted(plan))} drifted"
    if plan is not None:
        return str(plan["summary"])
    return "no problems" if status == 0 else f"exit status {status}"


def _report_failure(command: str, completed: Completed, files: Files) -> None:
    """Explain an exit status that nothing else explains by the last messages of `compose`."""
    messages = visible_lines(completed.messages.strip())
    if not completed.out.strip():
        last = " ".join(messages.splitlines()[-2:]) or "it printed no message"
        annotate("error", f"compose {command}", f"exit status {completed.status}: {last}")
    if not files.document.is_file():
        shown = fenced(shorten(messages, _MAX_MESSAGES)) if messages else "See the annotations.\n"
        title = f"## compose {command}: exit status {completed.status}"
        _append(files.summary, f"{title}\n\n{shown}\n")


def _applied(completed: Completed) -> dict[str, Any] | None:
    """The report that `compose apply -o json` printed; None if it was refused."""
    parsed = json.loads(completed.out) if completed.out.strip() else None
    assert parsed is None or isinstance(parsed, dict)
    return parsed


def _apply_summary(applied: Mapping[str, Any]) -> str:
    """The table of outcomes as Markdown; annotates those that failed or are blocked."""
    rows = []
    for item in applied["outcomes"]:
        error = item.get("error", "")
        if item["state"] in ("failed", "blocked"):
            message = f"{item['name']}: {item['state']}: {error}".rstrip(": ")
            annotate("error", "compose apply", visible(message), item["recipe"])
        cells = [item["recipe"], item["name"], item["state"], item.get("composition", ""), error]
        rows.append("| " + " | ".join(cell(text) if text else "" for text in cells) + " |\n")
    head = "| recipe | name | outcome | composition | why |\n|---|---|---|---|---|\n"
    title = f"## compose apply: {_counts(applied)}\n\n"
    return shorten(title + (head + "".join(rows) if rows else ""), _MAX_SUMMARY) + "\n"


def _counts(applied: Mapping[str, Any]) -> str:
    states = [str(item["state"]) for item in applied["outcomes"]]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    counts += ["interrupted; the next run continues"] if applied["interrupted"] else []
    return ", ".join(counts) or "nothing to do"


# --- what the runner reads ---------------------------------------------------------------


def say(line: str) -> None:
    """Write a line to the log and flush it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def annotate(kind: str, title: str, message: str, file: str = "") -> None:
    """Show an error, a warning or a notice, beside a file if one is given."""
    place = {"file": file} if file else {}
    say(workflow_command(kind, message, **place, title=title))


@contextmanager
def commands_stopped() -> Iterator[None]:
    """Within this, the runner treats no line of the log as a command, whoever wrote it."""
    token = secrets.token_hex(16)
    say(f"::stop-commands::{token}")
    try:
        yield
    finally:
        say(f"::{token}::")


def set_outputs(file: Path, values: Mapping[str, str]) -> None:
    """Set outputs of the step. A value may hold any text: nobody can guess its delimiter."""
    end = secrets.token_hex(16)
    _append(file, "".join(f"{name}<<{end}\n{text}\n{end}\n" for name, text in values.items()))


def _append(file: Path, text: str) -> None:
    with file.open("a", encoding="utf-8", newline="\n") as opened:
        opened.write(text)
