"""PEFT's two files: `adapter_config.json` says how strong the weights beside it are, whatever
their name is."""

from __future__ import annotations

import json
import os
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support import lora_oracle as oracle
from support.engine_files import Notes
from support.lora_tensors import pair, saved, zeros

from composer.errors import BadLora
from composer.lora import inspect, merge, read
from composer.lora.fingerprint import fingerprint_file
from composer.lora.ids import pair_id
from composer.targets.local.library import Library

if TYPE_CHECKING:
    from support.lora_tensors import Tensors

    from composer.lora import LoraFile

LAYER = "transformer_blocks.0.attn.to_q"
STEM = f"base_model.model.{LAYER}"
WEIGHTS = "adapter_model.safetensors"
NAMES = (WEIGHTS, "Inky Style.SafeTensors", "adapter_model-000004.safetensors")
GUESS = "its strength is a guess"


def factors(lora: LoraFile) -> dict[str, float]:
    return {adapter.prefix.text: adapter.factor for adapter in lora.adapters}


def beside(folder: Path, tensors: Tensors, text: str, name: str = WEIGHTS) -> Path:
    (folder / "adapter_config.json").write_text(text, "utf-8")
    return saved(folder / name, tensors)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", ["base_model.model.", "transformer.base_model.model."])
@pytest.mark.parametrize(
    ("layer", "outputs"),
    [("transformer_blocks.0.attn.to_q", 3072), ("single_blocks.0.linear1", 21504)],
)
def test_a_raw_save_has_it_beside(
    tmp_path: Path, prefix: str, layer: str, outputs: int, name: str
) -> None:
    """Patterns name layers as the file does, Black Forest Labs' too."""
    if prefix.startswith("transformer.") and layer.startswith("single_blocks"):
        prefix = "base_model.model."
    said = {
        "peft_type": "LORA",
        "r": 8,
        "lora_alpha": 4,
        "rank_pattern": {layer: 2},
        "alpha_pattern": {f"^{layer}": 16},
    }
    stem = prefix + layer
    lora = read(beside(tmp_path, pair(stem, outputs=outputs), json.dumps(said), name))
    assert factors(lora) == {stem: 8.0}
    assert (lora.alphas, lora.notes) == ((16.0,), ())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            '{"r": 2, "peft_type": "LOHA"}',
            f"a LoRA at {LAYER}, where its adapter_config.json says LoHa",
        ),
        ('{"r": 2, "peft_type": "OFT"}', "is a OFT, says its adapter_config.json: only LoRA, LoHa"),
        ('{"r": 2, "alpha": 1, "lora_alpha": 2}', "which one counts?"),
        ('{"r": 2, "target_modules": ["to_k", "q"]}', f"changes {LAYER}, which target_modules in"),
        ('{"r": 2, "use_dora": true}', "DoRA"),
        ('{"r": 3}', "rank 2 at transformer_blocks.0.attn.to_q, where its adapter_config.json"),
        ("[]", "not a JSON object"),
        ('{"r": NaN}', "NaN"),
        (" " * 1024 * 1024 + "{}", "1,048,576 bytes"),
    ],
)
def test_one_beside_that_is_refused(tmp_path: Path, text: str, reason: str, name: str) -> None:
    with pytest.raises(BadLora) as raised:
        read(beside(tmp_path, pair(STEM), text, name))
    assert reason in raised.value.message


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["library", ".", "gone"])
def test_a_link_to_one_is_followed_within_a_given_folder_alone(
    tmp_path: Path, place: str, name: str
) -> None:
    """A repository could bring a link to any file of this machine."""
    (tmp_path / "library/knight").mkdir(parents=True)
    path = beside(tmp_path / "library/knight", pair(STEM), "{}", name)
    config, real = path.with_name("adapter_config.json"), tmp_path / place / "config.json"
    config.unlink()
    config.symlink_to(real)
    if real.parent.exists():
        real.write_text('{"r": 2, "lora_alpha": 8}', "utf-8")
    out = tmp_path / "out.safetensors"
    for use in (read, fingerprint_file, inspect, lambda path: merge(path, out)):
        with pytest.raises(BadLora, match="a link out of the folder of the weights"):
            use(path)
    if place == "library":
        assert factors(read(path, root=tmp_path / "library")) == {STEM: 4.0}
        assert fingerprint_file(path, root=tmp_path / "library").unchanged()
    else:
        with pytest.raises(BadLora, match="leads outside the library"):
            read(path, root=tmp_path / "library")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize("layout", ["cache", "cache, absolute", "own folder", "own subfolder"])
def test_a_link_is_followed_beside_the_weights_themselves(tmp_path: Path, layout: str) -> None:
    """Hugging Face's cache has links to both files, in `snapshots`, and both files in `blobs`."""
    snapshot, blobs = tmp_path / "snapshots/5f0c", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    if layout.startswith("own"):
        real = snapshot / ("configs/a.json" if layout == "own subfolder" else "a.json")
        real.parent.mkdir(exist_ok=True)
        saved(snapshot / WEIGHTS, pair(STEM))
    else:
        real = blobs / "1b2c"
        saved(blobs / "9f8e", pair(STEM))
        (snapshot / WEIGHTS).symlink_to(_place(blobs / "9f8e", snapshot, layout))
    real.write_text('{"r": 2, "lora_alpha": 8}', "utf-8")
    (snapshot / "adapter_config.json").symlink_to(_place(real, snapshot, layout))
    path, out = snapshot / WEIGHTS, tmp_path / "out.safetensors"
    assert factors(read(path)) == {STEM: 4.0}
    assert inspect(path).loras[0].alphas == (8.0,)
    assert merge(path, out).parts[0].fingerprint.unchanged()
    real.write_text('{"r": 2, "lora_alpha": 4}', "utf-8")
    assert merge(path, out, force=True).parts[0].file.alphas == (4.0,)


def _place(real: Path, folder: Path, layout: str) -> Path:
    return real if layout.endswith("absolute") else Path(os.path.relpath(real, folder))


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize("place", ["other/config.json", "blobs/deeper/config.json", "config.json"])
def test_a_link_to_one_that_is_elsewhere_is_refused(tmp_path: Path, place: str) -> None:
    for folder in ("snapshot", "blobs/deeper", "other"):
        (tmp_path / folder).mkdir(parents=True)
    saved(tmp_path / "blobs/9f8e", pair(STEM))
    (tmp_path / place).write_text('{"r": 2, "lora_alpha": 8}', "utf-8")
    path = tmp_path / "snapshot" / WEIGHTS
    path.symlink_to("../blobs/9f8e")
    path.with_name("adapter_config.json").symlink_to(tmp_path / place)
    for use in (read, fingerprint_file, inspect):
        with pytest.raises(BadLora, match="a link out of the folder of the weights"):
            use(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path, name: str) -> None:
    path = beside(tmp_path, pair(STEM), "{}", name)
    (tmp_path / "adapter_config.json").unlink()
    os.mkfifo(tmp_path / "adapter_config.json")
    with pytest.raises(
        BadLora, match=r"adapter_config\.json that can't be read: not a regular file"
    ):
        read(path)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("nowhere", "No such file or directory"),
        ("gone/adapter_config.json", "No such file or directory"),
        ("inky.safetensors/config.json", "Not a directory"),
        ("adapter_config.json", "Too many levels of symbolic links"),
    ],
)
def test_a_link_to_nothing_is_what_is_said_to_be_wrong(
    tmp_path: Path, link: str, reason: str
) -> None:
    """By the library too, which goes on with the other files."""
    path = saved(tmp_path / "inky.safetensors", pair(STEM))
    saved(tmp_path / "kohya.safetensors", KOHYA, {})
    (tmp_path / "adapter_config.json").symlink_to(link)
    out = tmp_path / "out.safetensors"
    words = f"inky.safetensors: has an adapter_config.json that can't be read: {reason}"
    for use in (read, fingerprint_file, inspect, lambda path: merge(path, out)):
        with pytest.raises(BadLora) as raised:
            use(path)
        assert raised.value.message == words
        assert "restore that file" in (raised.value.hint or "")
    catalog = Library(tmp_path, Notes()).scan()
    assert {lora.name for lora in catalog.loras.values()} == {"kohya"}
    assert words in str(catalog.rejected)


# --- the kinds of LoRA -------------------------------------------------------------------

INPUTS, OUTPUTS = 64, 3072  # of x_embedder
SMALL = "base_model.model.x_embedder"


def loha(rank: int, stem: str = SMALL) -> Tensors:
    rng = np.random.default_rng(0)
    shapes = {"w1_a": (OUTPUTS, rank), "w1_b": (rank, INPUTS)}
    shapes |= {"w2_a": (OUTPUTS, rank), "w2_b": (rank, INPUTS)}
    return {f"{stem}.hada_{k}": rng.normal(0, 0.1, v).astype("f4") for k, v in shapes.items()}


def lokr(rank: int | None, stem: str = SMALL, *, both: bool = False) -> Tensors:
    """Without a rank both matrices are whole; with `both` none is."""
    rng = np.random.default_rng(1)
    shapes: dict[str, tuple[int, int]] = {"w1": (8, 4), "w2": (OUTPUTS // 8, INPUTS // 4)}
    for name in ("w1", "w2") if both else ("w2",) if rank else ():
        (height, width), size = shapes.pop(name), rank or 0
        shapes |= {f"{name}_a": (height, size), f"{name}_b": (size, width)}
    return {f"{stem}.lokr_{k}": rng.normal(0, 0.1, v).astype("f4") for k, v in shapes.items()}


LORA = {key: np.full(v.shape, 0.5, np.float32) for key, v in pair(SMALL, 64, 3072, rank=4).items()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("tensors", "said", "factor"),
    [
        (LORA, {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "alpha": 1}, 2.0),
        (LORA, {"r": 4, "lora_alpha": 8, "target_modules": ["to_q", "x_embedder"]}, 2.0),
        (LORA, {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}, 2.0),
        (LORA, {"r": 4, "lora_alpha": 8, "target_modules": r".*\.to_q"}, 2.0),
        (loha(4), {"peft_type": "LOHA", "r": 4, "alpha": 8, "lora_alpha": 1}, 2.0),
        (loha(2), {"peft_type": "LOHA", "r": 4, "rank_pattern": {"x_embedder": 2}}, 4.0),
        (loha(2), {"peft_type": "LOHA", "r": 2, "alpha_pattern": {"x_embedder": 7}}, 3.5),
        (loha(2), {"r": 2, "alpha": 3}, 1.5),
        (lokr(4), {"peft_type": "LOKR", "r": 4, "alpha": 8}, 2.0),
        (lokr(2, both=True), {"peft_type": "LOKR", "r": 2, "alpha": 8}, 4.0),
        (lokr(None), {"peft_type": "LOKR", "r": 4096, "alpha": 1024}, 0.25),
    ],
)
def test_every_kind_of_lora_has_the_strength_that_it_says(
    tmp_path: Path, tensors: Tensors, said: dict[str, Any], factor: float, name: str
) -> None:
    """LoHa and LoKr call it alpha. PEFT divides it by the rank that it was asked for, also where
    both matrices of a LoKr are whole."""
    lora = read(beside(tmp_path, tensors, json.dumps(said), name))
    assert factors(lora) == {SMALL: factor}
    assert lora.notes == ()


@pytest.mark.parametrize(
    ("tensors", "said", "reason"),
    [
        (loha(4), {"peft_type": "LORA", "r": 4}, "has a LoHa at x_embedder, where its adapter"),
        (loha(4), {"peft_type": "LOKR", "r": 4}, "adapter_config.json says LoKr"),
        (loha(4), {"peft_type": "LOHA", "r": 8}, "has rank 4 at x_embedder"),
        (lokr(4), {"peft_type": "LOHA", "r": 4}, "has a LoKr at x_embedder"),
        (lokr(4), {"peft_type": "LOKR", "r": 8}, "has rank 4 at x_embedder"),
        (lokr(None), {"peft_type": "LOKR", "target_modules": ["embedder"]}, "does not name"),
        ({**LORA, f"{SMALL}.alpha": zeros()}, {"r": 4, "lora_alpha": 8}, "which disagree at"),
        ({**lokr(None), f"{SMALL}.alpha": zeros()}, {"r": 4, "alpha": 8}, "which disagree at"),
    ],
)
def test_one_that_does_not_fit_is_refused(
    tmp_path: Path, tensors: Tensors, said: dict[str, Any], reason: str
) -> None:
    with pytest.raises(BadLora) as raised:
        read(beside(tmp_path, tensors, json.dumps(said), "inky.safetensors"))
    assert reason in raised.value.message
    assert "in a folder of its own" in (raised.value.hint or "")


@pytest.mark.parametrize("name", NAMES)
def test_alphas_in_the_keys_may_say_the_same(tmp_path: Path, name: str) -> None:
    tensors = {**pair(STEM), f"{STEM}.alpha": np.array(4, np.float32)}
    assert factors(read(beside(tmp_path, tensors, '{"r": 2, "lora_alpha": 4}', name))) == {STEM: 2}
    with pytest.raises(BadLora, match=r"\.alpha keys and adapter_config\.json, which disagree"):
        read(beside(tmp_path, tensors, '{"r": 2, "lora_alpha": 2}', name))


# --- whose it is -------------------------------------------------------------------------

SAID = json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8})
KOHYA = pair("lora_unet_img_in", INPUTS, OUTPUTS, rank=4)
DIFFUSERS = pair("transformer.x_embedder", INPUTS, OUTPUTS, rank=4)


@pytest.mark.parametrize("others", [[WEIGHTS], ["a.safetensors", "b.safetensors"]])
def test_one_beside_several_files_is_read_with_a_note(tmp_path: Path, others: list[str]) -> None:
    """Checkpoints of one training share it; of two LoRAs only one can have it."""
    for name in others:
        saved(tmp_path / name, LORA)
    lora = read(beside(tmp_path, LORA, SAID, "inky.safetensors"))
    assert factors(lora) == {SMALL: 2.0}
    assert lora.notes[0].startswith(f"{GUESS} if the adapter_config.json that it is read with")
    assert f"belongs to {others[0]}, which lies there too" in lora.notes[0]
    assert len(lora.notes) == 1


def test_pefts_own_name_has_no_doubt(tmp_path: Path) -> None:
    saved(tmp_path / "inky.safetensors", LORA)
    lora = read(beside(tmp_path, LORA, SAID))
    assert (factors(lora), lora.notes) == ({SMALL: 2.0}, ())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_other_files_beside_it_are_no_doubt(tmp_path: Path) -> None:
    """Those of other tools, broken ones, pipes, links to the same file or out of the folder."""
    folder = tmp_path / "library"
    folder.mkdir()
    path = beside(folder, LORA, SAID, "inky.safetensors")
    saved(tmp_path / "peft.safetensors", LORA)
    saved(folder / "a.safetensors", KOHYA, {"note": '"base_model.model.": 1'})
    (folder / "b.safetensors").write_bytes(b"\xff" * 40)
    os.mkfifo(folder / "c.safetensors")
    (folder / "d.safetensors").symlink_to(path)
    (folder / "e.safetensors").symlink_to(tmp_path / "peft.safetensors")
    (folder / "f.safetensors").symlink_to(tmp_path / "gone")
    for root in (None, folder):
        assert read(path, root=root).notes == ()
    assert len(read(path, root=tmp_path).notes) == 1


@pytest.mark.parametrize("tensors", [KOHYA, DIFFUSERS, pair("x_embedder", INPUTS, OUTPUTS, rank=4)])
def test_files_in_other_names_are_not_read_with_it(tmp_path: Path, tensors: Tensors) -> None:
    """Nor refused for it, whatever it says; the note is left out where they say their strength."""
    stem = next(iter(tensors)).partition(".lora_")[0]
    lora = read(beside(tmp_path, tensors, "no JSON", "inky.safetensors"))
    assert factors(lora) == {stem: 1.0}
    (note,) = lora.notes
    assert note.startswith(GUESS) and f"not in PEFT's names ({stem})" in note
    alone = {**tensors, f"{stem}.alpha": np.array(2.0, np.float32)}
    lora = read(beside(tmp_path, alone, "no JSON", "inky.safetensors"))
    assert (factors(lora), lora.notes) == ({stem: 0.5}, ())


@pytest.mark.parametrize("tensors", [LORA, loha(2), lokr(2), lokr(None)])
@pytest.mark.parametrize("prefix", ["base_model.model.", "transformer.base_model.model."])
@pytest.mark.parametrize("name", NAMES)
def test_without_one_the_strength_is_a_guess(
    tmp_path: Path, tensors: Tensors, prefix: str, name: str
) -> None:
    tensors = {key.replace("base_model.model.", prefix): v for key, v in tensors.items()}
    lora = read(saved(tmp_path / name, tensors))
    assert factors(lora) == {f"{prefix}x_embedder": 1.0}
    (note,) = lora.notes
    assert note.startswith(f"{GUESS}: PEFT saves it in an adapter_config.json, and none lies")
    stated = {**tensors, f"{prefix}x_embedder.alpha": np.array(2.0, np.float32)}
    assert read(saved(tmp_path / name, stated)).notes == ()


def test_other_formats_need_none(tmp_path: Path) -> None:
    for number, tensors in enumerate((KOHYA, DIFFUSERS)):
        assert read(saved(tmp_path / f"{number}.safetensors", tensors)).notes == ()


# --- who asks ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("tensors", "type"), [(LORA, "LORA"), (loha(4), "LOHA"), (lokr(4), "LOKR")]
)
def test_merging_inspecting_and_the_library_agree(
    tmp_path: Path, tensors: Tensors, type: str, name: str
) -> None:
    """On the strength, and that another configuration makes another LoRA."""
    out, seen = tmp_path / "out.safetensors", set()
    for alpha in (2, 12):
        said = {"peft_type": type, "r": 4, "lora_alpha": alpha, "alpha": alpha}
        path = beside(tmp_path, tensors, json.dumps(said), name)
        library = Library(tmp_path, Notes())
        (lora,) = library.scan().loras.values()
        merged = merge(path, out, force=True)
        assert merged.parts[0].fingerprint.hashes == lora.fingerprint.hashes
        assert fingerprint_file(path, root=tmp_path).hashes == lora.fingerprint.hashes
        assert lora.fingerprint.read().alphas == inspect(path).loras[0].alphas == (alpha,)
        config = path.with_name("adapter_config.json")
        weights, beside_it = (sha256(file.read_bytes()).digest() for file in (path, config))
        assert lora.id == pair_id(weights, beside_it)
        seen.add((lora.id, lora.fingerprint.signature))
        got = oracle.dense(oracle.deltas(out)["x_embedder"])
        wanted = oracle.dense(oracle.deltas(path)["x_embedder"])
        assert np.abs(got).max() > 0
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
        out.unlink()
    assert len(seen) == 2


def test_the_library_tells_what_does_not_fit(tmp_path: Path) -> None:
    beside(tmp_path, LORA, '{"r": 8}', "inky.safetensors")
    saved(tmp_path / "kohya.safetensors", KOHYA)
    catalog = Library(tmp_path, Notes()).scan()
    assert {lora.name for lora in catalog.loras.values()} == {"kohya"}
    assert "has rank 4 at x_embedder, where its adapter_config.json says 8" in str(catalog.rejected)
