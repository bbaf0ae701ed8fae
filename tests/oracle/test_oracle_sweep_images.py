"""`compose sweep` with a real pipeline: each place has the image that diffusers makes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image
from support.cli import compose
from support.state import state_of
from support.tiny_family import register_tiny_family, tiny_lora
from support.tiny_pipeline import make_tiny_pipeline

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = """\
library = "loras"
[previews]
prompts = ["a knight"]
width = 128
height = 128
steps = 2
baseModel = "pipeline"
"""
RECIPE = "name: Knight\nconcepts: [{name: ink, scale: 0.5}, {name: dust, scale: 0.25}]\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    register_tiny_family(monkeypatch)
    make_tiny_pipeline(tmp_path / "pipeline")
    for seed, name in enumerate(("ink", "dust"), start=1):
        tiny_lora(tmp_path / "loras" / f"{name}.safetensors", seed)
    (tmp_path / ".git").mkdir()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/knight.yaml").write_text(RECIPE)
    (tmp_path / "compose.toml").write_text(SETTINGS)
    return tmp_path


def expected(root: Path, ids: dict[str, str], scales: dict[str, float]) -> bytes:
    """The pixels of diffusers itself; it adds LoRAs in the order of their ids."""
    flux: Any = FluxPipeline
    pipeline = flux.from_pretrained(root / "pipeline", use_safetensors=True, local_files_only=True)
    for name in scales:
        pipeline.load_lora_weights(str(root / f"loras/{name}.safetensors"), adapter_name=ids[name])
    order = sorted(scales, key=ids.__getitem__)
    if order:
        pipeline.set_adapters([ids[name] for name in order], [scales[name] for name in order])
    made = pipeline(
        "a knight",
        width=128,
        height=128,
        num_inference_steps=2,
        guidance_scale=3.5,
        generator=torch.Generator().manual_seed(7),
    )
    return bytes(made.images[0].tobytes())


def test_each_place_has_the_image_that_diffusers_makes(root: Path) -> None:
    sweep = ("sweep", "Knight", "--axis", "dust=0.25,0.75", "--out", "swept", "-o", "json")
    ran = compose(*sweep, at=root)
    assert ran.status == 0, ran
    (row,) = json.loads(ran.out)["recipes"][0]["rows"]
    cells = {cell["place"]: cell["digest"] for cell in row["cells"]}
    folder = state_of(root) / "previews/cells"
    images = {
        place: Image.open(folder / digest[:2] / f"{digest}.png").tobytes()
        for place, digest in cells.items()
    }
    models = json.loads(compose("models", "-o", "json", at=root).out)["models"]
    ids = {model["name"]: model["id"] for model in models}
    assert images == {
        "A1": expected(root, ids, {}),
        "B1": expected(root, ids, {"ink": 0.5, "dust": 0.25}),
        "C1": expected(root, ids, {"ink": 0.5, "dust": 0.75}),
    }
    assert len(set(images.values())) == 3
    assert json.loads(compose(*sweep, at=root).out)["images"]["made"] == 0
