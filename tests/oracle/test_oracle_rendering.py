"""Images of the tiny pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import FluxPipeline
from support.tiny_family import register_tiny_family, tiny_lora
from support.tiny_pipeline import make_tiny_pipeline

from composer.errors import BadLora
from composer.lora import read

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "pipeline")


def opened(folder: Path) -> Any:
    flux: Any = FluxPipeline
    pipeline = flux.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def plain(pipeline: Any, prompt: str = "a knight", seed: int = 7) -> bytes:
    random = torch.Generator().manual_seed(seed)
    image = pipeline(
        prompt, width=128, height=128, num_inference_steps=2, guidance_scale=3.5, generator=random
    ).images[0]
    pixels: bytes = image.tobytes()
    return pixels


def test_the_tiny_pipeline_makes_the_same_image_each_time(folder: Path) -> None:
    first, second = opened(folder), opened(folder)
    wanted = plain(first)
    assert plain(first) == plain(second) == wanted
    assert len({wanted, plain(first, "a dragon"), plain(first, seed=8)}) == 3


def test_its_loras_are_those_of_the_tiny_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = tiny_lora(tmp_path / "ink.safetensors", title="Ink Lines")
    with pytest.raises(BadLora, match="FLUX"):
        read(lora)
    register_tiny_family(monkeypatch)
    assert read(lora).title == "Ink Lines" and read(lora).ranks == (4,)
