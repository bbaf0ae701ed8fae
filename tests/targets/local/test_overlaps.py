"""The advice of a plan: what it may cost, and that equal inputs get equal advice."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from support.engine_files import write_lora
from support.lora_files import Spec, write
from support.model_types import LORA

from composer.lora import inspect, read
from composer.lora.analysis import grams, seconds
from composer.lora.inspection import Level
from composer.model import Concept
from composer.targets.local import overlaps
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

HUGE = {"transformer_blocks.0.attn.to_q": 3072, "transformer_blocks.0.attn.to_k": 3072}


def sparse(path: Path, ranks: Mapping[str, int], name: str) -> Path:
    """A LoRA of these ranks, nothing but a hole: small on the disk, and costly to compute with."""
    header: dict[str, object] = {"__metadata__": {"ss_output_name": name}}
    stop = 0
    for module, rank in ranks.items():
        for ending, shape in (("lora_A", [rank, 3072]), ("lora_B", [3072, rank])):
            start, stop = stop, stop + 2 * 3072 * rank
            key = f"transformer.{module}.{ending}.weight"
            header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, stop]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + stop)
    return path


@pytest.fixture
def library(tmp_path: Path) -> Path:
    (tmp_path / "loras").mkdir()
    for number in range(3):
        sparse(tmp_path / "loras" / f"huge{number}.safetensors", HUGE, f"Huge {number}")
        write_lora(tmp_path / "loras" / f"small{number}.safetensors", number)
    return tmp_path / "loras"


@pytest.fixture
def engine(tmp_path: Path, library: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "state", library) as engine:
        yield engine


def concepts(engine: Engine, *names: str) -> list[Concept]:
    ids = {lora.name: lora.id for lora in engine.list_models(LORA)}
    return [Concept(ids[name], 0.5) for name in names]


def test_what_is_too_large_is_not_compared_and_the_rest_is(engine: Engine) -> None:
    mixes = {
        "huge": concepts(engine, "Huge 0", "Huge 1", "Huge 2"),
        "mixed": concepts(engine, "Huge 0", "small0"),
        "small": concepts(engine, "small0", "small1"),
        "alone": concepts(engine, "small0"),
    }
    started = time.process_time()
    advised = engine.advise(mixes)
    assert time.process_time() - started < 5
    assert {key: advice.level for key, advice in advised.items() if key != "small"} == {
        "huge": Level.NOT_COMPARED,
        "mixed": Level.NOT_COMPARED,
    }
    assert advised["small"].level is not Level.NOT_COMPARED
    assert advised["huge"].words.startswith("not compared: too large")


def test_equal_inputs_get_equal_advice_whatever_was_computed_before(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixes = {f"{n}": concepts(engine, f"small{n % 3}", f"small{(n + 1) % 3}") for n in range(6)}
    once = seconds([read(path) for path in _files(engine, "small0", "small1")])
    monkeypatch.setattr(overlaps, "BUDGET", 2.5 * once)  # of the three pairs, two
    first = engine.advise(mixes)
    assert [advice.level is Level.NOT_COMPARED for advice in first.values()] == [
        False,
        False,
        True,
        False,
        False,
        True,
    ]
    for mix in mixes.values():
        engine.inspect(mix)  # now every pair is kept
    assert engine.advise(mixes) == first


def _files(engine: Engine, *names: str) -> list[Path]:
    loras = engine._library.scan().loras.values()
    return [lora.fingerprint.path for lora in loras if lora.name in names]


def test_the_estimate_follows_ranks_widths_and_sizes(tmp_path: Path) -> None:
    def estimate(*ranks: int, modules: int = 1) -> float:
        paths = [
            sparse(
                tmp_path / f"{n}.safetensors",
                {f"transformer_blocks.{m}.attn.to_q": rank for m in range(modules)},
                "A",
            )
            for n, rank in enumerate(ranks)
        ]
        return seconds([read(path) for path in paths])

    assert estimate(16, 16) < estimate(32, 32) < estimate(128, 128) < estimate(3072, 3072)
    assert estimate(16, 16) < 0.01 and estimate(3072, 3072, 3072, 3072, 3072) > 20
    assert estimate(16, 16, modules=19) == pytest.approx(19 * estimate(16, 16), rel=0.5)


def test_comparing_shows_its_progress(tmp_path: Path, engine: Engine) -> None:
    path = write(
        Spec(False, "F32", {f"transformer_blocks.{n}.attn.to_q": 1 for n in range(5)}),
        tmp_path / "a.safetensors",
    )
    shares: list[float] = []
    grams([read(path)], shares.append)
    assert shares == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    shares.clear()
    inspect(path, progress=shares.append)
    assert shares[-1] == 1.0
    shares.clear()
    engine.inspect(concepts(engine, "small0", "small1"), shares.append)
    assert shares[-1] == 1.0
