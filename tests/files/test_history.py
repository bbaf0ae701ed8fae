"""What git says of many files, asked once: whatever is in commits, whatever a file is called."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from composer.files import history as module
from composer.files.history import History, history

if TYPE_CHECKING:
    from pathlib import Path

WHO = ("-c", "user.name=Maya \u202eOkafor\u202c", "-c", "user.email=m@example.org")


def git(root: Path, *arguments: str, **env: str) -> None:
    environment = {**os.environ, "GIT_AUTHOR_DATE": "2026-05-01T12:00:00+02:00", **env}
    subprocess.run(
        ["git", *WHO, *arguments], cwd=root, check=True, capture_output=True, env=environment
    )


def commit(root: Path, message: str, **files: str) -> None:
    for name, text in files.items():
        file = root / "recipes" / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", message)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    return tmp_path


def subjects(found: History, path: str) -> list[str]:
    return [one.subject for one in found.commits[path]]


A, B = "recipes/a.yaml", "recipes/b.yaml"


def test_each_file_has_the_commits_that_changed_it(root: Path) -> None:
    commit(root, "both", a="1\n", b="1\n")
    commit(root, "neither")
    commit(root, "one\n\nand a body", a="2\n")
    found = history(root, [A, B, "recipes/new.yaml"])
    assert (subjects(found, A), subjects(found, B)) == (["one", "both"], ["both"])
    assert found.commits["recipes/new.yaml"] == ()
    assert found.problem == ""
    newest = found.commits[A][0]
    assert newest.author == "Maya \u202eOkafor\u202c"
    assert newest.date == "2026-05-01T12:00:00+02:00"
    assert len(newest.id) == 40


def test_a_moved_file_keeps_its_commits_and_another_of_its_old_name_has_its_own(root: Path) -> None:
    text = "".join(f"line {n}\n" for n in range(20))
    commit(root, "first", a=text)
    git(root, "mv", A, B)
    commit(root, "moved and edited", b=f"{text}more\n")
    commit(root, "another", a="something else\n")
    found = history(root, [A, B])
    assert subjects(found, B) == ["moved and edited", "first"]
    assert subjects(found, A) == ["another"]


def test_nothing_in_a_commit_can_pass_for_another_one(root: Path) -> None:
    hostile = "\x01" + "0" * 40 + " \x1b[31m <script> @team \u2028 ##[error]"
    commit(root, hostile, a="1\n", **{"\x01x": "1\n", "new\nline": "2\n", 'quo"te': "3\n"})
    commit(root, "\x01", a="2\n")
    paths = [A, "recipes/\x01x.yaml", "recipes/new\nline.yaml", 'recipes/quo"te.yaml']
    found = history(root, paths)
    assert [len(found.commits[path]) for path in paths] == [2, 1, 1, 1]
    assert "<script>" in found.commits[A][1].subject


def test_git_is_asked_once_for_all_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {f"r{number}": f"{number}\n" for number in range(300)}
    commit(root, "all", **names)
    asked = []
    monkeypatch.setattr(module, "git", lambda *a, real=module.git: asked.append(a) or real(*a))
    found = history(root, [f"recipes/{name}.yaml" for name in names])
    assert sum(map(len, found.commits.values())) == 300
    assert len(asked) == 1


def test_settings_of_the_repository_run_nothing(root: Path) -> None:
    commit(root, "one", a="1\n")
    marker = root / "ran"
    program = root / "program.sh"
    program.write_text(f"#!/bin/sh\ntouch {marker}\n", encoding="utf-8")
    program.chmod(0o755)
    for key in ("gpg.program", "diff.external", "core.pager", "core.fsmonitor", "diff.x.textconv"):
        git(root, "config", key, str(program))
    git(root, "config", "log.showSignature", "true")
    (root / ".gitattributes").write_text("*.yaml diff=x\n", encoding="utf-8")
    assert subjects(history(root, [A]), A) == ["one"]
    assert not marker.exists()


def test_it_says_why_there_is_no_history(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert history(root, [A]).problem == "the repository has no commit yet"
    (root / ".git").rename(root / "gone")
    assert history(root, [A]).problem == "the project is not in a git repository"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert history(root, [A]) == History({}, "git isn't installed")


def test_a_project_below_the_top_of_its_repository(root: Path) -> None:
    commit(root, "elsewhere", a="1\n")
    inside = root / "game"
    commit_at = inside / "recipes" / "a.yaml"
    commit_at.parent.mkdir(parents=True)
    commit_at.write_text("2\n", encoding="utf-8")
    commit(root, "inside")
    assert subjects(history(inside, [A]), A) == ["inside"]
