"""The docs are true: every command they show is run, and the reference pages are as generated."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from support.cli import REPO
from support.make_docs import PAGES, fields
from support.shown import Reader, place_for, steps, with_program

from composer import errors
from composer.cli.main import COMMANDS
from composer.files.schemas import schema

DOCS = [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]
# Commands that a test can't run where it is: CI runs these very lines in a fresh environment.
INSTALLING = ("pip install '.[local]' && compose apply", "pip install '.[test]' && pytest")


@pytest.mark.skipif(os.name == "nt", reason="the docs show a POSIX shell")
@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.relative_to(REPO).as_posix())
def test_what_a_page_shows_is_what_happens(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_program(tmp_path / "bin", sys.executable, "-m", "composer")
    for name, value in (
        ("PATH", path),
        ("PYTHONPATH", os.pathsep.join(sys.path)),
        ("COLUMNS", "100"),
    ):
        monkeypatch.setenv(name, value)
    home = Path(os.environ["HOME"])
    reader = Reader(place_for(page, home if page.name.startswith("tutorial") else tmp_path))
    wrong = reader.play(page.read_text(encoding="utf-8"))
    assert not wrong, "\n".join(wrong)


def test_the_readme_shows_its_commands() -> None:
    assert len(steps((REPO / "README.md").read_text(encoding="utf-8"))) >= 8


@pytest.mark.parametrize("path", PAGES)
def test_reference_pages_are_as_generated(path: str) -> None:
    assert (REPO / path).read_text(encoding="utf-8") == PAGES[path](), (
        "PYTHONPATH=tests python -m support.make_docs"
    )


def test_the_page_on_settings_has_every_key() -> None:
    page = (REPO / "docs/settings.md").read_text(encoding="utf-8")
    keys = json.loads(schema("settings"))["properties"]
    assert fields(keys) in page
    assert fields(keys["previews"]["properties"]) in page


def test_every_exit_status_is_documented() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    raised = {kind.exit_status for kind in classes if issubclass(kind, errors.ComposeError)}
    page = (REPO / "docs/errors.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| ([\d, ]+) \|", page, re.MULTILINE))
    listed = {int(status) for row in rows for status in row.split(",")}
    assert raised | {0, 2, 75, 130, 143} == listed


def test_every_problem_code_in_the_program_is_documented() -> None:
    sources = (file.read_text(encoding="utf-8") for file in (REPO / "composer").rglob("*.py"))
    used = {code for text in sources for code in re.findall(r'"([EP]\d{3})"', text)}
    page = (REPO / "docs/errors.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^- \*\*([EP]\d{3})\*\*", page, re.MULTILINE))
    assert len(used) > 40
    assert used - listed == set()


def test_the_readme_says_of_every_command_what_the_help_says() -> None:
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    rows = [f"| `compose {name}` | {words} |" for name, (_, words) in COMMANDS.items()]
    assert [row for row in rows if row not in readme] == []


def test_ci_runs_the_commands_of_the_readme() -> None:
    readme, ci = ((REPO / name).read_text(encoding="utf-8") for name in ("README.md", ".ci/run"))
    for line in INSTALLING:
        assert line in readme
        assert line in ci


def test_the_index_has_every_page_and_the_readme_both_tutorials() -> None:
    index, readme = (
        (REPO / page).read_text(encoding="utf-8") for page in ("docs/README.md", "README.md")
    )
    pages = {page.name for page in (REPO / "docs").glob("*.md")} - {"README.md"}
    assert [page for page in sorted(pages) if f"]({page})" not in index] == []
    tutorials = sorted(page for page in pages if page.startswith("tutorial"))
    assert len(tutorials) == 2
    assert [page for page in tutorials if f"](docs/{page})" not in readme] == []


def test_links_lead_somewhere() -> None:
    for page in [*DOCS, REPO / "CONTRIBUTING.md", REPO / "SECURITY.md"]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_architecture_names_files_that_exist() -> None:
    page = (REPO / "docs/architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:\w+/)+[\w-]+\.(?:py|json|md|yml))`", page))
    assert len(named) > 50
    missing = [
        path for path in named if not any((f / path).exists() for f in (REPO, REPO / "composer"))
    ]
    assert missing == []
