"""Where ComfyUI keeps LoRAs: by the variable, the library, and the usual places."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from composer.errors import UsageError
from composer.files.comfyui import lora_folder


def comfyui(at: Path) -> Path:
    folder = at / "models" / "loras"
    folder.mkdir(parents=True)
    return folder


def found(tmp_path: Path, variable: Path | None = None, library: Path | str | None = None) -> Path:
    env = {"COMFYUI_PATH": str(variable)} if variable else {}
    given = (lambda: library) if library else None
    return lora_folder(env, tmp_path / "home", given, otherwise="look elsewhere")


def test_the_variable_comes_first_then_the_library_then_the_usual_places(tmp_path: Path) -> None:
    one, two = comfyui(tmp_path / "one"), comfyui(tmp_path / "two")
    usual = comfyui(tmp_path / "home" / "ComfyUI")
    assert found(tmp_path, tmp_path / "one", two) == one
    assert found(tmp_path, None, two / "flux" / "styles") == two
    for other in (tmp_path / "loras", tmp_path / "two", "s3://bucket/models/loras"):
        assert found(tmp_path, None, other) == usual


def test_the_library_is_not_asked_for_if_the_variable_says_it(tmp_path: Path) -> None:
    folder = comfyui(tmp_path / "one")

    def library() -> Path:
        raise AssertionError

    env = {"COMFYUI_PATH": str(tmp_path / "one")}
    assert lora_folder(env, None, library, otherwise="") == folder


@pytest.mark.parametrize("below", ["", "models", "models/loras"])
def test_the_variable_may_name_the_folder_itself(tmp_path: Path, below: str) -> None:
    folder = comfyui(tmp_path / "one")
    assert found(tmp_path, tmp_path / "one" / below) == folder


def test_a_folder_of_another_name_is_none(tmp_path: Path) -> None:
    (tmp_path / "one" / "loras").mkdir(parents=True)
    with pytest.raises(UsageError, match="no ComfyUI with models/loras/ in") as raised:
        found(tmp_path, tmp_path / "one")
    assert raised.value.hint == "set COMFYUI_PATH to the folder of ComfyUI, or look elsewhere"
    (tmp_path / "two" / "models").mkdir(parents=True)
    (tmp_path / "two" / "models" / "loras").touch()
    with pytest.raises(UsageError):
        found(tmp_path, tmp_path / "two")


def test_a_relative_path_is_below_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = comfyui(tmp_path / "one")
    monkeypatch.chdir(tmp_path)
    assert found(tmp_path, Path("one")) == folder
    assert found(tmp_path, None, Path(os.path.relpath(folder))) == folder
