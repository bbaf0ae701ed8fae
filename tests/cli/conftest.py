"""The sample project, as it is and once applied, for the tests of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.cli import compose, samples

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return samples(tmp_path)


@pytest.fixture
def applied(project: Path) -> Path:
    assert compose("apply", at=project).status == 0
    return project
