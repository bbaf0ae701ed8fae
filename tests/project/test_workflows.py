"""ComfyUI workflows as recipes: the LoRAs of the target, and what a recipe can't say."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.engine_files import write_lora
from support.fake_target import FakeTarget, lora
from support.lora_files import Spec, write
from support.lora_names import STEMS
from support.workflows import api, as_bytes, loader, manager_recipe, png, text_chunk

from composer import Project
from composer.errors import InvalidInput, UsageError
from composer.lora import families
from composer.recipes import parse
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from composer.model import Imported

INK, DUST = "style\\ink.safetensors", "dust.safetensors"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("library")
    write_lora(folder / "style/ink.safetensors", 1, title="Ink Lines")
    for seed, name in enumerate(("dust", "stone", "wash", "mist", "moss"), 2):
        write_lora(folder / f"{name}.safetensors", seed)
    write_lora(folder / "a/twin.safetensors", 20, title="Twin")
    write_lora(folder / "b/twin.safetensors", 21, title="Twin")
    clip = [stem for stem in STEMS if stem.startswith("lora_te1_")]
    ranks = dict.fromkeys(["lora_unet_double_blocks_0_img_attn_proj", *clip], 1)
    write(Spec(kohya=True, dtype="F16", ranks=ranks), folder / "both.safetensors")
    down, up = (np.ones(shape, np.float32) for shape in ((1, 320), (320, 1)))
    layer = "lora_unet_input_blocks_1_1_proj_in"
    tensors = {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}
    metadata = {"ss_base_model_version": "sdxl_base_v1-0"}
    save_file(tensors, folder / "photo-xl.safetensors", metadata=metadata)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "project" / ".git").mkdir(parents=True)
    return tmp_path / "project"


@pytest.fixture(scope="module")
def target(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    state: Path = tmp_path_factory.mktemp("state")
    with Engine(state, library, run_jobs=False, one_scan=True) as engine:
        yield engine


def imported(root: Path, target: Any, workflow: dict[str, Any], **options: Any) -> list[Imported]:
    file = root / "knight.json"
    file.write_bytes(as_bytes(workflow))
    return Project(root, may_be_empty=True).import_workflows(target, file, **options)


def test_a_workflow_becomes_a_recipe(root: Path, target: Engine) -> None:
    workflow = api(loader(INK, 0.65), loader(DUST, 0.80004), loader("a/twin.safetensors", 1))
    (shown,) = imported(root, target, workflow, name="Knight", dry_run=True)
    assert not (root / "recipes").exists()
    (one,) = imported(root, target, workflow, name="Knight")
    assert one == shown
    assert (one.name, one.path, one.problems) == ("Knight", "recipes/knight.yaml", ())
    assert one.notes == (
        "node 11 (LoraLoader): dust.safetensors: its strength 0.80004 is rounded to 0.8",
    )
    text = (root / one.path).read_bytes()
    recipe, problems = parse(text, file=one.path, types=families.model_types())
    assert recipe is not None and problems == []
    assert [(ref.name, ref.scale) for ref in recipe.concepts] == [
        ("Ink Lines", 0.65),
        ("dust", 0.8),
        ("a/twin", 1),
    ]
    assert one.loras[0].source == "node 10 (LoraLoader): style\\ink.safetensors"
    (plan,) = Project(root).plan(target).actions
    assert plan.name == "Knight" and plan.explanation.reason == "new recipe"
    (again,) = imported(root, target, workflow, name="Knight")
    assert again.problems == (
        "another recipe is named Knight: recipes/knight.yaml; choose a name with --name",
    )


def test_every_mix_of_every_file_has_a_recipe_of_its_own(root: Path, target: Engine) -> None:
    two = api(loader(INK, 0.5)) | {
        "20": {"class_type": "LoraLoader", "inputs": {**loader(DUST, 1)[1], "model": ["4", 0]}},
        "21": {"class_type": "KSampler", "inputs": {"model": ["20", 0]}},
    }
    (root / "one.json").write_bytes(as_bytes(two))
    (root / "Two.v2.png").write_bytes(png(text_chunk("prompt", json.dumps(api(loader(DUST, 0.5))))))
    project = Project(root, may_be_empty=True)
    results = project.import_workflows(target, root / "one.json", str(root / "Two.v2.png"))
    assert [(one.name, one.path) for one in results] == [
        ("one", "recipes/one.yaml"),
        ("one 2", "recipes/one-2.yaml"),
        ("Two.v2", "recipes/two-v2.yaml"),
    ]
    with pytest.raises(UsageError, match="a name is for one workflow"):
        project.import_workflows(target, "a.json", "b.json", name="Knight")


PROBLEMS = [
    ([loader(INK, 2.3)], "its strength 2.3 is not within -2..2"),
    ([loader(INK, -2.2)], "its strength -2.2 is not within -2..2"),
    ([loader("ikn.safetensors", 1)], "no such LoRA; the most similar one is style/ink"),
    ([loader("twin.safetensors", 1)], "2 LoRAs on the target match it: a/twin"),
    ([loader("photo-xl.safetensors", 1)], "it can't be used: photo-xl.safetensors: is for Stable"),
    ([loader(INK, 0.4), loader("ink.safetensors", 0.3)], "a recipe names each one once (both"),
    (
        [loader("both.safetensors", 0.4, 0.2)],
        "a CLIP strength of its own (0.2; the model's",
    ),
    ([loader("both.safetensors", 0.4, 0)], "changes a text encoder too; a recipe has one scale"),
    (
        [loader(f"{name}.safetensors", 0.5) for name in ("dust", "stone", "wash", "mist", "moss")]
        + [loader(INK, 0.5)],
        "it loads 6 LoRAs, and a recipe has at most 5: dust.safetensors, stone.safetensors, ",
    ),
    ([("LoraLoader", {"lora_name": INK, "strength_model": ["8", 0]})], "comes from node 8"),
    ([], "no node in it loads a LoRA"),
]


@pytest.mark.parametrize(("loaders", "words"), PROBLEMS, ids=lambda value: str(value)[-40:])
def test_what_a_recipe_cant_express_is_said_by_name(
    root: Path, target: Engine, loaders: list[Any], words: str
) -> None:
    (one,) = imported(root, target, api(*loaders))
    assert one.skipped and not one.path
    assert words in one.problems[0]
    assert not any("other than 0" in problem for problem in one.problems)
    assert not (root / "recipes").exists()


def test_a_clip_strength_without_effect_is_a_note(root: Path, target: Engine) -> None:
    """Most LoRAs for FLUX.1 change no text encoder, and ComfyUI's loader begins with a 1 there."""
    (one,) = imported(root, target, api(loader(INK, 0.7, 1)))
    assert (one.path, one.loras[0].scale) == ("recipes/knight.yaml", 0.7)
    assert "its CLIP strength 1 has no effect" in one.notes[0]
    (both,) = imported(root, target, api(loader("both.safetensors", 0.7)), name="Both")
    assert (both.path, both.notes) == ("recipes/both.yaml", ())


def test_a_recipe_of_lora_manager_is_matched_by_hash(
    root: Path, target: Engine, library: Path
) -> None:
    digest = hashlib.sha256((library / "style/ink.safetensors").read_bytes()).hexdigest()
    renamed = {"file_name": "old_name", "hash": digest.upper(), "strength": 0.6}
    other = {"file_name": "dust", "hash": "ab" * 32, "strength": 0.2}
    (one,) = imported(root, target, manager_recipe(renamed, other, title="Tale\u202e/1"))
    assert (one.name, one.path) == ("Tale 1", "recipes/tale-1.yaml")
    assert [lora.name for lora in one.loras] == ["Ink Lines", "dust"]
    assert one.notes == ("LoRA 2: dust: dust.safetensors has other bytes than the workflow's LoRA",)


def test_a_broken_file_stops_all(root: Path, target: Engine) -> None:
    (root / "good.json").write_bytes(as_bytes(api(loader(INK, 0.5))))
    (root / "bad.json").write_bytes(b"{")
    project = Project(root, may_be_empty=True)
    with pytest.raises(InvalidInput, match=r"bad\.json can't be imported: it is not valid JSON"):
        project.import_workflows(target, root / "good.json", root / "bad.json")
    with pytest.raises(UsageError, match=r"none\.json does not exist"):
        project.import_workflows(target, root / "none.json")
    with pytest.raises(UsageError, match="project is not a file"):
        project.import_workflows(target, root)
    assert not (root / "recipes").exists()


def test_a_remote_target_is_matched_by_name(root: Path) -> None:
    """It doesn't say what its LoRAs change, so a CLIP strength of its own is a problem."""
    target: Any = FakeTarget()
    target.put(lora("model_ink", "Ink"), lora("model_a", "Dust"), lora("model_b", "Dust"))
    (one,) = imported(root, target, api(("LoraLoaderModelOnly", loader("ink.safetensors", 0.5)[1])))
    assert [(lora.id, lora.scale) for lora in one.loras] == [("model_ink", 0.5)]
    (own,) = imported(root, target, api(loader("ink.safetensors", 0.5, 1)), name="Own")
    assert "a CLIP strength of its own" in own.problems[0]
    (two,) = imported(root, target, api(loader("dust.safetensors", 0.5)), name="Two")
    assert two.problems[0].endswith(
        "2 LoRAs on the target match it: Dust (model_a), Dust (model_b)"
    )
