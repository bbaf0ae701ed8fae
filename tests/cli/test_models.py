"""`compose models`: what is on the target, and why a file is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.cli import compose

if TYPE_CHECKING:
    from pathlib import Path


def test_models_lists_what_there_is_and_why_a_file_is_not(project: Path) -> None:
    (project / "recipes/loras/broken.safetensors").write_bytes(b"no LoRA at all")
    (project / "recipes/loras/old.ckpt").write_bytes(b"\x80\x02}q\x00.")
    shown = compose("models", "--type", "flux.1-lora", at=project).out
    assert "Ink Lines" in shown
    assert "not usable: " in shown
    assert "broken.safetensors" in shown
    assert "old.ckpt" in shown
    assert compose("apply", at=project).status == 0  # it spoils nothing else


def test_models_of_an_unknown_type_are_a_usage_error(project: Path) -> None:
    refused = compose("models", "--type", "foo", at=project)
    assert (refused.status, refused.out) == (64, "")
    assert "'flux.1-lora', 'flux.1-composition'" in refused.err
    assert "flux.1-composition" not in compose("models", "--type", "flux.1-lora", at=project).out
