"""yaml-language-server, which editors use, on our schema: completion, hover and diagnostics."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from oracle.editor import Editor
from support.cli import REPO

from composer.recipes.schema import with_names

if TYPE_CHECKING:
    from collections.abc import Iterator

HINT = "npm install --prefix DIR yaml-language-server; NODE_PATH=DIR/node_modules"
SCHEMA = json.loads((REPO / "schemas/recipe.schema.json").read_text("utf-8"))
NAMES = ["Ink Lines", "Stone: old", "yes", "#1 hero", "日本 🎨"]
RECIPE = """\
type: flux.1-composition
name: Storybook Knight
description: Knights.
scaleRange: extended
concepts:
  - name: Ink Lines
    scale: 0.7
    modelEpoch: "000010"
  - modelId: model_1
    scale: 0.2
training:
  parameters:
    rank: 4
tags: [hero]
preview:
  prompts: [a knight]
protect: true
"""


@pytest.fixture(scope="module")
def modules() -> Path:
    """The folder with node's packages."""
    places = map(Path, os.environ.get("NODE_PATH", "").split(os.pathsep))
    found = next((place for place in places if (place / "yaml-language-server").is_dir()), None)
    if found is None or shutil.which("node") is None:
        pytest.skip(f"no yaml-language-server here: {HINT}")
    return found


@pytest.fixture(scope="module")
def editor(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    folder = tmp_path_factory.mktemp("recipes")
    with Editor(modules, folder, REPO / "schemas/recipe.schema.json") as opened:
        yield opened


@pytest.fixture(scope="module")
def informed(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    """An editor whose schema has the names of LoRAs."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "names.json").write_text(with_names(NAMES), "utf-8")
    with Editor(modules, folder, folder / "names.json") as opened:
        yield opened


def fields() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each key of the recipe as its line begins, with its schema."""
    whole = SCHEMA["properties"]
    concept = SCHEMA["definitions"]["concept"]["properties"]
    parameters = whole["training"]["properties"]["parameters"]
    yield from ((f"\n{name}:", field) for name, field in whole.items())
    yield "\n  - name:", concept["name"]
    yield "\n  - modelId:", concept["modelId"]
    yield "\n    scale:", concept["scale"]
    yield "\n    modelEpoch:", concept["modelEpoch"]
    yield "\n  parameters:", parameters
    yield "\n    rank:", parameters["properties"]["rank"]
    yield "\n  prompts:", whole["preview"]["properties"]["prompts"]


@pytest.mark.parametrize(("line", "field"), [*fields()], ids=lambda value: str(value)[:20].strip())
def test_hovering_a_field_shows_its_own_text(
    line: str, field: dict[str, Any], editor: Editor, informed: Editor
) -> None:
    text = f"\n{RECIPE}"
    assert line in text
    pointed = text.replace(line, f"{line[:-2]}|{line[-2:]}", 1)
    for each in (editor, informed):
        shown = each.hover(pointed).replace("\\", "")
        assert field["description"] in shown
        others = {other["description"] for _, other in fields()} - {field["description"]}
        assert [other for other in others if other in shown] == []


def test_a_new_concept_is_offered_with_name_and_scale(editor: Editor) -> None:
    offered = editor.completions("name: X\nconcepts:\n  - |\n")
    assert "name: $1\n  scale: ${2:0.7}" in offered.values()
    assert {"name", "modelId", "scale", "modelEpoch"} <= offered.keys()
    rest = editor.completions("name: X\nconcepts:\n  - name: Ink Lines\n    |\n")
    assert rest["scale"].startswith("scale: ${1|0.7")
    assert {"name", "concepts", "tags", "scaleRange"} <= editor.completions("|").keys()


def test_names_of_loras_are_offered_as_yaml_reads_them(informed: Editor) -> None:
    import yaml

    offered = informed.completions("name: X\nconcepts:\n  - name: |\n    scale: 0.7\n")
    assert [yaml.safe_load(text) for text in offered.values()] == NAMES


def test_what_is_right_has_no_problem_and_what_is_wrong_has_one(
    editor: Editor, informed: Editor
) -> None:
    wrong = {
        "scale: 0.7": "scale: 7",
        "name: Ink Lines": "nmae: Ink Lines",
        "protect: true": "protect: perhaps",
        "modelId: model_1": "modelId: model_1\n    name: Both",
    }
    for each in (editor, informed):
        assert each.problems(RECIPE) == []
        assert each.problems(RECIPE.replace("Ink Lines", "A name that no LoRA has")) == []
        for right, changed in wrong.items():
            assert each.problems(RECIPE.replace(right, changed)), changed
