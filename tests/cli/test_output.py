"""`compose output`: ids for scripts, and how other programs use the results."""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING

import pytest
from support.cli import compose, ids, samples
from support.engine_files import write_lora
from support.state import state_of

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = ("diffusers", "comfyui", "a1111", "fal", "replicate")


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = samples(tmp_path_factory.mktemp("output") / "project")
    assert compose("apply", at=root).status == 0
    return root


def usage(project: Path, program: str, recipe: str = "Pixel Rogue") -> str:
    ran = compose("output", recipe, "--usage", program, at=project)
    assert (ran.status, ran.err) == (0, "")
    return ran.out


PROMPT = "inklines, pixeldust, a knight in a garden"  # its LoRAs' files have tags, and no phrase


def file_of(project: Path, recipe: str = "Pixel Rogue") -> Path:
    return state_of(project) / "models" / f"{ids(project)[recipe]}.safetensors"


@pytest.mark.parametrize("recipe", ["Pixel Rogue", "recipes/pixel-rogue.yaml"])
def test_a_recipe_gives_its_id_alone(applied: Path, recipe: str) -> None:
    ran = compose("output", recipe, at=applied)
    assert (ran.status, ran.out) == (0, f"{ids(applied)['Pixel Rogue']}\n")


@pytest.mark.parametrize("program", ["diffusers", "fal", "replicate"])
def test_programs_in_python(applied: Path, program: str) -> None:
    tree = ast.parse(usage(applied, program))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    prompts = [text for text in texts if isinstance(text, str) and "knight in a garden" in text]
    assert prompts == [PROMPT]
    assert (str(file_of(applied)) in texts) is (program != "replicate")


@pytest.mark.parametrize("below", ["", "recipes/tutorial"])
def test_the_file_is_named_from_wherever_one_stands(applied: Path, below: str) -> None:
    path = re.search(r'load_lora_weights\((".*")\)', usage(applied / below, "diffusers"))
    assert path is not None and json.loads(path[1]) == str(file_of(applied))
    assert file_of(applied).is_file()


def test_comfyui_gets_a_node_and_the_name_that_pull_writes(applied: Path) -> None:
    shown = usage(applied, "comfyui")
    node = json.loads("".join(line for line in shown.splitlines() if not line.startswith("#")))
    assert node["inputs"]["lora_name"] == "pixel-rogue.safetensors"
    assert "compose pull 'Pixel Rogue' --to comfyui" in shown


def test_a_web_ui_gets_a_prompt(applied: Path) -> None:
    assert usage(applied, "a1111").splitlines()[-1] == f"<lora:pixel-rogue:1> {PROMPT}"


def test_trigger_words_come_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    words = 'inkl1n3s "quoted" $path'
    write_lora(tmp_path / "loras/ink.safetensors", trigger=words)
    (tmp_path / "recipes/ink.yaml").write_text("name: Ink\nconcepts: [{name: ink, scale: 1}]\n")
    assert compose("apply", at=tmp_path).status == 0
    for program in PROGRAMS:
        shown = usage(tmp_path, program, "Ink")
        assert words in shown or json.dumps(words)[1:-1] in shown, program


def test_as_json(applied: Path) -> None:
    ran = compose("output", "Pixel Rogue", "--usage", "fal", "-o", "json", at=applied)
    assert json.loads(ran.out)["usage"] == usage(applied, "fal")
    assert "usage" not in json.loads(compose("output", "Pixel Rogue", "-o", "json", at=applied).out)


def test_a_program_that_cant(applied: Path) -> None:
    ran = compose("output", "Pixel Rogue", "--usage", "scenario", at=applied)
    assert ran.status == 64
    assert "'scenario' can't use a model of the target local: diffusers, comfyui, a1111" in ran.err
    assert "compose apply --target scenario makes the model there" in ran.err
    ran = compose("output", "Pixel Rogue", "--usage", "blender", at=applied)
    assert (ran.status, "hint" in ran.err) == (64, False), ran.err
    ran = compose("output", "--usage", "fal", at=applied)
    assert (ran.status, "--usage needs a recipe" in ran.err) == (64, True)


def test_a_file_that_is_on_another_machine(applied: Path) -> None:
    file = file_of(applied)
    file.rename(file.with_suffix(".away"))
    ran = compose("output", "Pixel Rogue", "--usage", "diffusers", at=applied)
    assert (ran.status, "is not on this machine" in ran.err) == (1, True)
    assert compose("output", "Pixel Rogue", at=applied).status == 0
    file.with_suffix(".away").rename(file)
