"""The tutorials, as a newcomer plays them: compose installed, an empty folder, an empty home.

Slow, and pip has to find the packages; asked for by name: pytest tests/installed
"""

from __future__ import annotations

import os
import subprocess
import venv
from typing import TYPE_CHECKING

import pytest
from support.cli import REPO
from support.shown import Reader, place_for, steps

if TYPE_CHECKING:
    from pathlib import Path

HOME = os.environ.get("HOME", "")  # where pip's settings are; a test has another one
PAGES = [REPO / "docs" / name for name in ("tutorial-artist.md", "tutorial-studio.md")]
# What the page for artists is there to show, in this order.
COMMANDS = (
    "--version models init validate plan apply pull output merge inspect status prune destroy"
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the docs show a POSIX shell")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment with compose alone."""
    root = tmp_path_factory.mktemp("newcomer")
    venv.create(root / "venv", with_pip=True)
    bin = root / "venv" / "bin"
    install = [str(bin / "python"), "-m", "pip", "install", "--quiet", f"{REPO}[local]"]
    subprocess.run(install, check=True, env={**os.environ, "HOME": HOME, "PYTHONPATH": ""})
    return bin


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_newcomer_sees_what_the_page_shows(page: Path, programs: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    path = os.pathsep.join([str(programs), "/usr/local/bin", "/usr/bin", "/bin"])
    env = {"HOME": str(tmp_path), "PATH": path, "LANG": "C.UTF-8"}
    wrong = Reader(place_for(page, tmp_path), env, in_process=False).play(text)
    assert not wrong, "\n".join(wrong)
    assert (tmp_path / ".local/state/lora-compose/projects").is_dir()


def test_the_page_for_artists_shows_the_whole_way() -> None:
    shown = [step.command for step in steps(PAGES[0].read_text(encoding="utf-8"))]
    typed = [words.split()[1] for words in shown if words.startswith("compose ")]
    assert list(dict.fromkeys(typed)) == COMMANDS.split()
