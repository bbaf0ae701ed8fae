"""A second, made-up model family: registered as data, its LoRAs are read, merged and inspected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from support.castle import CASTLE, castle, register_castle
from support.cli import compose
from support.lora_files import Spec, write

from composer.errors import UsageError
from composer.lora import BadLora, families, inspect, merge, read

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    register_castle(monkeypatch)


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return castle(tmp_path, "split.safetensors", "castle.towers.0.left", 4)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return castle(tmp_path, "whole.safetensors", "towers.0.pair", 14)


def test_a_file_is_of_the_family_that_spells_its_keys(split: Path, whole: Path) -> None:
    assert families.of_type("castle.2-composition") is CASTLE
    assert families.of_type("castle.3-composition") is None
    assert (read(split).family, read(split).format) == (CASTLE, "split")
    assert read(whole).modules == ("towers.0.left", "towers.0.right")


def test_its_files_are_merged_exactly(tmp_path: Path, split: Path, whole: Path) -> None:
    out = tmp_path / "out.safetensors"
    merge({split: 0.5, whole: 2.0}, out)
    parts, result = {**load_file(split), **load_file(whole)}, load_file(out)

    def delta(tensors: dict[str, np.ndarray], key: str) -> np.ndarray:
        return tensors[f"{key}.lora_B.weight"] @ tensors[f"{key}.lora_A.weight"]

    fused_change = 2.0 * delta(parts, "towers.0.pair")
    left = 0.5 * delta(parts, "castle.towers.0.left") + fused_change[:4]
    scale = {key: float(result.get(f"castle.towers.0.{key}.alpha", 0)) for key in ("left", "right")}
    for key, wanted in (("left", left), ("right", fused_change[4:])):
        rank = len(result[f"castle.towers.0.{key}.lora_A.weight"])
        factor = scale[key] / rank if scale[key] else 1.0
        got = factor * delta(result, f"castle.towers.0.{key}")
        assert np.allclose(got, wanted, rtol=1e-5, atol=1e-6)
    with safe_open(out, "numpy") as file:
        assert file.metadata()["modelspec.architecture"] == "castle-2/lora"


def test_its_output_formats_are_its_own(tmp_path: Path, split: Path) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(UsageError, match="format is 'diffusers', and must be one of stone"):
        merge([split], out, format="diffusers")
    assert not out.exists()
    assert merge([split], out).format == merge([split], out, format="stone", force=True).format
    ran = compose("merge", str(split), "-o", "cli.safetensors", "--format", "kohya", at=tmp_path)
    assert ran.status == 64 and "must be one of stone" in ran.err
    ran = compose("merge", str(split), "-o", "cli.safetensors", "--format", "stone", at=tmp_path)
    assert ran.status == 0 and "stone" in ran.out, ran


def test_its_files_are_inspected(split: Path, whole: Path) -> None:
    inspection = inspect({split: 0.5, whole: 2.0})
    assert [dict(info.modules) for info in inspection.loras] == [{"towers": 1}, {"towers": 2}]
    assert list(inspection.mix.blocks) == ["tower 0"]


def test_wrong_widths_are_refused_in_its_own_name(tmp_path: Path) -> None:
    path = castle(tmp_path, "wide.safetensors", "castle.towers.0.left", 5)
    with pytest.raises(BadLora, match="where Castle has 4 outputs"):
        read(path)


def test_files_of_two_families_are_not_combined(tmp_path: Path, split: Path) -> None:
    flux = tmp_path / "flux.safetensors"
    write(Spec(False, "F32", {"transformer_blocks.0.attn.to_q": 2}), flux)
    for combine in (lambda loras: merge(loras, tmp_path / "out.safetensors"), inspect):
        with pytest.raises(BadLora, match=r"made for Castle, flux\.safetensors for FLUX\.1"):
            combine([split, flux])
    assert not (tmp_path / "out.safetensors").exists()
