"""A folder of pages: what compose wrote is replaced and removed, and nothing else ever is."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from composer.errors import Refused, TargetError, UsageError
from composer.files.site import MANIFEST, opened

if TYPE_CHECKING:
    from pathlib import Path

    from composer.files.site import Site


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "site"


def write(out: Path, dry_run: bool = False, **pages: str) -> Site:
    """Write these pages: `a` is `c/a.html`."""
    files = {f"c/{name}.html": text for name, text in pages.items()}
    with opened(out, dry_run=dry_run) as place:
        for name in place.plan(files):
            place.write(name, files[name].encode())
    return place


def names(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


def test_only_what_changed_is_written_and_what_is_not_needed_is_removed(out: Path) -> None:
    first = write(out, a="1", b="1", c="1")
    assert (len(first.written), first.kept, first.removed) == (3, [], [])
    before = (out / "c/a.html").stat().st_mtime_ns
    second = write(out, a="1", b="2")
    assert second.written == ["c/b.html"]
    assert (second.kept, second.removed) == (["c/a.html"], ["c/c.html"])
    assert names(out) == {MANIFEST, "c/a.html", "c/b.html"}
    assert (out / "c/b.html").read_text() == "2"
    assert (out / "c/a.html").stat().st_mtime_ns == before


def test_a_second_run_touches_nothing(out: Path) -> None:
    write(out, a="1")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert write(out, a="1").written == []
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_what_somebody_deleted_is_written_again(out: Path) -> None:
    write(out, a="1", b="1")
    (out / "c/a.html").unlink()
    assert write(out, a="1", b="1").written == ["c/a.html"]


def test_a_folder_of_other_files_is_refused_and_left_alone(out: Path) -> None:
    out.mkdir()
    (out / "novel.txt").write_text("mine")
    for dry_run in (True, False):
        with pytest.raises(Refused, match="did not write"):
            write(out, dry_run, a="1")
    assert names(out) == {"novel.txt"}


def test_other_files_in_a_site_stay(out: Path) -> None:
    write(out, a="1", b="1")
    (out / "novel.txt").write_text("mine")
    (out / "c/notes.html").write_text("mine")
    write(out, a="1")
    assert names(out) == {MANIFEST, "c/a.html", "c/notes.html", "novel.txt"}
    with pytest.raises(Refused, match="was not written by compose"):
        write(out, a="1", notes="2")
    assert (out / "c/notes.html").read_text() == "mine"


def test_a_place_that_cannot_be_one(out: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is not a folder"):
        write(tmp_path / "file", a="1")
    with pytest.raises(UsageError, match="is not a folder"):
        write(tmp_path / "missing" / "site", a="1")


def test_a_planted_list_removes_nothing_elsewhere(out: Path, tmp_path: Path) -> None:
    """A stranger's repository may have a folder that looks like a site."""
    (tmp_path / "novel.html").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.html").write_text("mine")
    out.mkdir()
    (out / "c").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    planted = ["../novel.html", "c/a.html", "c/../../novel.html", str(tmp_path / "novel.html")]
    listed = {"formatVersion": 1, "files": dict.fromkeys([*planted, "", "c", "\ud800"], "x")}
    (out / MANIFEST).write_text(json.dumps(listed))
    with opened(out) as place:
        place.plan({})
    assert place.removed == []
    with pytest.raises(Refused, match="was not written by compose"):
        write(out, a="1")
    assert (tmp_path / "novel.html").read_text() == "mine"
    assert (tmp_path / "elsewhere" / "a.html").read_text() == "mine"


def test_a_page_that_is_a_link_now_is_replaced_not_followed(out: Path, tmp_path: Path) -> None:
    write(out, a="1")
    (tmp_path / "novel.html").write_text("mine")
    (out / "c/a.html").unlink()
    (out / "c/a.html").symlink_to(tmp_path / "novel.html")
    write(out, a="2")
    assert (tmp_path / "novel.html").read_text() == "mine"
    assert (out / "c/a.html").read_text() == "2"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"formatVersion": 2, "files": {}}', "\udcff"])
def test_a_list_that_is_damaged_is_named(out: Path, text: str) -> None:
    out.mkdir()
    (out / MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=MANIFEST):
        write(out, a="1")


def test_after_a_run_that_was_killed_nothing_passes_for_what_it_is_not(out: Path) -> None:
    write(out, a="1", b="1")

    class Killed(BaseException):
        pass

    with pytest.raises(Killed), opened(out) as place:
        assert place.plan({"c/a.html": "2", "c/new.html": "1"}) == ["c/a.html", "c/new.html"]
        place.write("c/a.html", b"2")
        raise Killed
    assert write(out, a="1", b="1").written == ["c/a.html"]  # it has the other text now
    assert (out / "c/a.html").read_text() == "1"
    assert names(out) == {MANIFEST, "c/a.html", "c/b.html"}


def test_a_dry_run_writes_nothing(out: Path) -> None:
    assert write(out, True, a="1").written == ["c/a.html"]
    assert not out.exists()
    write(out, a="1", b="1")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    tried = write(out, True, a="2")
    assert (tried.written, tried.removed) == (["c/a.html"], ["c/b.html"])
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_full_disk_is_one_line(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(out, a="1")

    def full(*paths: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(TargetError, match="No space left"):
            write(out, a="2")
    assert not list(out.rglob("*.tmp"))
    assert write(out, a="2").written == ["c/a.html"]
