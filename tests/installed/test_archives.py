"""The wheel and the source archive: what git tracks, nothing else, whatever lies beside it.

Slow, and pip has to find the build backend; asked for by name: pytest tests/installed
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from support.cli import REPO

from composer.cli.main import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME = os.environ.get("HOME", "")  # where pip's settings are; a test has another one
STRAY = (
    "composer/local.py",
    "composer/notes.txt",
    "composer/junk/__init__.py",
    "schemas/draft.schema.json",
    "recipes/.env",
    "tests/secret.txt",
    "docs/draft.md",
    "dist/old.whl",
    "build/lib/composer/old.py",
    ".venv/bin/python",
    "composer/__pycache__/old.cpython-311.pyc",
    "key.pem",
)
MADE = {"PKG-INFO"}  # by the backend
SHIPPED = {
    "composer/schemas/": "schemas/",
    "composer/workflows/gitlab-ci.yml": "docs/gitlab-ci.yml",
    "composer/workflows/": "docs/workflows/",
}


def tracked(at: Path) -> set[str]:
    ran = subprocess.run(["git", "ls-files", "-z"], cwd=at, check=True, capture_output=True)
    return {name for name in os.fsdecode(ran.stdout).split("\0") if name}


@pytest.fixture(scope="module")
def clone() -> Iterator[Path]:
    """A clone of the commit here, with what this working tree has changed, and stray files."""
    with TemporaryDirectory() as folder:
        yield cloned(Path(folder) / "compose")


@pytest.fixture
def work() -> Iterator[Path]:
    """A folder that leaves nothing behind: copies of the tests hold the secrets of the tests."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


def cloned(root: Path) -> Path:
    """Copy what git tracks, and add what it doesn't."""
    subprocess.run(["git", "clone", "--quiet", str(REPO), str(root)], check=True)
    for name in tracked(REPO):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, root / name)
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    for name in STRAY:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("stray", encoding="utf-8")
    return root


def run(*command: str, at: Path, **env: str) -> subprocess.CompletedProcess[str]:
    known = {**os.environ, "HOME": HOME, "PYTHONPATH": "", **env}
    return subprocess.run(command, cwd=at, env=known, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(clone: Path) -> Iterator[Path]:
    """The wheel that pip builds of the clone, with a backend that it installs for it."""
    with TemporaryDirectory() as folder:
        yield built(sys.executable, clone, Path(folder))


def built(python: str, source: Path, into: Path, *options: str, **env: str) -> Path:
    pip = [python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(into)]
    ran = run(*pip, *options, str(source), at=into, **env)
    assert ran.returncode == 0, ran.stderr
    (wheel,) = into.glob("*.whl")
    return wheel


def files_of(wheel: Path) -> set[str]:
    """The names in a wheel, by their paths in the repository."""
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len({*names})
    files = {name for name in names if ".dist-info/" not in name and ".data/" not in name}
    for place, source in SHIPPED.items():
        files = {name.replace(place, source) for name in files}
    return files


def in_wheel(names: set[str]) -> set[str]:
    places = ("composer/", "schemas/", "docs/workflows/", "docs/gitlab-ci.yml")
    return {name for name in names if name.startswith(places)}


def source_archive_of(source: Path, into: Path, python: str) -> tuple[int, str]:
    """Build it as pip would, by the backend's own hook; the status and the messages."""
    shutil.copytree(source, into / "tree", symlinks=True)
    build = "import sys; from hatchling.build import build_sdist; build_sdist(sys.argv[1])"
    ran = run(python, "-c", build, str(into), at=into / "tree")
    return ran.returncode, ran.stderr


def test_a_wheel_has_what_git_tracks(clone: Path, wheel: Path) -> None:
    assert files_of(wheel) == in_wheel(tracked(clone))


def test_a_wheel_brings_a_man_page_for_each_command(wheel: Path) -> None:
    """Where `man` finds it beside the program, with the examples of the help."""
    with zipfile.ZipFile(wheel) as opened:
        pages = {Path(n).name: opened.read(n) for n in opened.namelist() if "/man/man1/" in n}
        places = {n.partition(".data/")[2] for n in opened.namelist() if ".data/" in n}
    assert {*pages} == {"compose.1", *(f"compose-{command}.1" for command in COMMANDS)}
    assert places == {f"data/share/man/man1/{page}" for page in pages}
    for command, (_, words) in COMMANDS.items():
        page = pages[f"compose-{command}.1"].decode()
        assert f"compose\\-{command} \\- {words}" in page
        assert page.count(f"\n  compose {command}") >= 2 or command == "completion"
        assert "\\fB\\-\\-debug\\fP" in page
        assert f"compose-{command}(1)" in pages["compose.1"].decode()


def test_an_editable_installation_runs_the_sources(clone: Path, work: Path, backend: str) -> None:
    pip = [backend, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    ran = run(*pip, "--target", str(work), "--editable", str(clone), at=work)
    assert ran.returncode == 0, ran.stderr
    assert not (work / "composer").exists()
    paths = [path.read_text(encoding="utf-8").strip() for path in work.glob("*.pth")]
    assert [Path(path).resolve() for path in paths] == [clone.resolve()]


def test_another_repositorys_index_in_the_environment_is_not_asked(
    clone: Path, work: Path, backend: str
) -> None:
    """git sets these while it runs a hook, as pre-commit's."""
    git = {"GIT_INDEX_FILE": str(work / "index"), "GIT_DIR": str(work / "none")}
    wheel = built(backend, clone, work, "--no-build-isolation", **git)
    assert files_of(wheel) == in_wheel(tracked(clone))


def test_a_source_archive_has_what_git_tracks_and_makes_the_same_wheel(
    clone: Path, work: Path, backend: str
) -> None:
    status, said = source_archive_of(clone, work, backend)
    assert status == 0, said
    (archive,) = work.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = [name.split("/", 1)[1] for name in opened.getnames() if "/" in name]
        opened.extractall(work / "unpacked", filter="data")
    assert sorted(names) == sorted(tracked(clone) | MADE)
    (unpacked,) = (work / "unpacked").iterdir()
    (work / "wheel").mkdir()
    wheel = built(backend, unpacked, work / "wheel", "--no-build-isolation")
    assert files_of(wheel) == in_wheel(tracked(clone))


def test_a_source_archive_needs_git(clone: Path, work: Path, backend: str) -> None:
    bare = work / "bare"
    shutil.copytree(clone, bare, ignore=shutil.ignore_patterns(".git"))
    (work / "built").mkdir()
    status, said = source_archive_of(bare, work / "built", backend)
    assert (status, "build it in a git clone" in said) == (1, True), said
