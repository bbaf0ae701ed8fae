"""Sweeps of merges: the bytes of single merges, names for any system, all or no files."""

from __future__ import annotations

import hashlib
import re
from itertools import product
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.engine_files import snapshot, write_lora, write_peft
from support.sizes import size

from composer.errors import BadLora, ComposeError, Refused, TargetError, UsageError
from composer.lora import fingerprint, hashing, merge, merging, sweep, sweeping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from composer.lora import Merged

RANGE = (0.4, 0.6, 0.8, 1.0)


@pytest.fixture
def loras(tmp_path: Path) -> Path:
    for seed, (name, rank) in enumerate({"Ink Lines": 2, "dust": 3}.items(), 1):
        write_lora(tmp_path / "loras" / f"{name}.safetensors", seed, rank=rank)
    return tmp_path / "loras"


def axes(loras: Path, *scales: object) -> list[tuple[Path, Any]]:
    return list(zip(sorted(loras.iterdir()), scales, strict=True))


@pytest.mark.parametrize(
    "wish",
    [{}, {"rank": 2}, {"precision": "float16"}, {"format": "kohya"}],
    ids=str,
)
def test_each_file_is_what_a_single_merge_writes(
    tmp_path: Path, loras: Path, wish: dict[str, Any]
) -> None:
    merges = sweep(axes(loras, (0.4, 1), (0, -0.5)), tmp_path / "out", **wish)
    assert [scales_of(one) for one in merges] == [
        [first, second] for first in (0.4, 1) for second in (0, -0.5)
    ]
    assert sorted(one.out for one in merges) == sorted((tmp_path / "out").iterdir())
    for one in merges:
        scales = [int(scale) if scale in (0, 1) else scale for scale in scales_of(one)]
        alone = merge(axes(loras, *scales), tmp_path / one.out.name, **wish)
        assert one.out.read_bytes() == alone.out.read_bytes()
        assert (one.size, one.report, one.notes) == (alone.size, alone.report, alone.notes)


def scales_of(merged: Merged) -> list[float]:
    return [part.scale for part in merged.parts]


def test_names_have_loras_and_scales(tmp_path: Path, loras: Path) -> None:
    merges = sweep(axes(loras, [0.05, 0.1, 1, -0.25], 0.8), tmp_path / "out", dry_run=True)
    assert [one.out.name for one in merges] == [
        "Ink-Lines_0.05_dust_0.8.safetensors",
        "Ink-Lines_0.10_dust_0.8.safetensors",
        "Ink-Lines_1.00_dust_0.8.safetensors",
        "Ink-Lines_-0.25_dust_0.8.safetensors",
    ]
    assert not (tmp_path / "out").exists()


def test_files_of_one_name_have_their_folders(tmp_path: Path) -> None:
    paths = [write_peft(tmp_path / name, n) for n, name in enumerate(("ink", "dust"), 1)]
    paths += [write_lora(tmp_path / name / "knight.safetensors", ord(name)) for name in "ab"]
    (one,) = sweep(dict.fromkeys(paths, 1.0), tmp_path, dry_run=True)
    assert one.out.name == "ink_1_dust_1_a-knight_1_b-knight_1.safetensors"


RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|\Z)", re.IGNORECASE)
ODD = ["con", "NUL.1", "aux", "..", "水彩" * 60, "🎨"]
stems = st.one_of(st.text(min_size=1, max_size=90), st.sampled_from(ODD))


@settings(max_examples=size(40, 2000))
@given(
    st.lists(
        st.tuples(
            stems,
            st.sets(st.floats(-2, 2).map(lambda x: round(x, 4) + 0.0), min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_name_is_valid_on_every_system_and_unique(
    named: list[tuple[str, set[float]]],
) -> None:
    found = [
        (Path("loras", f"x{stem.replace('/', '')}.safetensors"), tuple(scales))
        for stem, scales in named
    ]
    names = sweeping._names(found, 10**6)
    assert list(names) == list(product(*(scales for _, scales in found)))
    assert len({name.casefold() for name in names.values()}) == len(names)
    for name in names.values():
        file = f"{name}.safetensors"
        assert len(file.encode()) <= 255
        assert PureWindowsPath(file).name == file and not RESERVED.match(file)
        assert file.isprintable() and not set(file) & set('<>:"/\\|?* ')


def test_inputs_are_read_and_hashed_once(
    tmp_path: Path, loras: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the files were older than their file system's clock is coarse.
    monkeypatch.setattr(fingerprint.StatSignature, "reliable", lambda *given: True)
    hashed, read = [], []

    def sha256_of(path: Path, *more: Any) -> str:
        hashed.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def reading(path: Path, **more: Any) -> Any:
        read.append(path)
        return original(path, **more)

    original = fingerprint.read
    monkeypatch.setattr(hashing, "sha256_of", sha256_of)
    monkeypatch.setattr(fingerprint, "sha256_of", sha256_of)
    monkeypatch.setattr(fingerprint, "read", reading)
    assert len(sweep(axes(loras, RANGE, (0.5, 1)), tmp_path / "out")) == 8
    assert sorted(hashed) == sorted(read) == sorted(loras.iterdir())


# --- what it refuses ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scales", "more", "words"),
    [
        ((RANGE, [n / 100 for n in range(50)]), {}, "make 200 files, .* at most 100"),
        ((RANGE, 1.0), {"limit": 3}, "make 4 files, .* at most 3"),
        (([], 1.0), {}, "no scale is given"),
        (([0.5, 1, 0.5], 1.0), {}, "0.5 is given twice"),
        (([0.5, float("nan")], 1.0), {}, "not a finite number"),
        (([0.5, 1e-30], 1.0), {}, "more than 20 decimals"),
        ((RANGE, 1.0), {"rank": 0}, "rank is 0"),
        ((RANGE, 1.0), {"format": "foo"}, "format is 'foo'"),
    ],
    ids=str,
)
def test_what_cant_be_meant(
    tmp_path: Path, loras: Path, scales: Sequence[object], more: dict[str, Any], words: str
) -> None:
    before = snapshot(tmp_path)
    with pytest.raises(UsageError, match=words):
        sweep(axes(loras, *scales), tmp_path / "out", **more)
    with pytest.raises(UsageError, match="no LoRA files"):
        sweep({}, tmp_path / "out")
    assert (snapshot(tmp_path), (tmp_path / "out").exists()) == (before, False)


def test_files_that_exist_are_replaced_with_force_alone(tmp_path: Path, loras: Path) -> None:
    out = tmp_path / "out"
    first = sweep(axes(loras, [0.4, 0.6], 1), out)
    first[1].out.write_bytes(b"mine")
    before = snapshot(tmp_path)
    with pytest.raises(Refused, match=r"out already has 2 of 4 files: Ink-Lines_0\.4_dust_1"):
        sweep(axes(loras, RANGE, 1), out)
    assert snapshot(tmp_path) == before
    assert len(sweep(axes(loras, RANGE, 1), out, force=True)) == 4
    assert first[1].out.read_bytes() != b"mine"


def test_an_input_is_never_replaced(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "ink.safetensors", 1)
    (result,) = sweep({path: 0.5}, tmp_path)
    result.out.unlink()
    result.out.hardlink_to(path)
    before = snapshot(tmp_path)
    with pytest.raises(UsageError, match=r"ink_0\.5\.safetensors is one of the LoRAs"):
        sweep({path: (0.4, 0.5)}, tmp_path, force=True)
    assert snapshot(tmp_path) == before


def test_a_folder_that_cant_be_one(tmp_path: Path, loras: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is not a folder"):
        sweep(axes(loras, RANGE, 1), tmp_path / "file")
    with pytest.raises(TargetError, match="can't be written: Not a directory"):
        sweep(axes(loras, RANGE, 1), tmp_path / "file" / "out")


# --- whole or absent ---------------------------------------------------------------------


def test_the_space_for_all_is_checked_before_the_first_is_written(
    tmp_path: Path, loras: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = merge(axes(loras, 1, 1), tmp_path / "one.safetensors", dry_run=True).size
    monkeypatch.setattr(merging, "free_space", lambda folder: 3 * each)
    for dry_run in (True, False):
        with pytest.raises(TargetError, match="not enough disk space"):
            sweep(axes(loras, [0.2, 0.4, 0.6], 1), tmp_path / "a" / "b", dry_run=dry_run)
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr(merging, "free_space", lambda folder: 4 * each)
    assert len(sweep(axes(loras, [0.2, 0.4, 0.6], 1), tmp_path / "a" / "b")) == 3


def test_a_bad_file_is_found_before_anything_is_written(tmp_path: Path, loras: Path) -> None:
    (loras / "z.safetensors").write_bytes(b"no")
    with pytest.raises(BadLora, match=r"z\.safetensors"):
        sweep(axes(loras, RANGE, 1, 1), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("harm", ["interrupt", "edit"])
def test_ended_early_it_leaves_whole_files_alone(tmp_path: Path, loras: Path, harm: str) -> None:
    shares: list[float] = []

    def progress(share: float) -> None:
        shares.append(share)
        if share > 0.6:
            if harm == "interrupt":
                raise KeyboardInterrupt
            path = loras / "dust.safetensors"
            path.write_bytes(path.read_bytes()[:-4] + bytes(4))

    with pytest.raises((KeyboardInterrupt, ComposeError)):
        sweep(axes(loras, RANGE, 1), tmp_path / "out", progress=progress)
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] > 0.6
    whole = sorted((tmp_path / "out").iterdir())
    assert [path.name[:13] for path in whole] == ["Ink-Lines_0.4", "Ink-Lines_0.6"]
    if harm == "interrupt":
        for path in whole:
            alone = merge(axes(loras, float(path.name[10:13]), 1), tmp_path / path.name)
            assert path.read_bytes() == alone.out.read_bytes()
