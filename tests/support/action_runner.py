"""Runs `action.yml` as GitHub's runner does: expressions, files, bash, and status.

Each step is a script file that `bash --noprofile --norc -eo pipefail` runs, with the environment of
the job and nothing else, and with files for outputs, summary and environment.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml
from support.cli import REPO, edit

from composer.files.state import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

TIMEOUT = 600  # seconds, of a step, which may install packages on a busy machine
_TOKEN = re.compile(
    r"\s*('(?:[^']|'')*'|&&|\|\||==|!=|!|,|\(|\)|format(?=\()|[a-z]+\(\)|[A-Za-z][\w.-]*)"
)
_WORDS = {"&&": "and", "||": "or", "!": "not", "format": "format"}
_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)


def action() -> dict[str, Any]:
    """The parsed `action.yml`."""
    parsed: dict[str, Any] = yaml.safe_load((REPO / "action.yml").read_text(encoding="utf-8"))
    return parsed


@dataclass
class Done:
    """The result of using the action."""

    ok: bool = True
    outputs: dict[str, str] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)  # of the steps that ran, by id
    summary: str = ""
    exported: str = ""  # the text that steps wrote to GITHUB_ENV and GITHUB_PATH

    @property
    def log(self) -> str:
        return "".join(self.logs.values())

    @property
    def commands(self) -> list[str]:
        """The lines that the runner would obey: workflow commands outside of stop-commands."""
        obeyed, stopped = [], ""
        for line in map(str.strip, self.log.splitlines()):
            if stopped:
                stopped = "" if line == f"::{stopped}::" else stopped
            elif line.startswith("::stop-commands::"):
                stopped = line.removeprefix("::stop-commands::")
            elif line.startswith("::") or "##[" in line:
                obeyed.append(line)
        return obeyed


@dataclass
class Runner:
    """A job on a checkout. `env` holds what its workflow adds to the runner's variables."""

    workspace: Path
    temp: Path
    env: dict[str, str] = field(default_factory=dict)
    cancelled: bool = False

    def use(
        self,
        event: Mapping[str, Any] | None = None,
        watch: Callable[[str, subprocess.Popen[str]], None] = lambda id, process: None,
        **inputs: str,
    ) -> Done:
        """Use the action with these inputs (`_` for `-`); `watch` gets each step's process."""
        described = action()
        given = {name.replace("_", "-"): value for name, value in inputs.items()}
        assert given.keys() <= described["inputs"].keys()
        context = {"github.token": "the-jobs-token"}
        for name, spec in described["inputs"].items():
            context[f"inputs.{name}"] = given.get(name, self._filled(spec.get("default"), context))
        done = Done()
        for step in described["runs"]["steps"]:
            condition = step.get("if", "success()")
            if self._holds(condition, context, ok=done.ok):
                self._run(step, context, done, event or {}, watch)
        done.outputs = {
            name: self._filled(spec["value"], context)
            for name, spec in described["outputs"].items()
        }
        return done

    def _run(
        self,
        step: Mapping[str, Any],
        context: dict[str, str],
        done: Done,
        event: Mapping[str, Any],
        watch: Callable[[str, subprocess.Popen[str]], None],
    ) -> None:
        assert step["shell"] == "bash"
        place = self.temp / "runner" / uuid.uuid4().hex
        place.mkdir(parents=True)
        names = ("script", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV", "GITHUB_PATH")
        files = {name: place / name for name in names}
        for file in files.values():
            file.touch()
        files["script"].write_text(step["run"], encoding="utf-8")
        (place / "event.json").write_text(json.dumps(event), encoding="utf-8")
        process = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(files["script"])],
            cwd=self.workspace,
            env=self._environment(step, context, files, place / "event.json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        watch(step["id"], process)
        done.logs[step["id"]], _ = process.communicate(timeout=TIMEOUT)
        done.ok = done.ok and process.returncode == 0
        done.summary += files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8")
        done.exported += files["GITHUB_ENV"].read_text() + files["GITHUB_PATH"].read_text()
        for name, value in _outputs(files["GITHUB_OUTPUT"].read_text(encoding="utf-8")).items():
            context[f"steps.{step['id']}.outputs.{name}"] = value

    def _environment(
        self,
        step: Mapping[str, Any],
        context: Mapping[str, str],
        files: Mapping[str, Path],
        event: Path,
    ) -> dict[str, str]:
        tools = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        return {
            "PATH": tools,
            "HOME": os.environ["HOME"],
            VARIABLE: os.environ[VARIABLE],
            "LANG": "C.UTF-8",
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(REPO),
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_EVENT_PATH": str(event),
            "RUNNER_TEMP": str(self.temp),
            **{name: str(path) for name, path in files.items() if name != "script"},
            **self.env,
            **{name: self._filled(text, context) for name, text in step.get("env", {}).items()},
        }

    def _filled(self, text: str | None, context: Mapping[str, str]) -> str:
        """The text with its expressions replaced by their values."""
        return _EXPRESSION.sub(lambda m: self._value(m[1], context, ok=True), text or "")

    def _holds(self, condition: str, context: Mapping[str, str], *, ok: bool) -> bool:
        match = _EXPRESSION.fullmatch(condition.strip())
        inner = match[1] if match else condition
        if not re.search(r"(success|failure|always|cancelled)\(\)", inner):
            inner = f"success() && ({inner})"
        return bool(self._value(inner, context, ok=ok))

    def job_runs(self, job: Mapping[str, Any], context: dict[str, str]) -> bool:
        """Whether the `if` of a workflow's job holds."""
        return self._holds(job["if"], context, ok=True)

    def _value(self, expression: str, context: Mapping[str, str], *, ok: bool) -> Any:
        parts, rest = [], expression.strip()
        while rest:
            match = _TOKEN.match(rest)
            assert match, f"unsupported expression: {rest}"
            parts.append(_translated(match[1]))
            rest = rest[match.end() :].strip()
        functions = {
            "get": lambda name: context.get(name, ""),
            "success": lambda: ok and not self.cancelled,
            "cancelled": lambda: self.cancelled,
            "format": str.format,
        }
        return eval(" ".join(parts), {"__builtins__": {}}, functions)


def _translated(token: str) -> str:
    if token.startswith("'"):
        return repr(token[1:-1].replace("''", "'"))
    if token in _WORDS or not token[0].isalpha() or token.endswith("()"):
        return _WORDS.get(token, token)
    return f"get({token!r})"


def _outputs(text: str) -> dict[str, str]:
    """A file of outputs: `name=value`, or `name<<END`, lines, `END`."""
    values, lines = {}, iter(text.splitlines())
    for line in lines:
        name, heredoc, end = line.partition("<<")
        if not heredoc:
            name, _, value = line.partition("=")
            values[name] = value
            continue
        value_lines = []
        for inner in lines:
            if inner == end:
                break
            value_lines.append(inner)
        values[name] = "\n".join(value_lines)
    return values


def ready_made(folder: Path) -> Path:
    """A virtual environment with compose, in place of the one that the first step installs."""
    venv = folder / "venv"
    subprocess.run([sys.executable, "-I", "-m", "venv", "--without-pip", str(venv)], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    paths = [str(REPO), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    (site / "compose.pth").write_text("\n".join(paths) + "\n", encoding="utf-8")
    (venv / "complete").touch()
    return venv


def change(runner: Runner, before: str = "0.6", after: str = "0.7") -> None:
    """Change a scale in a recipe of the job's checkout."""
    edit(runner.workspace / "recipes/pixel-rogue.yaml", f"scale: {before}\n", f"scale: {after}\n")


def failed(done: Done) -> str:
    """The log of a use that failed."""
    assert not done.ok, done.log
    return done.log
