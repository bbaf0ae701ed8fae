"""Workflows that ComfyUI ships, and images that Pillow writes for it: each is imported or refused.

`comfyui-workflow-templates-json` has every template of ComfyUI's browser, in the editor's form.
"""

from __future__ import annotations

import io
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from support.fake_target import FakeTarget, lora
from support.workflows import api, as_bytes, editors, loader, manager_recipe

from composer import Project
from composer.recipes.comfyui import NotAWorkflow, read

if TYPE_CHECKING:
    from pathlib import Path

    from composer.model import Imported

LOADERS = ("LoraLoader", "LoraLoaderModelOnly")
TEMPLATES = {
    file.name: file.read_bytes()
    for file in files("comfyui_workflow_templates_json").joinpath("templates").iterdir()
    if file.name.endswith(".json")
}
WITH_LORAS = sorted(name for name, data in TEMPLATES.items() if b'"LoraLoader' in data)


def named(value: Any) -> set[str]:
    """The LoRAs of all loaders in a workflow, wherever they are; counted without our reader."""
    if isinstance(value, list):
        return {name for item in value for name in named(item)}
    if not isinstance(value, dict):
        return set()
    own = {value["widgets_values"][0]} if value.get("type") in LOADERS else set()
    return own | {name for item in value.values() for name in named(item)}


LORAS = {name: named(json.loads(TEMPLATES[name])) for name in WITH_LORAS}


@pytest.fixture(scope="module")
def target() -> FakeTarget:
    """It has every LoRA of every template."""
    target = FakeTarget()
    names = sorted(set().union(*LORAS.values()))
    target.put(*(lora(f"model_{n}", name.rpartition(".")[0]) for n, name in enumerate(names)))
    return target


def imported(tmp_path: Path, target: Any, name: str, data: bytes) -> list[Imported]:
    (tmp_path / ".git").mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(data)
    return Project(tmp_path, may_be_empty=True).import_workflows(target, tmp_path / name)


def test_there_are_templates_with_loras() -> None:
    assert len(TEMPLATES) > 600
    assert len(WITH_LORAS) > 80


@pytest.mark.parametrize("name", WITH_LORAS)
def test_each_template_with_loras_is_imported_or_refused_by_name(
    name: str, tmp_path: Path, target: FakeTarget
) -> None:
    results = imported(tmp_path, target, name, TEMPLATES[name])
    assert results
    for one in results:
        assert bool(one.path) != bool(one.problems)
        assert one.problems or (tmp_path / one.path).is_file()
        assert one.problems or one.loras
        assert all(re.search(r"node \d+|no node|LoRAs", problem) for problem in one.problems)
    said = " ".join(
        text
        for one in results
        for text in (*one.problems, *one.notes, *(lora.source for lora in one.loras))
    )
    assert [file for file in LORAS[name] if file not in said] == []


def test_most_of_them_become_recipes(tmp_path: Path, target: FakeTarget) -> None:
    """With every LoRA there, what is left is out of a recipe's range or chosen by another node."""
    results = [
        one for name in WITH_LORAS for one in imported(tmp_path, target, name, TEMPLATES[name])
    ]
    problems = [problem for one in results for problem in one.problems]
    assert sum(bool(one.path) for one in results) > 60
    reasons = "not within -2..2|comes from node|no node in it loads|CLIP strength of its own"
    assert [problem for problem in problems if not re.search(reasons, problem)] == []


@pytest.mark.parametrize("name", sorted(TEMPLATES.keys() - WITH_LORAS))
def test_every_other_template_is_read_too(name: str) -> None:
    try:
        workflow = read(TEMPLATES[name])
    except NotAWorkflow as why:
        assert name.startswith(("index", "fuse_options")), why
    else:
        assert workflow.mixes == ()


# --- images ------------------------------------------------------------------------------

PROMPT = api(loader("style\\ink é.safetensors", 0.7))
EDITOR = editors(("LoraLoader", ["other.safetensors", 0.3, 0.3]))


def saved(format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, format, **options)
    return stream.getvalue()


def found(data: bytes) -> list[tuple[str, float]]:
    return [(use.file, use.strength) for mix in read(data).mixes for use in mix.uses]


@pytest.mark.parametrize("how", ["text", "zipped", "international", "international zipped"])
def test_a_png_as_pillow_writes_it(how: str) -> None:
    """ComfyUI's SaveImage takes `add_text`; other nodes the compressed and international texts."""
    info = PngInfo()
    for key, value in (("workflow", EDITOR), ("prompt", PROMPT)):
        text = json.dumps(value, ensure_ascii=not how.startswith("international"))
        if how.startswith("international"):
            info.add_itxt(key, text, zip=how.endswith("zipped"))
        else:
            info.add_text(key, text, zip=how == "zipped")
    assert found(saved("PNG", pnginfo=info)) == [("style\\ink é.safetensors", 0.7)]


@pytest.mark.parametrize("lossless", [True, False])
def test_a_webp_as_comfyui_saves_it(lossless: bool) -> None:
    """SaveAnimatedWEBP has the prompt in the tag of the camera's model, the rest below it."""
    exif = Image.new("RGB", (8, 8)).getexif()
    exif[0x0110] = f"prompt:{json.dumps(PROMPT)}"
    exif[0x010F] = f"workflow:{json.dumps(EDITOR)}"
    assert found(saved("WEBP", exif=exif, lossless=lossless)) == [("style\\ink é.safetensors", 0.7)]
    del exif[0x0110]
    assert found(saved("WEBP", exif=exif)) == [("other.safetensors", 0.3)]


@pytest.mark.parametrize("codec", ["utf-16-be", "utf-16-le"])
def test_a_webp_of_lora_manager(codec: str) -> None:
    recipe = manager_recipe({"file_name": "ink", "hash": "", "strength": 0.7})
    text = f"a knight \n Recipe metadata: {json.dumps(recipe)}"
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode(codec)
    assert found(saved("WEBP", exif=exif)) == [("ink", 0.7)]
    assert found(saved("PNG", pnginfo=_parameters(text))) == [("ink", 0.7)]
    assert found(as_bytes(recipe)) == [("ink", 0.7)]


def _parameters(text: str) -> PngInfo:
    info = PngInfo()
    info.add_text("parameters", text)
    return info
