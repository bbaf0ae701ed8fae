"""The sample LoRAs: made by their script byte for byte, small, and composed as the recipes say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support import lora_oracle as oracle
from support import make_samples

from composer.lora import compose, read

RECIPES = Path(make_samples.FOLDER).parent
FILES = sorted(RECIPES.rglob("*.yaml"))


def titled(name: str) -> Path:
    found = {read(path).title: path for path in make_samples.FOLDER.glob("*.safetensors")}
    return found[name]


def test_the_script_makes_the_committed_bytes(tmp_path: Path) -> None:
    made = make_samples.make(tmp_path)
    committed = make_samples.FOLDER.glob("*.safetensors")
    assert sorted(p.name for p in made) == sorted(p.name for p in committed)
    for path in made:
        assert path.read_bytes() == (make_samples.FOLDER / path.name).read_bytes()
        assert path.stat().st_size <= 300_000


def test_the_samples_are_varied() -> None:
    loras = [read(path) for path in make_samples.FOLDER.glob("*.safetensors")]
    assert {lora.format for lora in loras} == {"diffusers", "kohya"}
    assert {dtype for lora in loras for dtype in lora.dtypes} == {"BF16", "F16", "F32"}
    assert {lora.title for lora in loras} == {
        "Storybook Watercolour",
        "Ink Lines",
        "Pixel Dust",
        "Castle Stone",
    }


def test_the_recipes_are_these() -> None:
    names = [path.relative_to(RECIPES).as_posix() for path in FILES]
    assert names == [
        "castle-keep.yaml",
        "pixel-rogue.yaml",
        "storybook-knight.yaml",
        "tutorial/slime.yaml",
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_recipe_composes(path: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    sources = [(titled(c["name"]), float(c["scale"])) for c in recipe["concepts"]]
    out = tmp_path / "out"
    compose([(read(source), scale) for source, scale in sources], out, metadata={})
    wanted = oracle.total(oracle.deltas(source, scale) for source, scale in sources)
    assert (
        oracle.worst(oracle.deltas(out), wanted) <= {"F32": 1e-6, "BF16": 5e-3}[read(out).dtypes[0]]
    )
