"""Files and folders of LoRAs as a list: names, equal files, and what can't be used."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.engine_files import write_lora, write_t5

from composer.errors import UsageError
from composer.lora import inspect, list_loras, listing
from composer.targets.local.library import Library

if TYPE_CHECKING:
    from pathlib import Path

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")


def variant(path: Path, inputs: int) -> Path:
    """A LoRA whose first layer has so many inputs: 64, or those of a variant of the model."""
    tensors = {
        "img_in.lora_A.weight": np.full((1, inputs), len(path.name), np.float32),
        "img_in.lora_B.weight": np.ones((3072, 1), np.float32),
    }
    save_file(tensors, path)
    return path


def test_a_folder_is_listed_with_what_cannot_be_used_last(tmp_path: Path) -> None:
    write_lora(tmp_path / "a.safetensors", 1, title="Ink", rank=2)
    write_lora(tmp_path / "sub/b.safetensors", 2, output="b_v2")
    cut = (tmp_path / "a.safetensors").read_bytes()[:-4]
    (tmp_path / "cut.safetensors").write_bytes(cut)
    (tmp_path / "old.pt").write_bytes(b"\x80\x02")
    (tmp_path / "notes.txt").write_text("no LoRA")
    found = list_loras([tmp_path])
    folder = tmp_path.as_posix()
    assert [(one.name, one.aliases, one.info.file) for one in found.loras] == [
        ("Ink", ("a",), f"{folder}/a.safetensors"),
        ("b_v2", ("b", "sub/b"), f"{folder}/sub/b.safetensors"),
    ]
    assert (found.loras[0].info.ranks, found.loras[0].size) == ((2,), len(cut) + 4)
    assert [(one.file.rpartition("/")[2], one.named) for one in found.unusable] == [
        ("cut.safetensors", False),
        ("old.pt", False),
    ]
    assert found.unusable[0].reason.startswith("is cut short: ")
    assert found.unusable[1].reason.startswith("is a pickle, ")
    assert not found.failed


class Notes:
    """A store that remembers nothing."""

    def get_note(self, path: str, signature: str) -> None:
        return None

    def put_note(self, *note: object) -> None:
        return None


def test_ids_and_names_are_those_of_the_folder_as_a_library(tmp_path: Path) -> None:
    for seed, (place, title) in enumerate(
        {"a": "Ink", "b": "Ink", "p/c": None, "q/c": "x", "x": "Dust"}.items()
    ):
        write_lora(tmp_path / f"{place}.safetensors", seed, title=title)
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "a (1).safetensors")
    write_t5(tmp_path / "t5.safetensors")
    found, catalog = list_loras([tmp_path]), Library(tmp_path, Notes()).scan()  # type: ignore[arg-type]
    assert {one.info.id: (one.name, one.aliases) for one in found.loras} == {
        one.id: (one.name, one.aliases) for one in catalog.loras.values()
    }
    assert [one.file.rpartition("/")[2] for one in found.unusable] == ["t5.safetensors"]
    assert set(catalog.rejected) == {"t5"}
    assert not list_loras([tmp_path], for_composing=False).unusable


def test_of_equal_files_one_is_kept(tmp_path: Path) -> None:
    for name in ("ink (1)", "ink", "old/ink"):
        write_lora(tmp_path / f"{name}.safetensors", 1)
    (one,) = list_loras([tmp_path]).loras
    assert one.info.file.endswith("/ink.safetensors")
    assert [file.rpartition("/")[2] for file in one.duplicates] == [
        "ink (1).safetensors",
        "ink.safetensors",
    ]


@needs_links
def test_a_link_to_a_file_is_no_duplicate(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "loras/ink.safetensors", 1)
    (tmp_path / "loras/again.safetensors").symlink_to(path)
    os.link(path, tmp_path / "loras/hard.safetensors")
    (one,) = list_loras([tmp_path / "loras"]).loras
    assert one.duplicates == ()
    assert {"ink", "again", "hard"} == {one.name, *one.aliases}


@needs_links
@pytest.mark.parametrize("may", [True, False])
def test_a_link_out_of_the_folder_is_followed_if_that_is_allowed(tmp_path: Path, may: bool) -> None:
    blob = write_lora(tmp_path / "blobs/1234", 1)
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras/ink.safetensors").symlink_to(blob)
    asked: list[str] = []
    found = list_loras([tmp_path / "loras"], follow=lambda link: asked.append(link.name) or may)
    assert asked == ["ink.safetensors"]
    assert [one.name for one in found.loras] == ["ink"] * may
    assert [one.reason for one in found.unusable] == ["leads outside the library"] * (not may)


def test_files_and_folders_together(tmp_path: Path) -> None:
    """A file that is named has the scale that was given, and is listed once."""
    named = write_lora(tmp_path / "loras/ink.safetensors", 1)
    write_lora(tmp_path / "loras/dust.safetensors", 2)
    write_lora(tmp_path / "other/ink.safetensors", 3)
    found = list_loras([tmp_path / "loras", (named, 0.5), tmp_path / "other"])
    names = {one.info.file.removeprefix(f"{tmp_path.as_posix()}/"): one for one in found.loras}
    assert {file: one.scale for file, one in names.items()} == {
        "loras/ink.safetensors": 0.5,
        "loras/dust.safetensors": 1.0,
        "other/ink.safetensors": 1.0,
    }
    assert names["loras/dust.safetensors"].name == "dust"
    assert names["loras/ink.safetensors"].name.endswith("/loras/ink")


def test_a_file_that_was_named_and_cannot_be_used_is_a_failure(tmp_path: Path) -> None:
    good = write_lora(tmp_path / "good.safetensors", 1)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nothing")
    assert list_loras([good, bad]).failed
    assert not list_loras([tmp_path]).failed
    good.unlink()
    assert list_loras([tmp_path]).failed  # nothing is left
    assert list_loras([tmp_path]).error().message.startswith("bad.safetensors: ")
    gone = list_loras([tmp_path / "gone.safetensors", bad])
    assert gone.unusable[0].reason.startswith("can't be read: ")
    assert gone.error().message == "2 of 2 LoRA files can't be used"
    (tmp_path / "empty").mkdir()
    assert not list_loras([tmp_path / "empty"]).failed


def test_values_that_are_no_numbers_end_nothing(tmp_path: Path) -> None:
    write_lora(tmp_path / "good.safetensors", 1)
    tensors = {
        "img_in.lora_A.weight": np.full((1, 64), np.nan, np.float32),
        "img_in.lora_B.weight": np.ones((3072, 1), np.float32),
    }
    save_file(tensors, tmp_path / "nan.safetensors")
    found = list_loras([tmp_path], for_composing=False)
    assert "not finite" in found.unusable[0].reason
    (inspection,) = found.compare()
    assert inspection.mix.names == ("good",)


def test_comparing_gives_what_inspecting_the_files_gives(tmp_path: Path) -> None:
    files = {
        write_lora(tmp_path / f"{n}.safetensors", n, rank=n + 1): 0.5 + n / 10 for n in range(4)
    }
    (inspection,) = list_loras(files.items(), for_composing=False).compare()
    expected = inspect(files).mix
    assert inspection.mix.scales == expected.scales
    for i, j in expected.pairs:
        assert inspection.mix.cosine(i, j) == pytest.approx(expected.cosine(i, j), abs=1e-6)


def test_what_can_be_in_no_mix_together_is_compared_apart(tmp_path: Path) -> None:
    for name, inputs in {"plain": 64, "fill": 384, "control": 128, "other fill": 384}.items():
        variant(tmp_path / f"{name}.safetensors", inputs)
    reached: list[float] = []
    inspections = list_loras([tmp_path]).compare(reached.append)
    assert {one.title: one.mix.names for one in inspections} == {
        "FLUX.1": ("control", "plain"),
        "FLUX.1 with 384 inputs": ("fill", "other fill"),
    }
    assert reached == sorted(reached) and reached[-1] == 1.0


def test_too_many_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_COMPARED", 2)
    for n in range(3):
        write_lora(tmp_path / f"{n}.safetensors", n)
    found = list_loras([tmp_path])
    assert len(found.loras) == 3
    with pytest.raises(UsageError, match="3 LoRAs are too many to compare: 2 at most"):
        found.compare()


def test_progress_may_cancel(tmp_path: Path) -> None:
    for n in range(3):
        write_lora(tmp_path / f"{n}.safetensors", n)
    shares: list[float] = []
    list_loras([tmp_path], progress=shares.append)
    assert shares == [0.0, 1 / 3, 2 / 3, 1.0]

    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list_loras([tmp_path], progress=stop)
