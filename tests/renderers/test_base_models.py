"""What a base model may be, what is refused before diffusers sees it, and what identifies it."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from composer.errors import UsageError
from composer.renderers.base_models import EMBEDDINGS, ENCODERS, find_base_model
from composer.renderers.hash_notes import HashNotes

if TYPE_CHECKING:
    from pathlib import Path

ORIGINS = {
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "image_encoder": [None, None],
}


def saved(folder: Path, **changes: Any) -> Path:
    """A folder like that of a pipeline, without real weights."""
    index: dict[str, Any] = {"_class_name": "FluxPipeline", "_diffusers_version": "0.42.1"}
    index |= {**ORIGINS, **changes}
    for part in ORIGINS:
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "config.json").write_text(json.dumps({"name": part}))
        (folder / part / "model.safetensors").write_bytes(part.encode())
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def embedded(path: Path, **metadata: str) -> Path:
    save_file({"0.tokens": np.zeros((1, 2), np.float32)}, path, metadata)
    return path


def identity(folder: Path) -> str:
    return find_base_model(str(folder), HashNotes()).identity


WITHOUT: dict[str, Any] = {part: [None, None] for part in ENCODERS}


def test_a_folder_is_identified_by_all_that_is_loaded_from_it(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "one"), saved(tmp_path / "other")
    model = find_base_model(str(one), HashNotes())
    assert model.has_encoders and "image_encoder" not in model.parts
    assert model.identity == identity(other) == identity(tmp_path / "one/../other")
    (other / "README.md").write_text("not loaded")
    (other / "transformer/pytorch_model.bin").write_bytes(b"not loaded")
    assert identity(other) == model.identity
    seen = {model.identity}
    for name in ("model_index.json", "transformer/model.safetensors", "vae/config.json"):
        before = (other / name).read_bytes()
        (other / name).write_bytes(before + b" ")
        seen.add(identity(other))
        (other / name).write_bytes(before)
    assert len(seen) == 4 and identity(other) == model.identity


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "StableDiffusionPipeline"}, "is a StableDiffusionPipeline"),
        ({"_class_name": ["pipeline", "FluxPipeline"]}, "not a FluxPipeline"),
        (
            {"transformer": ["my_module", "FluxTransformer2DModel"]},
            "code of its own for transformer",
        ),
        ({"vae": ["diffusers", 7]}, "code of its own for vae"),
        ({"vae": ["diffusers"]}, "code of its own for vae"),
        ({"safety\x1b[2J": ["x", "Y"]}, r"code of its own for safety\\x1b"),
        ({"vae": [None, None]}, "has no vae"),
        (WITHOUT, "has no text encoders, and no prompt-embeddings.safetensors"),
    ],
)
def test_what_diffusers_must_not_load(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        identity(saved(tmp_path / "model", **changes))


def test_folders_that_are_no_pipelines(tmp_path: Path) -> None:
    for name, words in [("nowhere", "does not exist"), ("file", "is not a folder")]:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(UsageError, match=words):
            identity(tmp_path / name)
    with pytest.raises(UsageError, match=r"has no model_index.json: it is no pipeline"):
        identity(tmp_path)
    for text in ("{", "[]", "[" * 100_000, "\xff"):
        (tmp_path / "model_index.json").write_text(text, encoding="latin-1")
        with pytest.raises(UsageError, match=r"model_index.json (can't be read|is not a JSON)"):
            identity(tmp_path)


def test_an_id_is_looked_up_in_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package that answers here is a fake of one function, which downloads nothing."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = saved(tmp_path / "hub/snapshots" / commit)
    cached = {"studio/flux": str(snapshot / "model_index.json")}
    hub = SimpleNamespace(try_to_load_from_cache=lambda id, name: cached.get(id))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.chdir(tmp_path)
    model = find_base_model("studio/flux", HashNotes())
    assert (model.identity, model.folder) == (f"studio/flux@{commit}", snapshot)
    with pytest.raises(UsageError, match="nor in Hugging Face's cache") as caught:
        find_base_model("black-forest-labs/FLUX.1-dev", HashNotes())
    assert caught.value.hint == (
        "compose downloads no model; to download it: hf download black-forest-labs/FLUX.1-dev"
    )
    saved(tmp_path / "studio/flux")  # a folder of that name comes first
    assert find_base_model("studio/flux", HashNotes()).identity.startswith("sha256:")


def test_embeddings_count_by_the_encoders_that_made_them(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", **WITHOUT)
    file = embedded(folder / EMBEDDINGS, encoders="sha256:one", prompts='["a knight"]')
    first = identity(folder)
    assert not find_base_model(str(folder), HashNotes()).has_encoders
    embedded(file, encoders="sha256:one", prompts='["a knight", "a dragon"]')
    assert identity(folder) == first
    embedded(file, encoders="sha256:other", prompts='["a knight"]')
    assert identity(folder) != first
    unnamed = {identity(folder) for n in range(2) if embedded(file, prompts=f'["{n}"]')}
    assert len(unnamed) == 2
    file.write_bytes(b"no safetensors")
    with pytest.raises(UsageError, match="is not a safetensors file"):
        identity(folder)
