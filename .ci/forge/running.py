"""Runs `compose` in a step of the action: signals reach it, its talk gets into the log as mere
text, and what came of it into the step's outputs, annotations and summary.
"""

from __future__ import annotations

import json
import os
import re
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

from forge import artifact_name, plan_name
from runner import annotate, obeying_nothing, outputs, say, summary
from texts import code, fenced, shortened, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

COMMANDS = ("validate", "plan", "apply", "drift")
CHANGES = 2  # no failure of a plan or a look for drift
_USAGE = 64
_LAST_LINES = 40
_UNTOUCHED = ("kept", "left alone", "moved", "forgotten", "not started", "blocked", "failed")


@dataclass(frozen=True, slots=True)
class Files:
    """Where a run leaves what others read: the artifact's folder, and what is uploaded of it."""

    folder: Path
    artifact: str  # its name

    @classmethod
    def of(cls, env: Mapping[str, str] = os.environ) -> Files:
        """Those of this job; told apart by the action's input `name`. Raises `ForgeError`."""
        name = plan_name(env.get("INPUT_NAME", ""))
        return cls(Path(env["RUNNER_TEMP"], f"compose-files-{name}"), artifact_name(name))

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"

    @property
    def document(self) -> Path:
        return self.folder / "plan.md"

    def read_plan(self) -> dict[str, Any] | None:
        """The plan's JSON, None if there is no plan."""
        if not self.plan.is_file():
            return None
        parsed = json.loads(self.plan.read_text(encoding="utf-8"))
        assert isinstance(parsed, dict)
        return parsed


@dataclass(frozen=True, slots=True)
class Ran:
    """What `compose` said: on stdout, on stderr (its last lines), and by its exit status."""

    status: int
    out: str
    talk: str


def run(env: Mapping[str, str] = os.environ) -> int:
    """The action's step: `compose` by the inputs; its exit status, but 0 for pending changes."""
    wanted = env["INPUT_COMMAND"]
    files = Files.of(env)
    files.folder.mkdir(parents=True, exist_ok=True)
    for old in (files.plan, files.document):
        old.unlink(missing_ok=True)
    if wanted not in COMMANDS:
        return _refused(f"command: {wanted} is none of {', '.join(COMMANDS)}, comment")
    if wanted == "apply" and re.fullmatch("[0-9a-fA-F]{1,63}", env.get("INPUT_EXPECT", "")):
        return _refused("expect: a workflow names all 64 digits of a digest")
    if not Path(_folder(env)).is_dir():
        return _refused(f"working-directory: {visible(_folder(env))} is no folder")
    try:
        arguments = shlex.split(env.get("INPUT_ARGUMENTS", ""))
    except ValueError as bad:
        return _refused(f"arguments: {bad}")
    with obeying_nothing():
        ran = _compose(_arguments(wanted, files, env, arguments), _folder(env))
    status = _tell(wanted, ran, files)
    return 0 if status == CHANGES else status


def _refused(words: str) -> int:
    """The inputs can't be meant: nothing is run."""
    annotate("error", "compose", words)
    outputs({"exit-code": str(_USAGE)})
    return _USAGE


def _folder(env: Mapping[str, str]) -> str:
    return env.get("INPUT_WORKING_DIRECTORY") or "."


def _arguments(wanted: str, files: Files, env: Mapping[str, str], more: Sequence[str]) -> list[str]:
    """The command line of `compose`; an input that is empty is left out."""

    def given(*names: str) -> list[str]:
        values = ((f"--{name}", env.get(f"INPUT_{name.upper()}", "")) for name in names)
        return [part for flag, value in values if value for part in (flag, value)]

    offline = ["--offline"] if env.get("INPUT_OFFLINE") == "true" else []
    into = ["--json-into", str(files.plan), "--markdown-into", str(files.document)]
    into += ["--summary-into", env["GITHUB_STEP_SUMMARY"]]
    arguments = {
        "validate": ["validate", "-o", "github"],
        "plan": ["plan", "-o", "github", "--detailed-exitcode", *into, *offline, *given("base")],
        "drift": ["plan", "-o", "github", *into],
        "apply": ["apply", "-o", "json", *given("expect", "digest")],
    }[wanted]
    arguments += [] if wanted == "validate" else given("target", "project", "library")
    arguments += more
    paths = [line.strip() for line in env.get("INPUT_PATHS", "").splitlines() if line.strip()]
    return [*arguments, "--", *paths]


def _compose(arguments: list[str], folder: str) -> Ran:
    """Run it: stdout is kept for later, stderr told line by line."""
    last = deque[str](maxlen=_LAST_LINES)
    say(shlex.join(["compose", *arguments]))
    with tempfile.TemporaryFile() as out:
        # Isolated: no module of the working directory, which may be a stranger's, is imported.
        process = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", "-m", "composer", *arguments],
            cwd=folder,
            stdout=out,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        with _passed_on(process):
            assert process.stderr is not None
            for line in process.stderr:
                say(line.rstrip("\n"))
                last.append(line)
            status = process.wait()
        out.seek(0)
        said = out.read().decode("utf-8", "replace")
    return Ran(status, said, "".join(last))


@contextmanager
def _passed_on(process: subprocess.Popen[str]) -> Iterator[None]:
    """A cancelled workflow signals the step's first process alone: us. We pass it on, and wait."""

    def forward(number: int, frame: object) -> None:
        if os.name != "nt":  # there a console's signal reaches all of its processes
            process.send_signal(number)

    before = {n: signal.signal(n, forward) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- what came of it ---------------------------------------------------------------------


def _tell(wanted: str, ran: Ran, files: Files) -> int:
    """Annotations, summary and outputs; the exit status, which for drift is ours to find."""
    report = _report(ran) if wanted == "apply" else None
    if report is not None:
        _tell_report(report)
    elif wanted != "apply":
        for line in ran.out.splitlines():
            say(line)
    plan = files.read_plan()
    status = CHANGES if wanted == "drift" and ran.status == 0 and drifted(plan) else ran.status
    if status not in (0, CHANGES) and report is None:
        _tell_failure(wanted, ran, files)
    counts = _counts(report) if report is not None else _counts_of(wanted, plan, status)
    outputs(
        {
            "has-changes": _has_changes(wanted, plan, report),
            "digest": (plan or {}).get("digest") or "",
            "exit-code": str(status),
            "summary": counts,
            "plan": str(files.plan) if plan is not None else "",
            "document": str(files.document) if files.document.is_file() else "",
            "artifact": files.artifact,
        }
    )
    return status


def drifted(plan: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The actions of a plan that meet with drift."""
    return [action for action in (plan or {}).get("actions", []) if action.get("drift")]


def _has_changes(
    wanted: str, plan: Mapping[str, Any] | None, report: Mapping[str, Any] | None
) -> str:
    if report is not None:
        touched = (item["state"] not in _UNTOUCHED for item in report["outcomes"])
        return "true" if any(touched) else "false"
    if plan is None:
        return ""
    return "true" if (drifted(plan) if wanted == "drift" else plan["hasChanges"]) else "false"


def _counts_of(wanted: str, plan: Mapping[str, Any] | None, status: int) -> str:
    if wanted == "drift" and plan is not None:
        return f"{len(drifted(plan))} drifted"
    if plan is not None:
        return str(plan["summary"])
    return "no problems" if status == 0 else f"exit status {status}"


def _tell_failure(wanted: str, ran: Ran, files: Files) -> None:
    """An exit status that nothing has explained yet is explained by what compose said last."""
    talk = shortened(visible(ran.talk.strip()), 10_000)
    if not ran.out.strip():
        last = " ".join(talk.splitlines()[-2:]) or "it said nothing"
        annotate("error", f"compose {wanted}", f"exit status {ran.status}: {last}")
    if not files.document.is_file():
        said = fenced(talk) if talk else "The annotations say what is wrong.\n"
        summary(f"## compose {wanted}: exit status {ran.status}\n\n{said}\n")


def _report(ran: Ran) -> dict[str, Any] | None:
    """What `compose apply -o json` printed; nothing, if it was refused."""
    parsed = json.loads(ran.out) if ran.out.strip() else None
    assert parsed is None or isinstance(parsed, dict)
    return parsed


def _tell_report(report: Mapping[str, Any]) -> None:
    rows = []
    for item in report["outcomes"]:
        said = item.get("error", "")
        if item["state"] in ("failed", "blocked"):
            words = f"{item['name']}: {item['state']}: {said}".rstrip(": ")
            annotate("error", "compose apply", visible(words), item["recipe"])
        cells = [item["recipe"], item["name"], item["state"], item.get("composition", ""), said]
        rows.append("| " + " | ".join(code(cell) if cell else "" for cell in cells) + " |\n")
    head = "| recipe | name | outcome | composition | why |\n|---|---|---|---|---|\n"
    title = f"## compose apply: {_counts(report)}\n\n"
    summary(shortened(title + (head + "".join(rows) if rows else ""), 250_000) + "\n")


def _counts(report: Mapping[str, Any]) -> str:
    states = [str(item["state"]) for item in report["outcomes"]]
    said = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    said += ["interrupted; the next run goes on"] if report["interrupted"] else []
    return ", ".join(said) or "nothing to do"
