"""The library: which files are LoRAs, under which ids and names, and what is passed over."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.engine_files import Notes, write_lora, write_peft
from support.model_types import LORA
from support.sizes import size

from composer.errors import BadLora, TargetError
from composer.lora.ids import composition_ids, job_id, lora_id, pair_id
from composer.lora.signature import Hashes
from composer.model import Concept, is_id
from composer.targets.local.kind import find_library
from composer.targets.local.library import Library, lora_model
from composer.targets.local.records import iso

if TYPE_CHECKING:
    from pathlib import Path

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")


def scan(folder: Path | None) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Names with aliases, and what is rejected."""
    catalog = Library(folder, Notes()).scan()
    return {lora.name: lora.aliases for lora in catalog.loras.values()}, dict(catalog.rejected)


# --- ids ---------------------------------------------------------------------------------


def test_ids_are_pinned() -> None:
    """Locks hold these ids: they may never come out otherwise."""
    assert lora_id(hashlib.sha256(b"").digest()) == "model_47DEQpj8HBSa-_TImW-5JC"
    concepts = (Concept("model_a", 0.65), Concept("model_b", 1.0))
    ids = composition_ids("Storybook Knight", concepts)
    assert [next(ids), next(ids)] == [
        "model_7BvXOyjrM6pvk0oguwLJ80",
        "model_gxsET2p5hf-xBkrvJdHXwT",
    ]
    assert next(composition_ids("Chevalier d'été", concepts)) == "model_7Djq3gutQq-iZ0KOLbveuA"
    assert job_id("model_a") == "job_3A7pAvIRy0Va5E7cR4vDm3"


def test_an_id_follows_the_bytes(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "a.safetensors")
    (lora,) = Library(tmp_path, Notes()).scan().loras.values()
    assert lora.id == lora_id(hashlib.sha256(path.read_bytes()).digest())
    assert lora.fingerprint.hashes.weights == hashlib.sha256(path.read_bytes()).hexdigest()
    assert is_id(lora.id)
    assert len(lora.id) == len("model_") + 22


# --- names -------------------------------------------------------------------------------


def test_a_lora_is_named_by_its_title_its_output_or_its_file(tmp_path: Path) -> None:
    write_lora(tmp_path / "a.safetensors", 1, title="Ink Lines", output="ink_v3")
    write_lora(tmp_path / "b.safetensors", 2, output="pixel_dust")
    write_lora(tmp_path / "sub/castle.v2.safetensors", 3, title="  ")
    names, rejected = scan(tmp_path)
    assert names == {"Ink Lines": ("a",), "pixel_dust": ("b",), "castle.v2": ("sub/castle.v2",)}
    assert rejected == {}


def test_names_are_what_a_recipe_can_write(tmp_path: Path) -> None:
    write_lora(tmp_path / "a.safetensors", 1, title="Two\n lines\t and \u202ebidi\x07")
    write_lora(tmp_path / "e\u0301te\u0301.safetensors", 2)
    assert set(scan(tmp_path)[0]) == {"Two lines and bidi", "\u00e9t\u00e9"}


def test_equal_files_are_one_model_with_aliases(tmp_path: Path) -> None:
    for name in ("b", "a", "sub/c", "sub/a"):
        write_lora(tmp_path / f"{name}.safetensors", 1)
    names, _ = scan(tmp_path)
    assert names == {"a": ("b", "c", "sub/a", "sub/c")}
    (lora,) = Library(tmp_path, Notes()).scan().loras.values()
    files = ("a.safetensors", "b.safetensors", "sub/a.safetensors", "sub/c.safetensors")
    assert lora_model(lora).files == files


@pytest.mark.parametrize(
    ("titles", "expected"),
    [
        ({"a": "Ink", "b": "Ink"}, {"a": ("a", "Ink"), "b": ("b", "Ink")}),
        (
            {"ink-000004": "ink", "ink-000008": "ink", "ink": "ink"},
            {"ink-000004": ("ink-000004",), "ink-000008": ("ink-000008",), "ink": ("ink",)},
        ),
        ({"p/x": None, "q/x": None}, {"p/x": ("p/x", "x"), "q/x": ("q/x", "x")}),
        (
            {"p/x": "Ink", "q/x": "Ink", "y": "Ink"},
            {"p/x": ("p/x", "x", "Ink"), "q/x": ("q/x", "x", "Ink"), "y": ("y", "Ink")},
        ),
        (
            {"a": "Ink", "b": "Ink", "c": "a"},
            {"a": ("a", "Ink"), "b": ("b", "Ink"), "c": ("c", "a")},
        ),
        (
            {"p/adapter_model": None, "q/p/adapter_model": None},
            {
                "p/adapter_model": ("p/adapter_model", "p"),
                "q/p/adapter_model": ("q/p/adapter_model", "p"),
            },
        ),
    ],
)
def test_loras_of_one_title_are_named_by_their_files(
    tmp_path: Path, titles: dict[str, str | None], expected: dict[str, tuple[str, ...]]
) -> None:
    """As the checkpoints of one training; the title stays a name where no other file has it."""
    for seed, (place, title) in enumerate(titles.items()):
        write_lora(tmp_path / f"{place}.safetensors", seed, title=title)
    loras = Library(tmp_path, Notes()).scan().loras.values()
    found = {
        lora.fingerprint.path.relative_to(tmp_path).with_suffix("").as_posix(): (
            lora.name,
            *lora.aliases,
        )
        for lora in loras
    }
    assert found == expected


def test_of_equal_files_the_plainest_is_the_first(tmp_path: Path) -> None:
    for place in ("ink (1)", "ink", "old/ink", "ink copy"):
        write_lora(tmp_path / f"{place}.safetensors", 1)
    (lora,) = Library(tmp_path, Notes()).scan().loras.values()
    assert [file.removesuffix(".safetensors") for file in lora.files] == [
        "ink",
        "ink (1)",
        "ink copy",
        "old/ink",
    ]
    assert (lora.name, lora.aliases) == ("ink", ("ink (1)", "ink copy", "old/ink"))


def test_created_at_is_the_files_time(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "a.safetensors")
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    (lora,) = Library(tmp_path, Notes()).scan().loras.values()
    assert lora.created_at == "2023-11-14T22:13:20.123Z"


@given(st.integers(-(2**63), 2**63))
@settings(max_examples=size(50, 2000))
def test_any_time_is_answered(ms: int) -> None:
    assert iso(ms).endswith("Z")


# --- what PEFT saves ---------------------------------------------------------------------


def ids(folder: Path) -> dict[str, str]:
    return {lora.name: lora.id for lora in Library(folder, Notes()).scan().loras.values()}


def digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def test_the_id_follows_the_weights_and_the_configuration_beside_them(tmp_path: Path) -> None:
    """The configuration says how strong the LoRA is: another one makes another LoRA."""
    path = write_peft(tmp_path / "knight", 1, alpha=8)
    config = path.with_name("adapter_config.json")
    paired = ids(tmp_path)["knight"]
    assert paired == pair_id(digest(path), digest(config))
    assert is_id(paired)
    write_peft(tmp_path / "knight", 1, alpha=16)
    assert ids(tmp_path)["knight"] not in (paired, lora_id(digest(path)))
    config.unlink()
    assert ids(tmp_path)["knight"] == lora_id(digest(path))


def test_pairs_are_pinned() -> None:
    """Locks hold these ids: they may never come out otherwise."""
    assert pair_id(bytes(32), bytes(31) + b"\1") == "model_kPSzlUjfVa1hh6HSDXMezu"


def test_a_configuration_beside_another_file_says_nothing(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "ink.safetensors", 1)
    (tmp_path / "adapter_config.json").write_text("no JSON")
    assert ids(tmp_path) == {"ink": lora_id(digest(path))}


def test_equal_weights_of_two_strengths_are_two_models(tmp_path: Path) -> None:
    for name, alpha in (("a", 8), ("b", 16), ("c", 8)):
        write_peft(tmp_path / name, 1, alpha=alpha)
    assert {name: aliases[:-1] for name, aliases in scan(tmp_path)[0].items()} == {
        "a": ("c", "a/adapter_model"),
        "b": (),
    }


def test_a_file_whose_name_says_nothing_is_named_after_its_folder(tmp_path: Path) -> None:
    write_peft(tmp_path / "styles/Ink Lines", 1)
    write_lora(tmp_path / "castle/pytorch_lora_weights.safetensors", 2)
    write_lora(tmp_path / "dust/pytorch_lora_weights.safetensors", 3, title="Pixel Dust")
    write_lora(tmp_path / "pytorch_lora_weights.safetensors", 4)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/adapter_model.safetensors").write_bytes(b"x" * 40)
    names, rejected = scan(tmp_path)
    assert set(names) == {"Ink Lines", "castle", "Pixel Dust", "pytorch_lora_weights"}
    assert set(rejected) == {"broken"}


@pytest.mark.parametrize("reliable", [True, False])
@pytest.mark.parametrize("harm", ["other", "gone", "new"])
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "inky.safetensors"])
def test_a_change_of_the_configuration_is_seen(
    tmp_path: Path, reliable: bool, harm: str, name: str
) -> None:
    path = write_peft(tmp_path / "knight", 1, alpha=8, name=name)
    config = path.with_name("adapter_config.json")
    if harm == "new":
        config.unlink()
    ahead = 3_000_000_000 if reliable else 0
    library = Library(tmp_path, Notes(), clock=lambda: time.time_ns() + ahead)
    (before,) = library.scan().loras.values()
    assert (before.fingerprint.reliable, before.fingerprint.unchanged()) == (reliable, True)
    if harm == "gone":
        config.unlink()
    else:
        write_peft(tmp_path / "knight", 1, alpha=32, name=name)
    assert not before.fingerprint.unchanged()
    (after,) = library.scan().loras
    assert after != before.id


def test_a_note_holds_for_weights_and_configuration(tmp_path: Path) -> None:
    path, notes = write_peft(tmp_path / "knight", 1, alpha=8), Notes()

    def looked() -> str:
        library = Library(tmp_path, notes, clock=lambda: time.time_ns() + 3_000_000_000)
        (id,) = library.scan().loras
        return id

    before = looked()
    ((key, (stamp, hashes, type, title)),) = notes.noted.items()
    assert hashes == f"{digest(path).hex()} {digest(path.with_name('adapter_config.json')).hex()}"
    assert looked() == before
    notes.noted[key] = (stamp, f"{hashes[:64]} {'00' * 32}", type, title)
    assert looked() == pair_id(digest(path), bytes(32))  # which shows that nothing is read again
    write_peft(tmp_path / "knight", 1, alpha=16)
    assert looked() not in (before, pair_id(digest(path), bytes(32)))


@needs_links
@pytest.mark.parametrize("name", ["adapter_model", "knight"])
def test_a_configuration_that_leads_outside_is_not_opened(tmp_path: Path, name: str) -> None:
    path = write_peft(tmp_path / "loras/knight", 1, name=f"{name}.safetensors")
    config = path.with_name("adapter_config.json")
    shutil.move(config, tmp_path / "secret.json")
    config.symlink_to(tmp_path / "secret.json")
    said = f"knight/{name}.safetensors has an adapter_config.json that leads outside the library"
    assert scan(tmp_path / "loras") == ({}, {"knight": said})


@needs_links
def test_one_that_leads_outside_is_no_matter_to_other_tools_files(tmp_path: Path) -> None:
    write_lora(tmp_path / "loras/ink.safetensors", 1)
    (tmp_path / "secret.json").write_text("{}", "utf-8")
    (tmp_path / "loras/adapter_config.json").symlink_to(tmp_path / "secret.json")
    assert scan(tmp_path / "loras") == ({"ink": ()}, {})


@needs_links
def test_nor_is_one_that_leads_outside_since_the_library_was_read(tmp_path: Path) -> None:
    config = write_peft(tmp_path / "loras/knight", 1).with_name("adapter_config.json")
    (lora,) = Library(tmp_path / "loras", Notes()).scan().loras.values()
    shutil.move(config, tmp_path / "secret.json")
    config.symlink_to(tmp_path / "secret.json")
    with pytest.raises(BadLora, match="leads outside the library"):
        lora.fingerprint.read()
    assert not lora.fingerprint.unchanged()


@needs_links
def test_it_is_looked_for_beside_the_name_not_beside_what_that_leads_to(tmp_path: Path) -> None:
    """As downloads are kept: names in one folder, the files themselves, by hash, in another."""
    path = write_peft(tmp_path / "snapshots/knight", 1, alpha=8)
    config = path.with_name("adapter_config.json")
    expected = pair_id(digest(path), digest(config))
    (tmp_path / "blobs").mkdir()
    for file in (path, config):
        blob = tmp_path / "blobs" / digest(file).hex()
        shutil.move(file, blob)
        file.symlink_to(blob)
    assert ids(tmp_path) == {"knight": expected}


# --- what is no LoRA ---------------------------------------------------------------------


def test_no_folder_is_an_empty_library(tmp_path: Path) -> None:
    assert scan(None) == ({}, {})
    assert scan(tmp_path / "nowhere") == ({}, {})


def test_a_library_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "a.safetensors")
    with pytest.raises(TargetError, match=r"a\.safetensors can't be read"):
        scan(path)


def test_one_bad_file_spoils_nothing_else(tmp_path: Path) -> None:
    good = write_lora(tmp_path / "good.safetensors", 1)
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:-9])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "old.ckpt").write_bytes(b"\x80\x04")
    (tmp_path / "old.PT").write_bytes(b"PK\x03\x04")
    (tmp_path / ".hidden.safetensors").write_bytes(b"x")
    (tmp_path / "README.md").write_text("not a model")
    write_lora(tmp_path / ".git/inner.safetensors", 2)
    names, rejected = scan(tmp_path)
    assert names == {"good": ()}
    assert rejected.keys() == {"cut", "empty", "old"}
    assert all(f"{name}.safetensors" in rejected[name] for name in ("cut", "empty"))
    assert "old.PT is a pickle" in rejected["old"]
    assert "old.ckpt is a pickle" in rejected["old"]


@needs_links
def test_links_are_followed_within_the_library_only(tmp_path: Path) -> None:
    library, outside = tmp_path / "loras", tmp_path / "elsewhere"
    write_lora(library / "sub/a.safetensors", 1)
    write_lora(outside / "b.safetensors", 2)
    (library / "b.safetensors").symlink_to(outside / "b.safetensors")
    (library / "c.safetensors").symlink_to("sub/a.safetensors")
    (library / "broken.safetensors").symlink_to("nothing")
    (library / "around.safetensors").symlink_to("around.safetensors")
    (library / "folder").symlink_to(outside)
    (library / "again").symlink_to("sub")
    (library / "sub/up").symlink_to("..")
    names, rejected = scan(library)
    assert names == {"c": ("a", "sub/a")}
    assert rejected.keys() == {"b", "broken", "around", "folder"}
    assert rejected["b"] == "b.safetensors leads outside the library"
    assert rejected["folder"] == "folder leads outside the library"


@needs_links
def test_the_library_itself_may_be_a_link(tmp_path: Path) -> None:
    write_lora(tmp_path / "real/a.safetensors")
    (tmp_path / "loras").symlink_to("real")
    assert scan(tmp_path / "loras") == ({"a": ()}, {})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_link_out_of_the_default_library_is_not_opened(tmp_path: Path) -> None:
    """To open a pipe would wait forever."""
    project, outside = tmp_path / "project", tmp_path / "outside.safetensors"
    write_lora(project / "recipes/loras/a.safetensors", 1)
    os.mkfifo(outside)
    (project / "recipes/loras/b.safetensors").symlink_to(outside)
    (project / "recipes/c.yaml").write_text("")
    library = find_library(project, ["recipes/c.yaml"], given=None, env={})
    assert scan(library) == ({"a": ()}, {"b": "b.safetensors leads outside the library"})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert scan(tmp_path)[1] == {"pipe": "pipe.safetensors is not a regular file"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have text for names")
def test_a_name_of_any_bytes_is_listed(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "a.safetensors", 1)
    os.rename(path, os.fsencode(tmp_path) + b"/ink\xff.safetensors")
    (tmp_path / os.fsdecode(b"bad\xff.safetensors")).write_bytes(b"x" * 40)
    names, rejected = scan(tmp_path)
    assert (set(names), set(rejected)) == ({"ink"}, {"bad"})


# --- looking again -----------------------------------------------------------------------


def test_a_fresh_file_is_never_trusted_by_its_stamp(tmp_path: Path) -> None:
    """Within a tick of the file system's clock a change doesn't show."""
    write_lora(tmp_path / "a.safetensors")
    notes = Notes()
    Library(tmp_path, notes).scan()
    assert notes.noted == {}
    Library(tmp_path, notes, clock=lambda: time.time_ns() + 3_000_000_000).scan()
    assert len(notes.noted) == 1


def test_a_note_is_used_while_the_stamp_holds(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "a.safetensors", 1, title="Ink")
    notes = Notes()

    def looked() -> list[tuple[str, str]]:
        library = Library(tmp_path, notes, clock=lambda: time.time_ns() + 3_000_000_000)
        return [(lora.id, lora.name) for lora in library.scan().loras.values()]

    (before,) = looked()
    ((key, (stamp, _, type, title)),) = notes.noted.items()
    assert (type, title) == (LORA, "Ink")
    lie = (lora_id(bytes(32)), "Lie")  # shows that the file isn't read again
    notes.noted[key] = (stamp, "00" * 32, LORA, "Lie")
    assert looked() == [lie]
    notes.noted[key] = (stamp, "no hash", LORA, "Lie")
    assert looked() == [before]
    notes.noted[key] = (stamp, "00" * 32, "a family of another machine", "Lie")
    assert looked() == [before]
    notes.noted[key] = (stamp, "00" * 32, LORA, "Lie")
    write_lora(path, 2, title="Ink")
    (after,) = looked()
    assert after not in (before, lie)


@pytest.mark.parametrize(("limit", "is_told"), [(1, True), (10**9, False)])
def test_a_large_file_is_named_before_it_is_read_and_once(
    tmp_path: Path,
    limit: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    is_told: bool,
) -> None:
    monkeypatch.setattr("composer.targets.local.library._LARGE", limit)
    for seed, name in enumerate(("ink", "dust")):
        write_lora(tmp_path / f"{name}.safetensors", seed)
    notes = Notes()

    def scan() -> None:
        Library(tmp_path, notes, clock=lambda: time.time_ns() + 3_000_000_000).scan()

    scan()
    told = [record.getMessage() for record in caplog.records]
    named = [f"reading the LoRA file {name}.safetensors (0.0 GB)" for name in ("dust", "ink")]
    assert told == (named if is_told else [])
    caplog.clear()
    scan()
    assert not caplog.records


def test_a_scan_sees_what_came_changed_and_went(tmp_path: Path) -> None:
    library = Library(tmp_path, Notes(), clock=lambda: time.time_ns() + 3_000_000_000)
    path = write_lora(tmp_path / "a.safetensors", 1)
    (first,) = library.scan().loras
    status = path.stat()
    write_lora(path, 2)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as `cp -p` leaves it
    if sys.platform != "win32":  # which has no time that a program can't set
        (second,) = library.scan().loras
        assert second != first
    shutil.copy(path, tmp_path / "b.safetensors")
    write_lora(tmp_path / "c.safetensors", 3)
    assert len(library.scan().loras) == 2
    path.unlink()
    assert {lora.name for lora in library.scan().loras.values()} == {"b", "c"}


def test_unchanged_sees_a_change_of_bytes_or_stamp(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "a.safetensors", 1)
    library = Library(tmp_path, Notes())
    (lora,) = library.scan().loras.values()
    assert lora.fingerprint.unchanged()
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\0\0\0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not lora.fingerprint.unchanged()
    path.unlink()
    assert not lora.fingerprint.unchanged()


def test_unchanged_hashes_again_what_was_fresh_when_it_was_read(tmp_path: Path) -> None:
    """A change within a tick of the clock has the same stamp, and other bytes."""
    write_lora(tmp_path / "a.safetensors", 1)
    library = Library(tmp_path, Notes())
    (lora,) = library.scan().loras.values()
    assert not lora.fingerprint.reliable
    other = replace(lora.fingerprint, hashes=Hashes("00" * 32))
    assert not other.unchanged()
    assert replace(other, reliable=True).unchanged()


def test_the_first_scan_tells_how_far_it_is_by_size(tmp_path: Path) -> None:
    write_lora(tmp_path / "a.safetensors", 1)
    write_lora(tmp_path / "b.safetensors", 2, rank=3)
    shares: list[float] = []
    library = Library(tmp_path, Notes(), scanning=shares.append)
    library.scan()
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in "ab"]
    assert shares == [0, sizes[0] / sum(sizes), 1]
    library.scan()
    assert len(shares) == 3


def test_a_scan_that_is_ended_is_told_as_over(tmp_path: Path) -> None:
    write_lora(tmp_path / "a.safetensors", 1)
    shares: list[float] = []

    def watch(share: float) -> None:
        shares.append(share)
        if share < 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Library(tmp_path, Notes(), scanning=watch).scan()
    assert shares == [0, 1]
