"""`docs/python.md` is true: its examples run, in their order, in a copy of the sample project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from support.cli import REPO, samples

import composer

if TYPE_CHECKING:
    from pathlib import Path

PAGE = REPO / "docs" / "python.md"
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_every_example_runs(tmp_path: Path) -> None:
    examples = EXAMPLE.findall(PAGE.read_text(encoding="utf-8"))
    assert len(examples) >= 9
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(examples)],
        cwd=samples(tmp_path),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "created Pixel Rogue model_" in ran.stdout


def test_the_page_names_every_error() -> None:
    page = PAGE.read_text(encoding="utf-8")
    exported = [getattr(composer, name) for name in composer.__all__]
    errors = [e for e in exported if isinstance(e, type) and issubclass(e, composer.ComposeError)]
    assert len(errors) >= 10
    assert [error for error in errors if f"`{error.__name__}`" not in page] == []
