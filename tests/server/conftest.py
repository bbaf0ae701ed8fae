"""A project with one LoRA, and a server of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support import serving
from support.engine_files import write_lora

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.serving import Served


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a library of one LoRA."""
    (tmp_path / ".git").mkdir()
    write_lora(tmp_path / "recipes" / "loras" / "ink.safetensors", 1, title="Ink Lines")
    return tmp_path


@pytest.fixture
def served(root: Path) -> Iterator[Served]:
    with serving.thread(root, root / "recipes" / "loras") as served:
        yield served
