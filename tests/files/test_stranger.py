"""A stranger's repository with a `.compose/` in it: no command opens it or writes through it.

State once lived there. Then committed links let `compose` overwrite files of the home directory, a
crafted SQLite journal let it delete one, and a committed store passed for what this machine made.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import struct
from typing import TYPE_CHECKING

import pytest
import requests
from support.cli import compose, samples, spawned
from support.state import made_state, state_of

from composer.lock import read_lock
from composer.model import Concept
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = (
    ("validate",),
    ("plan",),
    ("status",),
    ("models",),
    ("doctor",),
    ("lock",),
    ("apply",),
    ("prune",),
    ("import", "--all", "--dry-run"),
)
STATE_FILES = (
    "apply.json",
    "apply.lock",
    "worker.lock",
    "journal.jsonl",
    "engine.sqlite3",
    "serve.json",
    ".gitignore",
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = samples(tmp_path / "stranger")
    (project / ".compose").mkdir()
    return project


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_no_command_writes_through_a_link(
    project: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("my key", encoding="utf-8")
    for name in STATE_FILES:
        (project / ".compose" / name).symlink_to("../../precious")
    (project / ".compose" / "models").symlink_to("../..")
    before = sorted(path.name for path in tmp_path.iterdir())

    ran = compose(*command, at=project)

    assert ran.status in (0, 1), ran.err
    assert precious.read_text(encoding="utf-8") == "my key"
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    # It is ignored, and every command that needs the state says so.
    assert (".compose" in ran.err) == (command != ("validate",))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_crafted_sqlite_journal_deletes_nothing(
    project: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """SQLite deletes the file that a hot journal names as its super-journal."""
    precious = tmp_path / "precious"
    precious.write_text("my key", encoding="utf-8")
    database = project / ".compose" / "engine.sqlite3"
    with_hot_journal(database, str(precious))

    compose(*command, at=project)

    assert precious.read_text(encoding="utf-8") == "my key"
    assert (project / ".compose" / "engine.sqlite3-journal").exists()


def test_the_crafted_journal_would_delete_it(tmp_path: Path) -> None:
    """Otherwise the test above would show nothing."""
    precious = tmp_path / "precious"
    precious.write_text("my key", encoding="utf-8")
    with_hot_journal(tmp_path / "engine.sqlite3", str(precious))
    opened = sqlite3.connect(tmp_path / "engine.sqlite3")
    opened.execute("SELECT * FROM sqlite_master").fetchall()
    opened.close()
    assert not precious.exists()


def with_hot_journal(database: Path, victim: str) -> None:
    """A database, and a rollback journal in the form of SQLite's file format, section 3."""
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    magic, name = bytes.fromhex("d9d505f920a163d7"), victim.encode()
    pages = database.stat().st_size // 4096
    head = magic + struct.pack(">IIIII", 0, 1234, pages, 512, 4096)
    tail = struct.pack(">I", 1 + (0x40000000 // 4096)) + name
    tail += struct.pack(">II", len(name), sum(name)) + magic
    database.with_name(f"{database.name}-journal").write_bytes(head.ljust(512, b"\0") + tail)


def _commit_state_of_another_project(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of an applied copy, and its whole state as the project's `.compose/`."""
    other = samples(tmp_path / "other")
    monkeypatch.setenv("COMPOSE_STATE_DIR", str(tmp_path / "states"))
    assert compose("apply", at=other).status == 0
    (state,) = (tmp_path / "states" / "projects").iterdir()
    shutil.rmtree(project / ".compose")
    shutil.copytree(state, project / ".compose")
    shutil.copy(other / "compose.lock", project / "compose.lock")


def test_a_committed_result_is_handed_out_by_no_command(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that says "trained", and beside it a result with other weights."""
    _commit_state_of_another_project(project, tmp_path, monkeypatch)
    id = read_lock(project).target("local").recipes["recipes/pixel-rogue.yaml"].composition
    poisoned = project / ".compose" / "models" / f"{id}.safetensors"
    whole = poisoned.read_bytes()
    poisoned.write_bytes(whole[:-4000] + b"\x42" * 4000)

    for command in (["pull", "Pixel Rogue", "-o", "a.safetensors"], ["output", "Pixel Rogue"]):
        assert str(project / ".compose") not in compose(*command, at=project).out
    assert not (project / "a.safetensors").exists()
    assert "4 created" in compose("apply", at=project).out
    assert compose("pull", "Pixel Rogue", "-o", "a.safetensors", at=project).status == 0
    assert (project / "a.safetensors").read_bytes() == whole


@pytest.mark.parametrize("place", ["repository", "state"])
def test_a_committed_journal_claims_no_model(project: Path, place: str) -> None:
    """What compose made and nobody needs is deleted; only this machine's journal says what."""
    state = made_state(project)
    with Engine(state, project / "recipes/loras") as engine:
        (ink,) = (one for one in engine.list_models("flux.1-lora") if one.name == "Ink Lines")
        model = engine.create("My portrait", [Concept(ink.id, 0.5)], type="flux.1-composition")
    concepts = [{"modelId": ink.id, "scale": 0.5}]
    content = {"type": "flux.1-composition", "concepts": concepts}
    intent = {"event": "intent", "name": "My portrait", "content": content, "at": 1.0}
    found = {"event": "found", "made": model.id, "at": 2.0}
    common = {"recipe": "recipes/x.yaml", "token": "t", "target": "local"}
    lines = "".join(json.dumps({**event, **common}) + "\n" for event in (intent, found))
    folder = project / ".compose" if place == "repository" else state
    (folder / "journal.jsonl").write_text(lines, encoding="utf-8")

    for command in (["apply"], ["prune"]):
        assert compose(*command, at=project).status == 0

    with Engine(state, project / "recipes/loras", run_jobs=False) as engine:
        left = [one.name for one in engine.list_models("flux.1-composition")]
    assert ("My portrait" in left) == (place == "repository")


def test_import_writes_no_recipes_through_a_link_out_of_the_project(
    project: Path, tmp_path: Path
) -> None:
    (project / "recipes" / "loras").rename(project / "loras")
    library = ("--library", "loras", "--target", "local")
    assert compose("apply", *library, at=project).status == 0
    shutil.rmtree(project / "recipes")
    (project / "compose.lock").unlink()
    (tmp_path / "elsewhere").mkdir()
    (project / "recipes").symlink_to("../elsewhere")
    for dry_run in ([], ["--dry-run"]):
        ran = compose("import", "--all", *dry_run, *library, at=project)
        assert (ran.status, "recipes/ leads out of" in ran.err) == (64, True), ran
    assert not [*(tmp_path / "elsewhere").iterdir()]


@pytest.mark.parametrize("to", ["../elsewhere", "missing"])
def test_import_writes_no_recipe_through_a_link(project: Path, tmp_path: Path, to: str) -> None:
    assert compose("apply", at=project).status == 0
    (project / "compose.lock").unlink()
    (project / "recipes/pixel-rogue.yaml").unlink()
    (tmp_path / "elsewhere").write_text("my key", encoding="utf-8")
    (project / "recipes/pixel-rogue.yaml").symlink_to(f"../{to}")
    ran = compose("import", "--all", "--target", "local", at=project)
    assert ran.status == 65, ran
    assert (tmp_path / "elsewhere").read_text(encoding="utf-8") == "my key", ran
    assert not (project / "missing").exists(), ran


INPUTS = (
    ("merge", "{}.safetensors", "-o", "out.safetensors"),
    ("merge", "recipes/loras/ink-lines.safetensors", "{}.safetensors:1", "-o", "o.safetensors"),
    ("inspect", "{}.safetensors"),
    ("inspect", "recipes/loras/ink-lines.safetensors", "{}.safetensors:0.5"),
    ("apply", "--expect", "{}.json"),
    ("apply", "--dry-run", "--expect", "{}.json"),
    ("lock", "--merge", "{}.lock", "compose.lock", "compose.lock"),
    ("lock", "--merge", "compose.lock", "{}.lock", "compose.lock"),
    ("lock", "--merge", "compose.lock", "compose.lock", "{}.lock"),
)


@pytest.mark.parametrize("path", ["file", "folder/file"])
@pytest.mark.parametrize("command", INPUTS, ids=" ".join)
def test_no_file_is_read_through_a_link_out_of_the_repository(
    project: Path, tmp_path: Path, command: tuple[str, ...], path: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(project / "recipes/loras/pixel-dust.safetensors", outside / "file.safetensors")
    for lock in (project / "compose.lock", outside / "file.lock"):
        lock.write_text('{"about": "", "version": 2, "targets": {}}\n', encoding="utf-8")
    planned = compose("plan", "-o", "json", at=project).out
    (outside / "file.json").write_text(planned, encoding="utf-8")
    (project / "folder").symlink_to(outside)
    for one in outside.iterdir():
        (project / one.name).symlink_to(one)
    before = _tree(project), _tree(outside)
    ran = compose(*(argument.format(path) for argument in command), at=project)
    assert ran.status == 64, ran
    said = re.search(r"(\S+) leads out of \S+ through a link\n  (.+)\n", ran.err)
    assert said, ran
    assert said[1].startswith(f"{path}.") and said[2] == "give the path that the link leads to"
    assert (_tree(project), _tree(outside)) == before


@pytest.mark.parametrize("mark", ["compose.lock", "recipes"])
@pytest.mark.parametrize("folder", [".", "recipes", "recipes/loras"])
@pytest.mark.parametrize("command", ["inspect", "merge"])
def test_nor_in_a_project_without_git(
    project: Path, tmp_path: Path, command: str, folder: str, mark: str
) -> None:
    (project / ".git").rmdir()
    if mark == "compose.lock":
        (project / mark).write_text('{"version": 2, "targets": {}}\n', encoding="utf-8")
    outside = tmp_path / "secret.safetensors"
    loras = project / "recipes/loras"
    shutil.copy(loras / "pixel-dust.safetensors", outside)
    (loras / "secret.safetensors").symlink_to(outside)
    path = os.path.relpath(loras / "secret.safetensors", project / folder)
    out = ("-o", str(tmp_path / "out.safetensors")) if command == "merge" else ()
    ran = compose(command, path, *out, at=project / folder)
    assert (ran.status, "leads out of" in ran.err) == (64, True), ran
    assert not (tmp_path / "out.safetensors").exists()


def _tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


@pytest.mark.parametrize("is_repository", [True, False])
def test_a_link_in_a_cache_of_models_is_read(
    project: Path, tmp_path: Path, *, is_repository: bool
) -> None:
    """A cache as Hugging Face's, outside the repository; and the working folder may be in none."""
    (tmp_path / "cache/blobs").mkdir(parents=True)
    here = tmp_path / "cache/snapshots"
    here.mkdir()
    shutil.copy(project / "recipes/loras/pixel-dust.safetensors", tmp_path / "cache/blobs/1f")
    (here / "ink.safetensors").symlink_to("../blobs/1f")
    name = "../cache/snapshots/ink.safetensors" if is_repository else "ink.safetensors"
    at = project if is_repository else here
    assert compose("inspect", name, at=at).status == 0
    assert compose("merge", name, "-o", "out.safetensors", at=at).status == 0


def test_a_link_that_stays_in_the_repository_is_read(project: Path) -> None:
    (project / "ink.safetensors").symlink_to("recipes/loras/ink-lines.safetensors")
    assert compose("inspect", "ink.safetensors", at=project).status == 0


def test_a_merge_driver_writes_through_no_link(project: Path, tmp_path: Path) -> None:
    text = '{"about": "", "version": 2, "targets": {}}\n'
    (tmp_path / "precious").write_text(text, encoding="utf-8")
    for name in ("base", "theirs"):
        (project / name).write_text(text, encoding="utf-8")
    (project / "ours").symlink_to("../precious")
    assert compose("lock", "--merge", "base", "ours", "theirs", at=project).status == 64
    assert (tmp_path / "precious").read_text(encoding="utf-8") == text
    (project / "kept").write_text(text, encoding="utf-8")
    (project / "ours").unlink()
    (project / "ours").symlink_to("kept")
    assert compose("lock", "--merge", "base", "ours", "theirs", at=project).status == 0
    assert (project / "kept").read_text(encoding="utf-8") == text
    assert (project / "ours").read_text(encoding="utf-8") != text


@pytest.mark.parametrize("place", [".compose", "."])
def test_the_server_never_takes_a_repositorys_key(project: Path, place: str) -> None:
    (project / place / "serve.json").write_text(
        json.dumps({"key": "attacker", "secret": "theirs"}), encoding="utf-8"
    )
    process = spawned("serve", "--port", "0", at=project)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        answer = requests.get(f"{url}/models", auth=("attacker", "theirs"), timeout=30)
        assert answer.status_code == 401
        ours = json.loads((state_of(project) / "serve.json").read_text(encoding="utf-8"))
        answer = requests.get(f"{url}/models", auth=(ours["key"], ours["secret"]), timeout=30)
        assert answer.status_code == 200
    finally:
        process.kill()
        process.communicate()


def test_a_committed_store_is_not_what_this_machine_made(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _commit_state_of_another_project(project, tmp_path, monkeypatch)

    ran = compose("plan", at=project)

    assert "4 to create" in ran.out
