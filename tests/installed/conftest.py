"""An environment that builds wheels by itself, for tests that are not about how pip makes one."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME = os.environ.get("HOME", "")  # where pip's settings are; a test has another one
BACKEND = (
    "hatchling>=1.25",
    "click-man>=0.5",
)  # the packages that compose needs are taken from here


@pytest.fixture(scope="session")
def backend() -> Iterator[str]:
    """Its Python; pip builds in it with `--no-build-isolation`."""
    with TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / ("Scripts" if os.name == "nt" else "bin") / "python")
        install = [python, "-m", "pip", "install", "--quiet", *BACKEND]
        env = {**os.environ, "HOME": HOME, "PYTHONPATH": ""}
        subprocess.run(install, env=env, check=True)
        (site,) = Path(folder).glob("[Ll]ib/**/site-packages")
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
        yield python
