"""`compose models`: what is on the target, and why a file is not."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import jsonschema
import pytest
from support.cli import compose
from support.engine_files import write_lora

from composer.files.schemas import schema

if TYPE_CHECKING:
    from pathlib import Path


def test_models_lists_what_there_is_and_why_a_file_is_not(project: Path) -> None:
    (project / "recipes/loras/broken.safetensors").write_bytes(b"no LoRA at all")
    (project / "recipes/loras/old.ckpt").write_bytes(b"\x80\x02}q\x00.")
    shown = compose("models", "--type", "flux.1-lora", at=project).out
    assert "Ink Lines" in shown
    assert "not usable: " in shown
    assert "broken.safetensors" in shown
    assert "old.ckpt" in shown
    assert compose("apply", at=project).status == 0  # it spoils nothing else


def test_models_of_an_unknown_type_are_a_usage_error(project: Path) -> None:
    refused = compose("models", "--type", "foo", at=project)
    assert (refused.status, refused.out) == (64, "")
    assert "'flux.1-lora', 'flux.1-composition'" in refused.err
    assert "flux.1-composition" not in compose("models", "--type", "flux.1-lora", at=project).out


def test_models_has_the_file_beside_the_id(project: Path) -> None:
    listed = json.loads(compose("models", "-o", "json", at=project).out)
    jsonschema.validate(listed, json.loads(schema("models")))
    files = {model["name"]: model["file"] for model in listed["models"]}
    assert files["Ink Lines"] == "ink-lines.safetensors"
    (line,) = [x for x in compose("models", at=project).out.splitlines() if "ink-lines" in x]
    assert line.startswith("model_") and "Ink Lines" in line


# --- folders and files -------------------------------------------------------------------


@pytest.fixture
def loras(tmp_path: Path) -> Path:
    """A folder as a trainer and a person leave it: checkpoints, a copy, a cut file, a YAML file."""
    folder = tmp_path / "my loras"
    for seed in (4, 8):
        write_lora(folder / f"ink-{seed}.safetensors", seed, title="ink")
    write_lora(folder / "ink-8 (1).safetensors", 8, title="ink")
    (folder / "cut.safetensors").write_bytes(b"x" * 100)
    (folder / "config.yaml").write_text("job: extension\n", "utf-8")
    return folder


def test_a_folder_is_enough(loras: Path) -> None:
    ran = compose("models", loras.name, at=loras.parent)
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert [lines[0].split()[0], "TRIGGER WORDS" in lines[0]] == ["ID", True]
    for line, name in zip(lines[1:3], ("ink-4", "ink-8"), strict=True):
        assert line.startswith("model_")
        assert f"  {name}  my loras/{name}.safetensors  0.0 MB  diffusers LoRA  1" in line
    assert lines[3:] == [
        "duplicate: my loras/ink-8 (1).safetensors is identical to my loras/ink-8.safetensors:"
        " remove my loras/ink-8 (1).safetensors",
        "not usable: my loras/cut.safetensors: is not a safetensors file (name a .safetensors file"
        " of a LoRA)",
        "",
        "2 LoRAs. 1 file can't be used.",
    ]


def test_a_folder_as_json(loras: Path) -> None:
    listed = json.loads(compose("models", str(loras), "-o", "json", at=loras.parent).out)
    jsonschema.validate(listed, json.loads(schema("models")))
    assert [(m["name"], m["file"], m["ranks"]) for m in listed["models"]] == [
        (name, f"{loras.as_posix()}/{name}.safetensors", [1]) for name in ("ink-4", "ink-8")
    ]
    assert listed["models"][1]["duplicates"] == [f"{loras.as_posix()}/ink-8 (1).safetensors"]
    assert list(listed["rejected"]) == [f"{loras.as_posix()}/cut.safetensors"]
    none = compose("models", loras.name, "--type", "flux.1-composition", at=loras.parent)
    assert none.out.splitlines()[-1] == "0 LoRAs. 1 file can't be used."


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["my loras/ink-4.safetensors"], 0, "1 LoRA."),
        (["my loras/ink-4.safetensors", "my loras/cut.safetensors"], 1, "1 LoRA. 1 file can't"),
        (["my loras/cut.safetensors"], 1, "0 LoRAs. 1 file can't be used."),
        (["my loras", "gone.safetensors"], 64, "gone.safetensors does not exist"),
        (["my loras", "my loras/config.yaml"], 64, "name either LoRAs or recipes"),
        (["my loras", "--target", "local"], 64, "can't be used with --target"),
        (["empty"], 64, "empty is a folder without recipes or LoRAs"),
    ],
)
def test_what_is_named(loras: Path, arguments: list[str], status: int, said: str) -> None:
    (loras.parent / "empty").mkdir()
    ran = compose("models", *arguments, at=loras.parent)
    assert ran.status == status, ran
    assert said in ran.out + ran.err


def test_a_folder_with_recipes_is_a_project(project: Path) -> None:
    for argument in ("recipes", "."):
        assert "Target: local" in compose("models", argument, at=project).err
    ran = compose("models", "recipes/loras", at=project)
    assert (ran.err, ran.out.splitlines()[-1]) == ("", "4 LoRAs.")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_a_link_out_of_the_repository_is_not_followed(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    outside = write_lora(other / "outside/ink.safetensors", 1)
    (project / "recipes/loras/linked.safetensors").symlink_to(outside)
    said = "not usable: recipes/loras/linked.safetensors: leads outside the library"
    assert said in compose("models", "recipes/loras", at=project).out
    (other / "loras").mkdir()
    (other / "loras/linked.safetensors").symlink_to(outside)
    ran = compose("models", str(other / "loras"), at=project)
    assert ran.out.splitlines()[-1] == "1 LoRA."


def test_words_of_strangers_are_escaped(tmp_path: Path) -> None:
    write_lora(tmp_path / "a.safetensors", 1, title="\x1b[31mred\u202e")
    (tmp_path / "\u202ebad.safetensors").write_bytes(b"x")
    out = compose("models", str(tmp_path), at=tmp_path).out
    assert "\x1b" not in out and "\u202e" not in out and "[31mred" in out
