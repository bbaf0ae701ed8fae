"""Tasks: what a worker checks before it composes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.engine_files import write_lora

from composer.errors import BadLora, TargetError
from composer.lora.fingerprint import fingerprint_file
from composer.lora.merging import OutputOptions
from composer.targets.local.tasks import Task, carry_out
from composer.targets.local.tickets import FileTicket

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for seed in (1, 2):
        write_lora(tmp_path / "loras" / f"{seed}.safetensors", seed)
    return tmp_path / "loras"


def test_a_worker_takes_a_lora_by_its_digest(tmp_path: Path, library: Path) -> None:
    """Another machine may see other times and inodes of the same file, and another file there."""
    mark = fingerprint_file(library / "1.safetensors")
    ticket = FileTicket(tmp_path / "state" / ".a.1.compose.tmp")
    ticket.path.parent.mkdir()
    ticket.open()
    other = replace(mark, path=library / "2.safetensors")
    with pytest.raises(BadLora, match=r"2\.safetensors on .* is another file than in the library"):
        carry_out(Task("a", ((other, 0.5),), OutputOptions()), ticket)
    moved = replace(mark, signature="as another machine sees it")
    result = carry_out(Task("a", ((moved, 0.5),), OutputOptions()), ticket)
    out = ticket.path.with_name(result.name)
    assert out.stat().st_size == result.size
    assert {*out.parent.iterdir()} == {ticket.path, out}  # of the one that failed nothing is left


def test_a_worker_with_another_version_refuses(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"has compose .*, and the task is of 0\.0\.1"):
        carry_out(Task("a", (), OutputOptions(), version="0.0.1"), FileTicket(tmp_path / "ticket"))
