"""The page of a preview or a sweep: everything is there, and other people's words are words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.grids import cell, preview_grid, rendered, sweep_grid
from support.hostile import HOSTILE

from composer.errors import TargetError
from composer.images.embedding import embedded
from composer.output.preview_html import preview_page
from composer.previews.report import PreviewReport

if TYPE_CHECKING:
    from pathlib import Path

BEFORE = {"Watercolour": 0.5, "Ink Lines": 0.4}
AFTER = {"Watercolour": 0.5, "Ink Lines": 0.75}


def shown(report: PreviewReport) -> str:
    return preview_page(report, embedded(report))


def test_a_preview(tmp_path: Path) -> None:
    result = rendered(preview_grid(BEFORE, AFTER, [("a road", 3), ("a hill", 4)]), tmp_path)
    text = shown(PreviewReport("local", (result,), 6))
    assert "<title>Preview: Storybook Knight</title>" in text
    assert "6 images, 6 new, on local" in text
    assert text.count("<img ") == 8  # no LoRA, before, after and the difference, twice
    assert text.count("data:image/webp;base64,") == 8
    assert "<li><b>0.75  Ink Lines</b></li>" in text
    assert "<li>0.50  Watercolour</li>" in text
    assert "<b>0.40" not in text
    assert 'data-kinds="after before difference none"' in text
    assert "seed 3" in text


def test_without_before_there_is_no_choice_of_it(tmp_path: Path) -> None:
    new = rendered(preview_grid(None, AFTER), tmp_path)
    changed = rendered(preview_grid(BEFORE, AFTER), tmp_path)
    choices = ('value="before"', 'value="difference"')
    alone = shown(PreviewReport("local", (new,)))
    both = shown(PreviewReport("local", (new, changed)))
    assert [choice in alone for choice in choices] == [False, False]
    assert [choice in both for choice in choices] == [True, True]
    assert 'value="slider"' in alone


def test_files_beside_the_page(tmp_path: Path) -> None:
    result = rendered(preview_grid(None, AFTER), tmp_path)
    images = {digest: f"cells/{digest}.png" for digest in result.images}
    text = preview_page(PreviewReport("local", (result,)), images)
    assert text.count('<img src="cells/') == 2
    assert "img-src data: file: " in text


def test_a_sweep_names_its_places(tmp_path: Path) -> None:
    result = rendered(sweep_grid(("Ink", [0.2, 0.5]), ("Stone", [0.1, 0.6])), tmp_path)
    text = shown(PreviewReport("local", (result,)))
    assert "<title>Sweep: Storybook Knight</title>" in text
    for place in ("B1", "C1", "B2", "C2"):
        axes = "--axis Ink=0.2,0.5 --axis Stone=0.1,0.6"
        command = f"compose sweep recipes/storybook-knight.yaml {axes} --promote {place}"
        assert f'data-command="{command}"' in text
    assert text.count('data-command=""') == 2  # without LoRA there is nothing to take
    assert 'name="view"' not in text


def test_failures_and_notes_are_shown(tmp_path: Path) -> None:
    error = TargetError("the job failed", hint="try again")
    result = rendered(preview_grid(BEFORE, AFTER), tmp_path, errors={cell(BEFORE): error})
    text = shown(PreviewReport("local", (result,), notes=("recipes/a.yaml is blocked",)))
    assert "1 image failed: the job failed (try again)" in text
    assert '<div class="missing"><p>the job failed</p></div>' in text
    assert '<p class="note">recipes/a.yaml is blocked</p>' in text
    assert 'data-kinds="after none"' in text


def test_without_recipes() -> None:
    text = shown(PreviewReport("local"))
    assert "No recipe changed" in text
    assert "<img" not in text.partition("<body>")[2].replace("<img>", "")


@pytest.mark.parametrize("words", HOSTILE)
def test_a_strangers_words_are_words(words: str, tmp_path: Path) -> None:
    quiet = preview_grid({"Ink": 0.5}, {"Ink": 0.7}, [("a road", 3)])
    loud = preview_grid({words: 0.5}, {words: 0.7}, [(words, 3)], name=words)
    note = {"notes": (words,)}
    one = shown(PreviewReport("local", (rendered(quiet, tmp_path),), notes=("x",)))
    other = shown(PreviewReport(words, (rendered(loud, tmp_path),), **note))
    assert tags(other) == tags(one)


def tags(text: str) -> list[str]:
    body = text.partition("</style>")[2].partition("<script>")[0]
    return [part.split()[0].split(">")[0] for part in body.split("<")[1:]]
