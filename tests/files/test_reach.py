"""What commands open: of a repository only its recipes, lock and LoRAs; outside only the state.

An audit hook of Python sees every file that is opened, created, renamed or removed. SQLite opens
files by itself, but the hook sees the path of its database.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
from support.cli import compose, samples
from support.state import state_of

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS = (
    ("validate",),
    ("plan",),
    ("plan", "--offline"),
    ("apply", "--dry-run"),
    ("apply",),
    ("status",),
    ("models",),
    ("output",),
    ("lock",),
    ("lock", "--upgrade"),
    ("doctor",),
    ("inspect", "recipes/pixel-rogue.yaml"),
    ("prune",),
    ("forget", "Castle Keep"),
    ("import", "--all"),
)
DECOYS = (
    ".compose/journal.jsonl",
    ".env",
    ".netrc",
    "apply.json",
    "pyproject.toml",
    "recipes/notes.txt",
    "recipes/.hidden.yaml",
    "recipes/loras/notes.txt",
    "serve.json",
    "sitecustomize.py",
    "yaml.py",
)
READ = (".yaml", ".yml", ".safetensors", ".gitattributes", "compose.lock")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGING = (
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.link",
    "os.symlink",
    "os.chmod",
    "os.truncate",
)


class Audit:
    """Collects (path, whether it is written) while it is `on`."""

    on = False

    def __init__(self) -> None:
        self.seen: list[tuple[Path, bool]] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open" and not isinstance(arguments[0], int):
            mode, flags = arguments[1] or "", arguments[2] or 0
            self._add(arguments[0], bool(set("wax+") & set(mode)) or bool(flags & WRITING))
        elif event == "sqlite3.connect" and ":memory:" not in str(arguments[0]):
            self._add(unquote(urlsplit(os.fsdecode(arguments[0])).path), True)
        elif event in CHANGING:
            for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
                if not isinstance(path, int):  # a descriptor: it was seen as it was opened
                    self._add(path, True)

    def _add(self, path: Any, is_write: bool) -> None:
        self.seen.append((Path(os.path.abspath(os.fsdecode(path))), is_write))


AUDIT = Audit()
sys.addaudithook(AUDIT)  # for good: Python can't take a hook away


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Audit]:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    AUDIT.seen.clear()
    yield AUDIT
    AUDIT.on = False


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = samples(tmp_path / "project")
    (project / ".gitattributes").write_text("compose.lock text eol=lf\n", encoding="utf-8")
    for name in DECOYS:
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("nobody may read this\n", encoding="utf-8")
    return project


def test_of_a_repository_only_recipes_lock_and_loras_are_opened(
    project: Path, audit: Audit
) -> None:
    for command in COMMANDS:
        if command[0] == "import":  # it writes the recipe again
            (project / "recipes/castle-keep.yaml").unlink()
        audit.seen.clear()
        audit.on = True
        ran = compose(*command, at=project)
        audit.on = False
        assert ran.status == 0, (command, ran)
        for path, is_write in audit.seen:
            if path.is_relative_to(project):
                check_inside(path, project, is_write, command)
            elif is_write and path != Path(os.devnull):
                assert path.is_relative_to(state_of(project).parent.parent), (command, path)
    for name in DECOYS:
        assert (project / name).read_text(encoding="utf-8") == "nobody may read this\n"


def check_inside(path: Path, project: Path, is_write: bool, command: tuple[str, ...]) -> None:
    """Only the lock is written, and a recipe by import; no decoy is read."""
    name = path.relative_to(project).as_posix()
    writes = (".compose.", "recipes/.") if command[0] == "import" else (".compose.",)
    temporary = name.startswith(writes) and name.endswith(".compose.tmp")
    if is_write:
        imported = command[0] == "import" and name.startswith("recipes")
        assert temporary or imported or name == "compose.lock", (command, name)
    elif not path.is_dir():
        assert temporary or name.endswith(READ), (command, name)
        assert name not in DECOYS, (command, name)


def test_the_hook_sees_what_is_opened(tmp_path: Path, audit: Audit) -> None:
    """Otherwise the test above would show nothing."""
    audit.on = True
    (tmp_path / "a").write_text("a", encoding="utf-8")
    (tmp_path / "a").read_bytes()
    (tmp_path / "a").rename(tmp_path / "b")
    os.close(os.open(tmp_path / "b", os.O_RDWR))
    audit.on = False
    writes = [(path.name, is_write) for path, is_write in audit.seen]
    assert writes == [("a", True), ("a", False), ("a", True), ("b", True), ("b", True)]
