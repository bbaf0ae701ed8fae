"""`Project.write_report` writes the pages and the images that they show, and only what changed."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from support.cli import KNIGHT, edit, samples

from composer import Project, open_target
from composer.files.site import MANIFEST
from composer.output.gallery import WIDTHS, image_name
from composer.previews.cells import Cell, Look, RendererInfo
from composer.renderers.cache import FOLDER, CellCache

if TYPE_CHECKING:
    from pathlib import Path

    from composer.output.gallery_view import WrittenReport

INFO = RendererInfo("test", "1", "base")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = samples(tmp_path)
    monkeypatch.chdir(root)
    opened = Project(root)
    with open_target("local", opened) as target:
        opened.apply(target)
        entry = opened.entries(target)[KNIGHT]
    cache = CellCache(opened.state / FOLDER)
    cache.folder.mkdir()
    written = io.BytesIO()
    Image.new("RGB", (1400, 700), "teal").save(written, "PNG")
    assert entry.content
    cache.keep(
        Cell.of(entry.content.concepts, "a fox", 7, Look(1400, 700), INFO), written.getvalue()
    )
    return root


def write(root: Path, *, dry_run: bool = False) -> WrittenReport:
    opened, told = Project(root), list[float]()
    with open_target("local", opened, run_jobs=False) as target:
        report = opened.report(target)
        done = opened.write_report(report, root / "site", dry_run=dry_run, progress=told.append)
    assert told == sorted(told)
    assert told[-1:] == ([1.0] if done.written and not dry_run else [])
    return done


def files(root: Path) -> dict[str, bytes]:
    site = root / "site"
    return {p.relative_to(site).as_posix(): p.read_bytes() for p in site.rglob("*") if p.is_file()}


def test_all_files_are_there_and_a_second_run_writes_none(project: Path) -> None:
    done = write(project)
    there = files(project)
    assert {*done.written, MANIFEST} == {*there}
    assert {*done.pages.values()} <= {*there}
    assert done.index.endswith("index.html")
    (digest,) = {p.stem for p in (Project(project).state / FOLDER).rglob("*.png")}
    sizes = [Image.open(io.BytesIO(there[image_name(digest, end)])).size for end in WIDTHS]
    assert sizes == [(width, width // 2) for width in WIDTHS.values()]
    again = write(project)
    assert (again.written, again.removed) == ((), ())
    assert files(project) == there


def test_one_changed_recipe_changes_few_pages(project: Path) -> None:
    first = write(project)
    edit(project / KNIGHT, "scale: 0.65", "scale: 0.64")
    second = write(project)
    assert first.pages[KNIGHT] in second.written
    others = {page for path, page in first.pages.items() if path != KNIGHT}
    assert not others & {*second.written}
    assert {name.partition("/")[0] for name in second.removed} == {"images"}


def test_a_renamed_model_gets_another_page_and_the_old_one_goes(project: Path) -> None:
    first = write(project)
    edit(project / KNIGHT, "name: Storybook Knight", "name: Winter Knight")
    second = write(project)
    assert second.pages[KNIGHT].startswith("c/winter-knight-")
    assert first.pages[KNIGHT] in second.removed


def test_an_image_that_is_damaged_is_left_out(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (png,) = (Project(project).state / FOLDER).rglob("*.png")
    png.write_bytes(b"\x89PNG but no more")
    write(project)
    assert not [name for name in files(project) if name.startswith("images/")]
    assert "can't be shown" in caplog.text


def test_a_dry_run_writes_nothing(project: Path) -> None:
    assert write(project, dry_run=True).written
    assert not (project / "site").exists()
