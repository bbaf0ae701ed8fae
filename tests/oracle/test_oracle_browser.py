"""Chromium judges the page of `compose inspect --html`: its style applies, nothing else acts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.hostile import HOSTILE
from support.lora_files import Spec, write

from composer.lora import inspect
from composer.lora.inspection import Inspection
from composer.output.inspect_html import page

if TYPE_CHECKING:
    from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = ("disable-background-networking", "disable-component-update", "disable-sync")
TO_Q = "transformer_blocks.0.attn.to_q"


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    return found


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
