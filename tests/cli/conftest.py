"""The sample project, as it is and once applied, for the tests of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.cli import samples
from support.state import copy_project

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return samples(tmp_path)


@pytest.fixture
def applied(project: Path, applied_once: Path) -> Path:
    return copy_project(applied_once, project)
