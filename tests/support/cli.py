"""Running `compose` in tests: in this process for speed, or in one of its own for signals."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import jsonschema
from support.state import state_of

from composer.cli.main import guarded
from composer.files.schemas import schema
from composer.targets.local.service import Engine
from composer.targets.scenario import service

# Which published schema describes what a command prints with `-o json`; `output`'s is a plain map.
SCHEMAS = {
    "validate": "problems",
    "apply": "outcomes",
    "lock": "pins",
    "prune": "deletions",
    "destroy": "deletions",
    "pull": "pull",
    "forget": "forget",
    "report": "report",
    "preview": "preview",
    "sweep": "preview",
    **{name: name for name in ("plan", "status", "models", "inspect", "doctor", "import", "init")},
}

REPO = Path(__file__).parents[2]
KNIGHT, ROGUE = "recipes/storybook-knight.yaml", "recipes/pixel-rogue.yaml"


@dataclass(frozen=True)
class Ran:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


def compose(*arguments: str, at: Path) -> Ran:
    """Run a command in this process, with `at` as the working directory.

    It waits a tenth as long as usual for compositions, and for models that a server on this machine
    may show late: what is gone is gone in these tests.
    """
    out, err = io.StringIO(), io.StringIO()
    arguments = without_asking(arguments)
    with (
        contextlib.chdir(at),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch.dict(Engine.__init__.__kwdefaults__, poll_interval=0.02),
        patch.multiple(service, _GRACE_LOOPBACK=0.2, _POLL_LOOPBACK=0.02),
    ):
        status = guarded(arguments)
    ran = Ran(status, out.getvalue(), err.getvalue())
    hold_to_its_schema(arguments, ran)
    return ran


def without_asking(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments, with `--yes` where a command would ask; test_deletion.py tests the asking."""
    asks = arguments[:1] in (("prune",), ("destroy",))
    return (*arguments[:1], "--yes", *arguments[1:]) if asks else arguments


def hold_to_its_schema(arguments: tuple[str, ...], ran: Ran) -> None:
    """Whatever test it is: JSON on stdout is as its published schema says."""
    name = schema_of(arguments)
    if name and ran.status == 65:
        name = "problems"
    if name and ran.out.startswith("{"):
        validator(name).validate(json.loads(ran.out))


def schema_of(arguments: tuple[str, ...]) -> str | None:
    if "json" not in arguments or arguments[0] not in SCHEMAS:
        return None
    if "--promote" in arguments:
        return "promotion"
    if arguments[0] == "apply" and "--dry-run" in arguments:
        return "plan"
    return "repair" if "--repair" in arguments else SCHEMAS[arguments[0]]


@cache
def validator(name: str) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json.loads(schema(name)))


def spawned(*arguments: str, at: Path, **env: str) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "composer", *without_asking(arguments)],
        cwd=at,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def samples(at: Path) -> Path:
    """A project with this repository's sample recipes and LoRAs, and no lock."""
    shutil.copytree(REPO / "recipes", at / "recipes")
    (at / ".git").mkdir()
    return at


def edit(file: Path, before: str, after: str) -> None:
    """Replace text that must be there."""
    text = file.read_text(encoding="utf-8")
    assert before in text, (before, text)
    file.write_text(text.replace(before, after), encoding="utf-8")


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a project, and below `state/` of its state folder: bytes and time of change."""
    return {
        (place / path.relative_to(folder)).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for place, folder in ((Path(), root), (Path("state"), state_of(root)))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def ids(project: Path) -> dict[str, str]:
    """The id of each trained composition by its name, as `compose output` prints them."""
    return dict(json.loads(compose("output", "-o", "json", at=project).out))
