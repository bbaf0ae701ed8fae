"""`compose report`: pages in a folder, and what is printed of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.cli import ROGUE, compose, edit, ids

if TYPE_CHECKING:
    from pathlib import Path


def test_it_writes_pages_and_says_which_to_open(applied: Path) -> None:
    ran = compose("report", "--out", "site", at=applied)
    assert ran.status == 0
    shows, counts = ran.out.splitlines()[0], ran.out.splitlines()[-1]
    assert shows == "4 compositions, 4 LoRAs, 0 with images"
    assert counts == "12 files written to site, 0 unchanged"
    assert "Next: open site/index.html in a browser" in ran.err
    assert (applied / "site/index.html").is_file()
    again = compose("report", "--out", "site", at=applied)
    assert again.out.splitlines()[-1] == "0 files written to site, 12 unchanged"


def test_as_json_it_names_every_page(applied: Path) -> None:
    edit(applied / ROGUE, "scale: 0.6\n", "scale: 0.7\n")
    told = json.loads(compose("report", "--out", "site", "-o", "json", at=applied).out)
    pages = {one["name"]: one for one in told["compositions"]}
    assert {one: pages[one]["composition"] for one in pages} == ids(applied)
    assert (pages["Pixel Rogue"]["state"], told["asked"], told["target"]) == (
        "changed",
        True,
        "local",
    )
    assert all((applied / "site" / one["page"]).is_file() for one in pages.values())
    assert (told["index"], told["dryRun"]) == ("site/index.html", False)


def test_offline_no_target_is_asked(applied: Path) -> None:
    for lora in (applied / "recipes/loras").iterdir():
        lora.unlink()
    ran = compose("report", "--out", "site", "--offline", at=applied)
    assert (ran.status, "not asked: --offline" in ran.err) == (0, True)
    assert "this is what compose.lock says" in (applied / "site/index.html").read_text("utf-8")


def test_a_folder_of_something_else_is_refused(applied: Path) -> None:
    ran = compose("report", "--out", "recipes", at=applied)
    assert (ran.status, "did not write" in ran.err) == (3, True)
    assert compose("report", at=applied).status == 64


def test_a_link_out_of_the_project_is_refused(applied: Path, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (applied / "site").symlink_to(outside, target_is_directory=True)
    ran = compose("report", "--out", "site", at=applied)
    assert (ran.status, "through a link" in ran.err) == (64, True)
    assert not list(outside.iterdir())


@pytest.mark.parametrize("package", ["jinja2", "PIL"])
def test_without_its_extra_it_says_what_to_install(applied: Path, package: str) -> None:
    program = (
        f"import sys; sys.modules[{package!r}] = None; from composer.cli.main import guarded;"
        " sys.exit(guarded(['report', '--out', 'site']))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=applied,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, "lora-compose[preview]" in ran.stderr) == (64, True), ran.stderr
