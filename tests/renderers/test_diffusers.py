"""Opening the kind `diffusers`, and what it says without a base model or its packages."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import pytest
from support.fake_target import FakeTarget

from composer.errors import UsageError
from composer.renderers import runtime
from composer.renderers.base import RenderRequest
from composer.renderers.diffusers import KIND
from composer.renderers.registry import choose, find_kind
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from pathlib import Path


def test_it_is_chosen_for_the_local_target_alone(tmp_path: Path) -> None:
    with Engine(tmp_path, None) as engine:
        assert choose(engine) is find_kind("diffusers") is KIND
    assert not KIND.renders_for(FakeTarget())


def test_it_needs_a_base_model(tmp_path: Path) -> None:
    with Engine(tmp_path, None) as engine, pytest.raises(UsageError) as caught:
        KIND.open(RenderRequest(engine, tmp_path))
    assert caught.value.message == "images of the local target's LoRAs need a base model"
    assert caught.value.hint == "--base-model FOLDER or --base-model ID (docs/rendering.md)"


@pytest.mark.parametrize("missing", ["torch", "diffusers", "peft"])
def test_without_its_packages_it_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name == missing else importlib.util.find_spec("json")

    monkeypatch.setattr(runtime, "find_spec", find_spec)
    with Engine(tmp_path, None) as engine, pytest.raises(UsageError) as caught:
        KIND.open(RenderRequest(engine, tmp_path, str(tmp_path)))
    assert caught.value.message == f"rendering on this machine needs {missing}"
    assert caught.value.hint == "pip install 'lora-compose[render]'"
