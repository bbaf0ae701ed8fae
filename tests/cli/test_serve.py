"""`compose serve`: what it says of itself at its start."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from support.cli import compose
from support.engine_files import write_lora

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    write_lora(tmp_path / "recipes" / "loras" / "ink.safetensors", 1, title="Ink Lines")
    return tmp_path


def test_a_base_model_needs_packages_that_may_be_missing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, module)
    for module in [name for name in sys.modules if name.startswith("composer.images.")]:
        monkeypatch.delitem(sys.modules, module)
    for module in ("composer.server.rendering", "composer.renderers.cache"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "PIL", None)
    ran = compose("serve", "--port", "0", "--base-model", "canvas", at=root)
    assert (ran.status, ran.out) == (64, "")
    assert "--base-model needs PIL" in ran.err
    assert "pip install 'lora-compose[serve,render]'" in ran.err
    assert "Traceback" not in ran.err
