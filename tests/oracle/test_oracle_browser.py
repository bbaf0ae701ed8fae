"""Chromium judges the page of `compose inspect --html`: its style applies, nothing else acts.

On screens of four widths, light and dark, axe-core looks for what keeps people from reading it.
"""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from oracle.chromium import contrast, grave, opened
from support.hostile import HOSTILE
from support.inspections import inspection
from support.lora_files import Spec, write

from composer.lora import inspect
from composer.lora.inspection import Inspection
from composer.output.inspect_html import page

if TYPE_CHECKING:
    from pathlib import Path

QUIET = ("disable-background-networking", "disable-component-update", "disable-sync")
TO_Q = "transformer_blocks.0.attn.to_q"


def shown(browser: str, text: str, folder: Path) -> tuple[str, list[str]]:
    """The page as the browser has it once all is loaded, and what its console says."""
    (folder / "page.html").write_text(text, "utf-8")
    flags = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", *QUIET]
    flags += ["enable-logging=stderr", "virtual-time-budget=2000", "dump-dom"]
    flags += [f"user-data-dir={folder / 'profile'}"]
    done = subprocess.run(
        [browser, *(f"--{flag}" for flag in flags), (folder / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def inspected(folder: Path, words: str) -> Inspection:
    """Two LoRAs that overlap, and a stranger's words wherever a file can have them."""
    keys = ("modelspec.title", "modelspec.trigger_phrase", "modelspec.author")
    tags = json.dumps({words: {words: 3}})
    metadata = {**dict.fromkeys(keys, words), "ss_tag_frequency": tags}
    paths = [folder / "one.safetensors", folder / "two.safetensors"]
    for path in paths:
        write(Spec(False, "F32", {TO_Q: 2}, metadata=metadata), path)
    found = inspect([(path, 0.5) for path in paths])
    return Inspection(words, words, found.loras, found.mix)


def elements(text: str) -> list[str]:
    rest = re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    return re.findall(r"<([a-zA-Z][a-zA-Z0-9]*)", rest)


def test_its_style_applies_and_it_asks_for_nothing(browser: str, tmp_path: Path) -> None:
    text = page([inspected(tmp_path, "Ink Lines")])
    found, said = shown(browser, text, tmp_path)
    assert said == []
    assert elements(found) == elements(text)
    assert "expect one to win" in found


def test_its_policy_is_in_force(browser: str, tmp_path: Path) -> None:
    """Another style, a script and a picture are stopped: so the silence above says something."""
    more = '<style>p { color: red }</style><script>document.title = "it ran"</script>'
    picture = '<img src="https://127.0.0.1:9/x.png" onerror="document.title = 1">'
    text = page([inspected(tmp_path, "Ink Lines")]).replace("</h1>", f"</h1>{more}{picture}")
    found, said = shown(browser, text, tmp_path)
    assert sum("Content Security Policy" in line for line in said) >= 3
    assert "<title>Ink Lines: what is in the mix</title>" in found


def test_a_strangers_words_do_nothing(browser: str, tmp_path: Path) -> None:
    inspections = [inspected(tmp_path, words) for words in HOSTILE]
    text = page(inspections)
    found, said = shown(browser, text, tmp_path)
    assert said == []
    assert elements(found) == elements(text)


# --- for people, on every screen ---------------------------------------------------------

# What of each scrolling table is hidden, and whether its cue is shown.
CUES = """[...document.querySelectorAll(".fits")].map(one => [
  one.querySelector(".scroll").scrollWidth > one.querySelector(".scroll").clientWidth,
  getComputedStyle(one.querySelector(".cue")).display != "none"])"""
# Digits and the cell below them, as colours of the screen.
DIGITS = """[...document.querySelectorAll(".strip b[class], tbody td[class], .legend li")].map(
  cell => [getComputedStyle(cell).color, getComputedStyle(cell).backgroundColor])"""
# How much of the page's width the strips of many blocks take.
STRIPS = """[...document.querySelectorAll(".strip")].filter(one => one.children.length > 10).map(
  one => (Math.max(...[...one.children].map(cell => cell.getBoundingClientRect().right))
    - one.getBoundingClientRect().left) / document.querySelector("main").clientWidth)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 768, 1280, 1920])
@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_it_can_be_read_on_every_screen(
    chromium: Any, axe: str, tmp_path: Path, count: int, width: int, scheme: str
) -> None:
    file = tmp_path / "page.html"
    file.write_text(page([inspection(count, 0.95, every=6)]), "utf-8")
    shown, said = opened(chromium, file, width, scheme)
    assert said == [file.as_uri()]  # no complaint, and no request but for the page
    assert shown.locator("h1").count() == 1
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert all(part > 0.85 for part in shown.evaluate(STRIPS))
    assert grave(shown, axe) == []
    cues = shown.evaluate(CUES)
    assert [cue for hidden, cue in cues] == [hidden for hidden, cue in cues]
    assert any(hidden for hidden, _ in cues) or count < 12 or width == 1920
    digits = shown.evaluate(DIGITS)
    assert len(digits) >= (count > 1) * 9
    backs = {"#fff": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 29)"}
    paper = backs["dark" if scheme == "dark" else "#fff"]
    for ink, back in digits:
        assert contrast(ink, paper if back == "rgba(0, 0, 0, 0)" else back) >= 4.5
    shown.context.close()


def test_several_inspections_are_one_page(chromium: Any, axe: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(page([inspection(4), inspection(1), inspection(2)], everything=True), "utf-8")
    shown, said = opened(chromium, file, 800, "light")
    assert (said, shown.locator("h1").count()) == ([file.as_uri()], 1)
    assert grave(shown, axe) == []
    shown.context.close()


def test_axe_finds_what_cannot_be_read(chromium: Any, axe: str, tmp_path: Path) -> None:
    """A control: pale words, and a scrolling table that no keyboard reaches."""
    text = page([inspection(12, every=8)]).replace("--dim: #566072", "--dim: #c9ccd2")
    file = tmp_path / "page.html"
    file.write_text(text.replace(' tabindex="0"', ""), "utf-8")
    shown, _ = opened(chromium, file, 400, "light", policy=False)
    assert set(grave(shown, axe)) == {"color-contrast", "scrollable-region-focusable"}
    shown.context.close()
