"""The public names of `composer.lora`: `merge` and `inspect` as a Python program calls them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from safetensors.numpy import load_file
from support.cli import compose
from support.lora_files import Spec, write
from support.lora_wild import File, Lora, save

import composer.lora
from composer.errors import ComposeError, Refused, UsageError
from composer.lora import BadLora, Inspection, Merged, inspect, merge, read

if TYPE_CHECKING:
    from pathlib import Path

MODULES = {"transformer_blocks.0.attn.to_q": 2, "single_transformer_blocks.3.proj_out": 4}


@pytest.fixture
def loras(tmp_path: Path) -> dict[str, float]:
    """Two LoRA files, each with its scale."""
    paths = [tmp_path / f"{name}.safetensors" for name in ("ink", "pixel")]
    for seed, path in enumerate(paths):
        write(Spec(False, "F32", MODULES, seed=seed), path)
    return dict(zip(map(str, paths), (0.65, 0.8), strict=True))


def test_every_public_name_exists() -> None:
    for name in composer.lora.__all__:
        assert getattr(composer.lora, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        composer.lora.nonsense  # noqa: B018


def test_merge_writes_the_weighted_sum(tmp_path: Path, loras: dict[str, float]) -> None:
    out = tmp_path / "both.safetensors"
    merged = merge(loras, str(out), rank=3, precision="bfloat16", format="kohya")
    assert isinstance(merged, Merged)
    assert merged.size == out.stat().st_size
    assert merged.report.dtype == "BF16"
    assert (read(out).format, read(out).ranks) == ("kohya", (3,))


def test_merge_takes_pairs_and_paths_too(tmp_path: Path, loras: dict[str, float]) -> None:
    first, second, third = (tmp_path / f"out{n}.safetensors" for n in range(3))
    merge(loras, first)
    merge(list(loras.items()), second)
    merge(loras, third, dry_run=True)
    assert not third.exists()
    merge(dict.fromkeys(loras, 1.0), third)
    alone = tmp_path / "alone.safetensors"
    merge(list(loras), alone)
    for one, two in ((first, second), (third, alone)):
        tensors = load_file(two)
        assert load_file(one).keys() == tensors.keys()
        for key, values in load_file(one).items():
            assert (values == tensors[key]).all()


def test_inspect_returns_what_the_files_are(loras: dict[str, float]) -> None:
    inspection = inspect(loras)
    assert isinstance(inspection, Inspection)
    assert [info.file for info in inspection.loras] == ["ink.safetensors", "pixel.safetensors"]
    assert inspection.mix.scales == (0.65, 0.8)
    assert inspect(list(loras)).mix.scales == (1.0, 1.0)
    assert inspect(next(iter(loras))).mix.names == ("ink",)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rank": 0}, "rank is 0, and must be 1 or more"),
        ({"precision": "int8"}, "precision is 'int8', and must be one of float32"),
        ({"format": "xlabs"}, "format is 'xlabs', and must be one of diffusers, kohya"),
    ],
)
def test_wrong_arguments_are_refused(
    tmp_path: Path, loras: dict[str, float], arguments: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        merge(loras, tmp_path / "out.safetensors", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "out.safetensors").exists()


def test_wrong_loras_are_refused(tmp_path: Path, loras: dict[str, float]) -> None:
    out = tmp_path / "out.safetensors"
    ink = next(iter(loras))
    for given, words in (
        ({}, "no LoRA files given"),
        ({ink: float("nan")}, "the scale nan is not a finite number"),
        ([ink, ink], "are the same LoRA"),
    ):
        with pytest.raises(UsageError, match=words):
            merge(given, out)
    out.write_bytes(b"older")
    with pytest.raises(Refused):
        merge(loras, out)
    with pytest.raises(BadLora, match=r"out\.safetensors"):
        inspect(out)
    with pytest.raises(BadLora, match=r"none\.safetensors"):
        merge(tmp_path / "none.safetensors", tmp_path / "new.safetensors")
    assert issubclass(BadLora, ComposeError)


def test_they_print_nothing_and_read_no_environment(
    tmp_path: Path,
    loras: dict[str, float],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unread(dict[str, str]):
        def __getitem__(self, key: str) -> str:
            raise AssertionError(f"read the variable {key}")

        get = __getitem__  # type: ignore[assignment]

    monkeypatch.setattr(os, "environ", Unread())
    merge(loras, tmp_path / "out.safetensors", rank=2)
    inspect(loras)
    assert capfd.readouterr() == ("", "")


def test_importing_it_imports_no_numpy() -> None:
    modules = "composer.lora, composer.lora.inspection, composer.lora.formats"
    program = f"import sys, {modules}; print('numpy' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "False\n"


# --- results that are far larger than their LoRAs ----------------------------------------

CLIP_Q = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
WHOLE = Lora("lycoris_transformer_blocks_0_attn_to_q", "lokr", split=(4, 4), whole=(True, True))
HADAMARD = Lora("transformer.transformer_blocks.0.attn.to_q", "loha", ranks=(30, 30))


@pytest.mark.parametrize(
    ("lora", "rank", "offered"),
    [
        (WHOLE, None, 128),
        (HADAMARD, None, 128),
        (replace(WHOLE, split=(64, 48)), None, 16),
        (WHOLE, 1024, 128),
    ],
)
def test_one_is_warned_of_with_a_rank_that_helps(
    tmp_path: Path, lora: Lora, rank: int | None, offered: int
) -> None:
    path = save(File((lora,)), tmp_path / "in.safetensors")
    out = tmp_path / "out.safetensors"
    merged = merge(path, out, rank=rank, dry_run=True)
    (warning,) = merged.notes
    assert f"{merged.size / 1e6:,.0f} MB" in warning
    assert f"rank {offered} (--rank, or the training parameter rank) makes it at most" in warning
    again = merge(path, out, rank=offered, dry_run=True)
    assert again.notes == ()
    assert f"at most {again.size / 1e6:,.0f} MB" in warning


def test_it_is_warned_of_before_it_is_written(tmp_path: Path) -> None:
    save(File((WHOLE,)), tmp_path / "in.safetensors")
    out = tmp_path / "out.safetensors"
    heard: list[tuple[str, bool]] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append((record.getMessage(), out.exists()))  # type: ignore[method-assign]
    logger = logging.getLogger("composer.lora")
    logger.addHandler(handler)
    merged = merge(tmp_path / "in.safetensors", out)
    logger.removeHandler(handler)
    assert heard == [(merged.notes[0], False)]
    ran = compose("merge", "in.safetensors", "-o", "out2.safetensors", at=tmp_path)
    assert ran.status == 0 and ran.err.startswith("the result has a rank of up to 3,072")


@pytest.mark.parametrize("stem", [CLIP_Q, "transformer.x_embedder"])
def test_others_are_not(tmp_path: Path, stem: str) -> None:
    path = save(File((Lora(stem, ranks=(2, 1)),)), tmp_path / "in.safetensors")
    assert merge(path, tmp_path / "out.safetensors").notes == ()
