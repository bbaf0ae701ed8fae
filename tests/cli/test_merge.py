"""`compose merge`: the engine's arithmetic without a recipe, and a file that is whole or absent."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from support.cli import compose, snapshot, spawned
from support.engine_files import no_room, trained, write_lora, write_peft, write_t5
from support.lora_files import Spec, write
from support.model_types import COMPOSITION, LORA

from composer.cli.arguments import swept_argument
from composer.cli.terminal import Meter
from composer.errors import BadLora, Refused, TargetError
from composer.files.atomic import STALE, sweep
from composer.files.delivery import MARGIN, spare
from composer.lora import merge, merging, read
from composer.lora.container import Source
from composer.lora.families.flux1_files import MODULES
from composer.model import Concept, parameters
from composer.output.style import weight
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

SUPPORT = Path(__file__).parents[1] / "support"
RANKS = {"ink": 2, "dust": 3, "stone": 4}
SCALES = {"ink": 0.65, "dust": 0.8, "stone": -0.5}
FIRST = [module.path for module in MODULES[:60]]
WISHES: list[dict[str, Any]] = [
    {},
    {"rank": 4},
    {"precision": "bfloat16"},
    {"rank": 3, "precision": "float16"},
]


@pytest.fixture
def loras(tmp_path: Path) -> Path:
    for seed, (name, rank) in enumerate(RANKS.items(), 1):
        write_lora(tmp_path / "loras" / f"{name}.safetensors", seed, rank=rank)
    return tmp_path / "loras"


def parts(loras: Path) -> list[tuple[Path, float]]:
    return [(loras / f"{name}.safetensors", scale) for name, scale in SCALES.items()]


def words(loras: Path) -> list[str]:
    return [f"{path}:{scale}" for path, scale in parts(loras)]


def changes(path: Path) -> dict[str, NDArray[Any]]:
    """ΔW of every layer of a file in the diffusers format, in float64."""
    tensors = {key: np.asarray(value, np.float64) for key, value in load_file(path).items()}
    found = {}
    for key, down in tensors.items():
        if key.endswith(".lora_A.weight"):
            stem = key.removesuffix(".lora_A.weight")
            factor = float(tensors.get(f"{stem}.alpha", np.float64(len(down)))) / len(down)
            found[stem] = factor * tensors[f"{stem}.lora_B.weight"] @ down
    return found


def expected(loras: Path) -> dict[str, NDArray[Any]]:
    found = [(changes(path), scale) for path, scale in parts(loras)]
    return {
        stem: np.sum([scale * change[stem] for change, scale in found], axis=0)
        for stem in found[0][0]
    }


def error(got: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]]) -> float:
    assert got.keys() == wanted.keys()
    return max(
        float(np.linalg.norm(got[stem] - wanted[stem]) / np.linalg.norm(wanted[stem]))
        for stem in wanted
    )


# --- what it makes -----------------------------------------------------------------------


@pytest.mark.parametrize("wish", WISHES, ids=str)
def test_it_is_what_the_engine_composes(tmp_path: Path, loras: Path, wish: dict[str, Any]) -> None:
    out = tmp_path / "out.safetensors"
    flags = [text for name, value in wish.items() for text in (f"--{name}", str(value))]
    assert compose("merge", *words(loras), "-o", str(out), *flags, at=tmp_path).status == 0
    with Engine(tmp_path / "state", loras) as engine:
        ids = {lora.name: lora.id for lora in engine.list_models(LORA)}
        concepts = [Concept(ids[name], scale) for name, scale in SCALES.items()]
        model = engine.create("Knight", concepts, type=COMPOSITION)
        engine.train(model.id, parameters(wish))
        assert trained(engine, model.id).trained
        result = engine.result(model.id)
        ours, theirs = load_file(out), load_file(result)
        assert ours.keys() == theirs.keys()
        assert all(ours[key].tobytes() == theirs[key].tobytes() for key in ours)
        ours_said, theirs_said = metadata(out), metadata(result)
        assert ours_said.pop("modelspec.title") == "out"
        assert theirs_said.pop("modelspec.title") == model.id
        assert ours_said == theirs_said


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "np") as file:
        return dict(file.metadata())


def test_the_order_of_the_words_means_nothing(tmp_path: Path, loras: Path) -> None:
    for name, order in (("one", words(loras)), ("two", words(loras)[::-1])):
        (tmp_path / name).mkdir()
        done = compose("merge", *order, "-o", f"{name}/k.safetensors", at=tmp_path)
        assert done.status == 0
    one, two = (tmp_path / name / "k.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("precision", "most"), [("float32", 1e-6), ("float16", 1e-3), ("bfloat16", 5e-3)]
)
def test_it_is_the_weighted_sum(tmp_path: Path, loras: Path, precision: str, most: float) -> None:
    out = tmp_path / "out.safetensors"
    done = merge(parts(loras), out, precision=precision)
    assert error(changes(out), expected(loras)) < most
    assert done.report.ranks == (sum(RANKS.values()),)
    assert done.size == out.stat().st_size
    off = {stem: change * 1.01 for stem, change in expected(loras).items()}
    assert error(changes(out), off) > most  # the control


def test_a_reduction_is_the_best_there_is_and_says_what_it_keeps(
    tmp_path: Path, loras: Path
) -> None:
    out = tmp_path / "out.safetensors"
    ran = compose(
        "merge", *words(loras), "-o", str(out), "--rank", "4", "--json-into", "r.json", at=tmp_path
    )
    report = json.loads((tmp_path / "r.json").read_text())
    kept = whole = 0.0
    for stem, change in expected(loras).items():
        u, values, v = np.linalg.svd(change, full_matrices=False)
        best = (u[:, :4] * values[:4]) @ v[:4]
        assert np.linalg.norm(changes(out)[stem] - best) < 1e-4 * np.linalg.norm(change)
        kept, whole = kept + (values[:4] ** 2).sum(), whole + (values**2).sum()
    assert report["ranks"] == [4]
    assert report["kept"] == {"embedders and head": pytest.approx((kept / whole) ** 0.5, 1e-6)}
    assert "kept of the weight change:\n  embedders and head  " in ran.out
    assert metadata(out)["compose.rank"] == "4"
    told = json.loads(metadata(out)["compose.kept"])["embedders and head"]
    assert float(told) == pytest.approx((kept / whole) ** 0.5, abs=1e-4)


def test_one_alone_is_converted_scaled_and_converted_back(tmp_path: Path, loras: Path) -> None:
    ink = loras / "ink.safetensors"
    kohya, back = tmp_path / "kohya.safetensors", tmp_path / "back.safetensors"
    merge([(ink, 2.0)], kohya, format="kohya")
    assert read(kohya).format == "kohya"
    merge([(kohya, 0.5)], back)
    assert error(changes(back), changes(ink)) < 1e-6


def test_what_is_printed_and_what_json_says(tmp_path: Path, loras: Path) -> None:
    ran = compose(
        "merge", *words(loras), "-o", "k.safetensors", "--json-into", "r.json", at=tmp_path
    )
    size = (tmp_path / "k.safetensors").stat().st_size
    first, *rows = ran.out.splitlines()
    assert first == f"wrote k.safetensors: diffusers, float32, rank 9, {size / 1e6:.1f} MB"
    assert [row.split()[:2] for row in rows] == [
        [weight(scale), str(path)] for path, scale in parts(loras)
    ]
    assert (ran.status, ran.err) == (0, "")
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["formatVersion"], report["bytes"], report["dryRun"]) == (1, size, False)
    assert (report["dtype"], report["ranks"], report["kept"]) == ("F32", [9], {})
    assert [c["ranks"] for c in report["concepts"]] == [[rank] for rank in RANKS.values()]
    said = json.loads(metadata(tmp_path / "k.safetensors")["compose.concepts"])
    assert sorted(said, key=by_id) == sorted(
        ({key: c[key] for key in ("modelId", "sha256", "scale")} for c in report["concepts"]),
        key=by_id,
    )


def by_id(concept: dict[str, Any]) -> str:
    return str(concept["modelId"])


def test_a_dry_run_writes_nothing(tmp_path: Path, loras: Path) -> None:
    before = snapshot(tmp_path)
    arguments = ("merge", *words(loras), "-o", "k.safetensors", "--rank", "4")
    ran = compose(*arguments, "--dry-run", at=tmp_path)
    assert (ran.status, snapshot(tmp_path)) == (0, before)
    first, told, *_ = ran.out.splitlines()
    assert first.startswith("Dry run:")
    assert told.startswith("would write k.safetensors: diffusers, float32, rank 4, at most ")
    assert compose(*arguments, at=tmp_path).status == 0
    most = float(told.split()[-2]) * 1e6
    assert (tmp_path / "k.safetensors").stat().st_size <= most + 5e4  # as rounded


def control(path: Path) -> Path:
    """A LoRA that brings a scale of a norm, as BFL's for control do."""
    tensors = {
        "img_in.lora_A.weight": np.ones((1, 128), np.float32),
        "img_in.lora_B.weight": np.ones((3072, 1), np.float32),
        "double_blocks.0.img_attn.norm.query_norm.scale": np.full(128, 2.0, np.float32),
    }
    save_file(tensors, path)
    return path


def test_scales_of_norms_apply_in_full_and_that_is_said(tmp_path: Path) -> None:
    path = control(tmp_path / "control.safetensors")
    ran = compose("merge", f"{path}:0.5", "-o", "k.safetensors", at=tmp_path)
    said = "brings scales of norms, which take the place of the base model's"
    assert f"note: control.safetensors {said} in full, whatever the scale" in ran.out
    (norm,) = (v for v in load_file(tmp_path / "k.safetensors").values() if v.shape == (128,))
    assert (norm == 2.0).all()
    ran = compose("merge", str(path), "-o", "k.safetensors", "--force", at=tmp_path)
    assert (ran.status, ran.out.endswith(f"note: control.safetensors {said}\n")) == (0, True)
    ran = compose("merge", f"{path}:0", "-o", "k.safetensors", "--force", at=tmp_path)
    assert "note: control.safetensors adds nothing: its scale is 0\n" in ran.out
    assert "scales of norms" not in ran.out
    assert not any(v.shape == (128,) for v in load_file(tmp_path / "k.safetensors").values())


def test_float16_gives_way_where_values_leave_its_range(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    tensors = {
        "transformer.proj_out.lora_A.weight": np.full((1, 3072), 1e-3, np.float16),
        "transformer.proj_out.lora_B.weight": np.full((64, 1), 1e-4, np.float16),
    }
    save_file(tensors, path)
    done = merge([(path, 0.01)], tmp_path / "a.safetensors")
    assert done.report.dtype == "F32"
    assert done.notes == ("written as F32: some values don't fit F16",)
    with pytest.raises(BadLora, match=r"too small for float16.*bfloat16 or float32"):
        merge([(path, 0.01)], tmp_path / "b.safetensors", precision="float16")
    assert not (tmp_path / "b.safetensors").exists()


def test_the_configuration_that_peft_saves_beside_the_weights_counts(tmp_path: Path) -> None:
    path = write_peft(tmp_path / "knight", 1, alpha=4.0, rank=2)
    plain = write_lora(tmp_path / "plain.safetensors", 1, rank=2, prefix="base_model.model")
    config = path.with_name("adapter_config.json")
    merge([(path, 0.5)], tmp_path / "k.safetensors")
    merge([(plain, 1.0)], tmp_path / "p.safetensors")
    assert error(changes(tmp_path / "k.safetensors"), changes(tmp_path / "p.safetensors")) < 1e-6
    (said,) = json.loads(metadata(tmp_path / "k.safetensors")["compose.concepts"])
    assert said["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert said["configSha256"] == hashlib.sha256(config.read_bytes()).hexdigest()
    ran = compose("merge", "knight/adapter_model.safetensors", "-o", "r.safetensors", at=tmp_path)
    assert "alpha 4" in ran.out

    def harm(share: float) -> None:
        config.write_text(config.read_text().replace("4.0", "8.0"))

    with pytest.raises(BadLora, match=r"adapter_model\.safetensors changed while it was read"):
        merge([(path, 0.5)], tmp_path / "x.safetensors", progress=harm)
    assert not (tmp_path / "x.safetensors").exists()


# --- what it refuses ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("a", "-o", "there.safetensors"), 3, "--force"),
        (("a", "-o", "a.safetensors"), 3, "a.safetensors already exists"),
        (("a", "-o", "a.safetensors", "--force"), 64, "is one of the LoRAs"),
        (("a", "-o", "json"), 64, "the output file must end in .safetensors"),
        (("a", "-o", "k.txt"), 64, "  write k.safetensors\n"),
        (("a", "-o", "../k"), 64, "  write ../k.safetensors\n"),
        (("a", "-o", "k.safetensors", "--format", "foo"), 64, "'foo' is not one of 'diffusers', "),
        (("gone", "-o", "k.safetensors", "--format", "Kohya"), 64, "for '--format': 'Kohya' is"),
        (("a", "-o", "folder.safetensors"), 64, "is a folder"),
        (("a", "-o", "nowhere/k.safetensors"), 64, "nowhere is not a folder"),
        (("a:2.5", "-o", "k.safetensors"), 64, "not within -2..2"),
        (("a:0.5", "b", "-o", "k.safetensors"), 64, "are the same LoRA"),
        (("c", "-o", "k.safetensors"), 1, "c.safetensors: is empty"),
        (("gone", "-o", "k.safetensors"), 64, "gone.safetensors does not exist"),
        (("a",), 64, "--out"),
        (("a", "-o", "k.safetensors", "--rank", "0"), 64, "--rank"),
        (("a", "-o", "k.safetensors", "--precision", "int8"), 64, "--precision"),
        (("-o", "k.safetensors"), 64, "LORA"),
    ],
    ids=str,
)
def test_refusals(tmp_path: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    write_lora(tmp_path / "a.safetensors", 1)
    write_lora(tmp_path / "b.safetensors", 1)
    write_lora(tmp_path / "there.safetensors", 2)
    (tmp_path / "c.safetensors").touch()
    (tmp_path / "folder.safetensors").mkdir()
    before = snapshot(tmp_path)
    files = [
        f"{stem}.safetensors{colon}{scale}"
        for stem, colon, scale in (word.partition(":") for word in arguments if named(word))
    ]
    ran = compose("merge", *files, *[w for w in arguments if not named(w)], at=tmp_path)
    assert (ran.status, said in ran.err) == (status, True), ran.err
    assert snapshot(tmp_path) == before


def named(word: str) -> bool:
    return word.partition(":")[0] in ("a", "b", "c", "gone")


def bad_files(at: Path) -> dict[str, str]:
    """Files among good ones that can't be used, each with a word of the reason."""
    write_lora(at / "a.safetensors", 1)
    write_lora(at / "b.safetensors", 2)
    (at / "empty.safetensors").touch()
    (at / "page.safetensors").write_text("<!DOCTYPE html><html>log in</html>")
    (at / "cut.safetensors").write_bytes((at / "a.safetensors").read_bytes()[:-1])
    (at / "README.md").write_text("# LoRAs\n\nMade with compose.\n")
    write_t5(at / "t5.safetensors")
    return {
        "empty.safetensors": "is empty",
        "page.safetensors": "a web page",
        "cut.safetensors": "is cut short",
        "README.md": "is not a safetensors file\n  name a .safetensors file",
        "t5.safetensors": "a part for T5",
    }


@pytest.mark.parametrize("command", [("merge", "-o", "k.safetensors"), ("inspect",)])
def test_every_bad_file_is_named_at_once(tmp_path: Path, command: tuple[str, ...]) -> None:
    bad = bad_files(tmp_path)
    if command == ("inspect",):
        del bad["t5.safetensors"]  # a report holds every layer
    files = sorted(["a.safetensors", "b.safetensors", *bad])
    ran = compose(*command, *files, at=tmp_path)
    assert ran.status == 1
    for name, reason in bad.items():
        assert f"compose: {name}: " in ran.err and reason in ran.err, ran.err
    assert ran.err.endswith(f"compose: {len(bad)} of {len(files)} LoRA files can't be used\n")
    with pytest.raises(BadLora, match=r"cut short.*is empty") as raised:
        merge(
            [tmp_path / name for name in ("b.safetensors", "cut.safetensors", "empty.safetensors")],
            tmp_path / "k.safetensors",
        )
    assert len(raised.value.errors) == 2
    assert not (tmp_path / "k.safetensors").exists()


@pytest.mark.parametrize("command", [("merge", "-o", "k.safetensors"), ("inspect",)])
def test_what_is_no_lora_file_gets_a_next_step(tmp_path: Path, command: tuple[str, ...]) -> None:
    bad_files(tmp_path)
    (tmp_path / "r.yaml").write_text("name: R\nconcepts: [{name: A, scale: 1}]\n")
    (tmp_path / "none").mkdir()
    ran = compose(*command, ".", "none", "gone.safetensors", "r.yaml", at=tmp_path)
    assert ran.status == 64
    first, hint, _ = ran.err.splitlines()
    for words in ("none is a folder", "gone.safetensors does not exist"):
        assert words in first
    if command[0] == "merge":
        assert ". is a folder" in first and "r.yaml is a recipe" in first
        assert "./*.safetensors names its LoRA files" in hint
        assert "compose apply creates the model of a recipe" in hint
    (tmp_path / "r.yaml").unlink()
    ran = compose(*command, ".", at=tmp_path)
    if command[0] == "merge":
        hint = ran.err.splitlines()[1]
        assert ".safetensors files; ./*.safetensors names its LoRA files" in hint
    else:  # what lies in a folder ends nothing
        assert (ran.status, ran.out.count("not usable: ")) == (0, 3)


@pytest.mark.parametrize("scale", ["0", "-0.0"])
def test_a_scale_of_0_is_noted(tmp_path: Path, loras: Path, scale: str) -> None:
    ran = compose(
        "merge",
        f"{loras}/ink.safetensors:{scale}",
        f"{loras}/dust.safetensors",
        "-o",
        "k.safetensors",
        at=tmp_path,
    )
    assert ran.out.endswith("\nnote: ink.safetensors adds nothing: its scale is 0\n")


@pytest.mark.parametrize(
    "report", ["a.safetensors", "k.safetensors", "new.safetensors", "r.yaml", "folder", "no/r.json"]
)
def test_a_report_takes_the_place_of_nothing_of_worth(tmp_path: Path, report: str) -> None:
    write_lora(tmp_path / "a.safetensors", 1)
    (tmp_path / "r.yaml").write_text("name: R\n")
    (tmp_path / "folder").mkdir()
    before = snapshot(tmp_path)
    ran = compose(
        "merge", "a.safetensors", "-o", "k.safetensors", "--json-into", report, at=tmp_path
    )
    assert (ran.status, report.partition("/")[0] in ran.err) == (64, True), ran.err
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no /dev")
def test_a_report_may_go_to_a_pipe(tmp_path: Path) -> None:
    write_lora(tmp_path / "a.safetensors", 1)
    arguments = ("merge", "a.safetensors", "-o", "k.safetensors", "--json-into", "/dev/stdout")
    out, err = spawned(*arguments, at=tmp_path).communicate()
    assert (out.startswith("{"), err) == (True, ""), err


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_an_input_by_another_name_is_not_written_over(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "a.safetensors", 1)
    (tmp_path / "link.safetensors").symlink_to(path)
    ran = compose("merge", "a.safetensors", "-o", "link.safetensors", "--force", at=tmp_path)
    assert (ran.status, "is one of the LoRAs" in ran.err) == (64, True)


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_parts_for_t5_need_kohyas_form(tmp_path: Path, more: list[str]) -> None:
    write_t5(tmp_path / "t5.safetensors")
    ran = compose("merge", "t5.safetensors", "-o", "k.safetensors", *more, at=tmp_path)
    assert (ran.status, "a part for T5" in ran.err, "--format kohya" in ran.err) == (1, True, True)
    ran = compose(
        "merge", "t5.safetensors", "-o", "k.safetensors", "--format", "kohya", *more, at=tmp_path
    )
    assert (ran.status, (tmp_path / "k.safetensors").exists()) == (0, not more)


ENCODERS = {
    "a norm": {"lora_te1_text_model_final_layer_norm.w_norm": np.ones(768, np.float32)},
    "CLIP-G": {
        "lora_te2_text_model_encoder_layers_31_mlp_fc1.lora_down.weight": np.ones((1, 1280), "f4"),
        "lora_te2_text_model_encoder_layers_31_mlp_fc1.lora_up.weight": np.ones((5120, 1), "f4"),
    },
    "a wrong width": {
        "lora_te1_text_model_encoder_layers_0_mlp_fc2.lora_down.weight": np.ones((1, 768), "f4"),
        "lora_te1_text_model_encoder_layers_0_mlp_fc2.lora_up.weight": np.ones((768, 1), "f4"),
    },
    "DoRA": {"text_encoder.text_model.encoder.layers.0.mlp.fc2.dora_scale": np.ones(768, "f4")},
    "an embedding": {"bundle_emb.cat.string_to_param.*": np.ones((1, 768), np.float32)},
    "T5": {
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight": np.ones(
            (1, 4096), "f4"
        ),
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_up.weight": np.ones((4096, 1), "f4"),
    },
    "CLIP, which is fine": {
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": np.ones((1, 768), "f4"),
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": np.ones((3072, 1), "f4"),
    },
}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_text_encoders_can_be_left_out(tmp_path: Path, loras: Path, encoder: str) -> None:
    ink = loras / "ink.safetensors"
    save_file({**load_file(ink), **ENCODERS[encoder]}, tmp_path / "wordy.safetensors")
    merge([(ink, 0.5)], tmp_path / "plain.safetensors")
    arguments = ("merge", "wordy.safetensors:0.5", "-o", "k.safetensors")
    if encoder != "CLIP, which is fine":
        ran = compose(*arguments, at=tmp_path)
        assert (ran.status, "`compose merge --skip-text-encoder` writes" in ran.err) == (1, True)
    ran = compose(*arguments, "--skip-text-encoder", at=tmp_path)
    count = len(ENCODERS[encoder])
    note = (
        f"note: wordy.safetensors: its {count} tensor{'s' * (count > 1)} for text encoders are left"
    )
    assert (ran.status, note in ran.out) == (0, True), ran
    ours, plain = (load_file(tmp_path / f"{name}.safetensors") for name in ("k", "plain"))
    assert ours.keys() == plain.keys()
    assert all(ours[key].tobytes() == plain[key].tobytes() for key in ours)
    assert metadata(tmp_path / "k.safetensors")["compose.text_encoder"] == "skipped"
    assert "compose.text_encoder" not in metadata(tmp_path / "plain.safetensors")
    ran = compose("inspect", "wordy.safetensors", "--skip-text-encoder", at=tmp_path)
    assert (ran.status, "for text encoders are left out" in ran.out) == (0, True), ran


def test_a_text_encoder_alone_leaves_nothing(tmp_path: Path) -> None:
    save_file(ENCODERS["CLIP-G"], tmp_path / "g.safetensors")
    ran = compose("inspect", "g.safetensors", "--skip-text-encoder", at=tmp_path)
    assert (ran.status, "for text encoders and nothing else" in ran.err) == (1, True)


def test_the_engine_says_the_same_of_t5_before_anything_is_made(tmp_path: Path) -> None:
    write_t5(tmp_path / "loras" / "t5.safetensors", title="Wordy")
    with Engine(tmp_path / "state", tmp_path / "loras") as engine:
        assert engine.list_models(LORA) == []
        said = engine.rejected["Wordy"]
    assert "t5.safetensors: " in said
    assert "a part for T5, which the diffusers format can't hold" in said
    assert "`compose merge --format kohya` keeps it" in said


# --- several scales ----------------------------------------------------------------------


def test_a_range_writes_a_file_for_each_scale(tmp_path: Path, loras: Path) -> None:
    words = [f"{loras}/ink.safetensors:0.4..1.0/0.2", f"{loras}/dust.safetensors:0.8"]
    report = ("--json-into", "r.json")
    ran = compose("merge", *words, "-o", "out/", *report, "--dry-run", at=tmp_path)
    assert (ran.status, (tmp_path / "out").exists()) == (0, False), ran.err
    planned = json.loads((tmp_path / "r.json").read_text())["merges"]
    assert "would write 4 files to out: diffusers, at most " in ran.out
    ran = compose("merge", *words, "-o", "out/", *report, at=tmp_path)
    first, *rows = ran.out.splitlines()
    assert (ran.status, first.startswith("wrote 4 files to out: diffusers, ")) == (0, True)
    names = [f"ink_{scale}_dust_0.8.safetensors" for scale in ("0.4", "0.6", "0.8", "1.0")]
    assert [row.split()[0] for row in rows[:5]] == [*names, "of:"]
    assert [row.split()[:3] for row in rows[5:]] == [
        ["0.4", "to", "1"],
        ["0.8", f"{loras}/dust.safetensors", "diffusers:"],
    ]
    merges = json.loads((tmp_path / "r.json").read_text())["merges"]
    assert [one["file"] for one in merges] == [one["file"] for one in planned]
    assert [one["concepts"][0]["scale"] for one in merges] == [0.4, 0.6, 0.8, 1.0]
    for scale, name in zip((0.4, 0.6, 0.8, 1), names, strict=True):
        single = (f"{loras}/ink.safetensors:{scale}", words[1])
        assert compose("merge", *single, "-o", name, at=tmp_path).status == 0
        assert (tmp_path / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    again = compose("merge", *words, "-o", "out", at=tmp_path)
    assert (again.status, "out already has 4 of 4 files: ink_0.4" in again.err) == (3, True)
    assert compose("merge", *words, "-o", "out", "--force", at=tmp_path).status == 0


def test_one_scale_may_go_to_a_folder_too(tmp_path: Path, loras: Path) -> None:
    ran = compose("merge", f"{loras}/ink.safetensors:0.65", "-o", "out/", at=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ink_0.65.safetensors"]


def test_what_a_sweep_has_in_common_is_said_once(tmp_path: Path, loras: Path) -> None:
    control(tmp_path / "control.safetensors")
    words = ["control.safetensors:1..0/0.5", f"{loras}/ink.safetensors:-0.5..0.5/1"]
    ran = compose("merge", *words, "-o", "out/", "--rank", "1", at=tmp_path)
    said = "brings scales of norms, which take the place of the base model's"
    assert ran.out.count("adds nothing: its scale is 0") == 2
    name = "control_0.0_ink_-0.5.safetensors"
    assert f"note: {name}: control.safetensors adds nothing: its scale is 0\n" in ran.out
    assert f"note: control_1.0_ink_0.5.safetensors: control.safetensors {said}\n" in ran.out
    assert ran.out.count(", kept ") == 6 and ran.out.count("  0 to 1") == 1


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ("0.4..1.0/0.2", (0.4, 0.6, 0.8, 1.0)),
        ("0..0.3/.1", (0.0, 0.1, 0.2, 0.3)),
        ("0.4..1/0.25", (0.4, 0.65, 0.9)),
        ("1..0/0.5", (1.0, 0.5, 0.0)),
        ("-1..1/1", (-1.0, 0.0, 1.0)),
        ("-.5..-1./2.5e-1", (-0.5, -0.75, -1.0)),
        ("0.5..0.5/0.1", (0.5,)),
        ("-2..2/4", (-2.0, 2.0)),
        ("0.7", (0.7,)),
        ("", (1.0,)),
    ],
)
def test_how_a_range_is_written(scales: str, expected: tuple[float, ...]) -> None:
    for path in ("a.safetensors", "C:\\loras\\a.safetensors"):
        text = f"{path}:{scales}" if scales else path
        assert swept_argument(text) == (Path(path), expected)
    assert all(str(scale) != "-0.0" for scale in expected)


@pytest.mark.parametrize(
    ("scales", "out", "said"),
    [
        ("0.4..1.0", "out/", "a.safetensors:0.4..1.0/0.1\n"),
        ("0.4..1.0/0", "out/", "the step 0 does not fit"),
        ("0.4..1.0/-0.2", "out/", "the step -0.2 does not fit"),
        ("0.4..1.0/4", "out/", "the distance from one scale to the next"),
        ("0.4..1.0/1e999999", "out/", "the step inf does not fit"),
        ("0..1/1e-6", "out/", "has 1,000,001 scales, and a sweep writes at most 100 files"),
        ("0.4..2.4/0.2", "out/", "the scale 2.4 is not within -2..2"),
        ("1e-9..1/0.2", "out/", "too close to 0"),
        ("0.4..", "out/", "0.4.. is not a number\n  write FILE:SCALE, as in FILE:0.4..1.0/0.2"),
        ("0.4..b/0.2", "out/", "0.4..b/0.2 is not a number"),
        ("0..1/0.5", "out", "end the path with / to create it"),
        ("0..1/0.5", "out.safetensors", "3 merges can't go to one file, out.safetensors"),
        ("0..1/0.5", "out.txt", "out.txt is neither a folder nor a .safetensors file"),
        ("0..1/0.005", "out/", "has 201 scales"),
    ],
)
def test_what_no_range_is(tmp_path: Path, scales: str, out: str, said: str) -> None:
    write_lora(tmp_path / "a.safetensors", 1)
    before = snapshot(tmp_path)
    ran = compose("merge", f"a.safetensors:{scales}", "-o", out, at=tmp_path)
    assert (ran.status, said in ran.err) == (64, True), ran.err
    assert snapshot(tmp_path) == before and not (tmp_path / "out").exists()


# --- whole or absent ---------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows replaces no file that is open")
def test_force_replaces_in_one_step(tmp_path: Path, loras: Path) -> None:
    out = tmp_path / "k.safetensors"
    out.write_bytes(b"older")
    reader = out.open("rb")
    assert compose("merge", *words(loras), "-o", str(out), at=tmp_path).status == 3
    merge(parts(loras), out, force=True)
    with reader:
        assert reader.read() == b"older"  # who reads the old file reads on
    assert read(out).ranks == (9,)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.safetensors", "loras"]


def test_a_file_that_comes_up_meanwhile_is_not_replaced(tmp_path: Path, loras: Path) -> None:
    out = tmp_path / "k.safetensors"

    def theirs(share: float) -> None:
        out.write_bytes(b"theirs")

    with pytest.raises(Refused, match="already exists"):
        merge(parts(loras), out, progress=theirs)
    assert out.read_bytes() == b"theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.safetensors", "loras"]


def test_a_full_disk_is_seen_before_anything_is_written(
    tmp_path: Path, loras: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(tmp_path)
    monkeypatch.setattr(merging, "free_space", lambda folder: 1000)
    for dry_run in (True, False):
        with pytest.raises(TargetError, match=r"0\.\d MB and a reserve of 0\.\d MB are needed"):
            merge(parts(loras), tmp_path / "k.safetensors", dry_run=dry_run)
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file's size")
def test_a_disk_that_fills_up_meanwhile(tmp_path: Path, loras: Path) -> None:
    before = snapshot(tmp_path)
    with no_room(4096):
        ran = compose("merge", *words(loras), "-o", "k.safetensors", at=tmp_path)
    assert (ran.status, ran.err.startswith("compose: k.safetensors can't be written: ")) == (
        1,
        True,
    )
    assert "free some space, or write to another disk" in ran.err
    assert "recorded" not in ran.err
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(("size", "margin"), [(1_000_000, 100_000), (10**10, MARGIN)])
def test_what_stays_free_is_a_tenth_and_has_a_limit(size: int, margin: int) -> None:
    assert spare(size) == margin


def raise_interrupt(path: Path) -> None:
    raise KeyboardInterrupt


def rewrite(path: Path) -> None:
    """Same size, same header, same time of change; other values."""
    status = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:-64] + bytes(64))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("harm", "raised"), [(raise_interrupt, KeyboardInterrupt), (rewrite, BadLora)]
)
def test_what_happens_meanwhile_leaves_nothing(
    tmp_path: Path, loras: Path, harm: Callable[[Path], None], raised: type[BaseException]
) -> None:
    once = [harm]

    def progress(share: float) -> None:
        if share > 0 and once:
            once.pop()(loras / "ink.safetensors")

    with pytest.raises(raised):
        merge(parts(loras), tmp_path / "k.safetensors", progress=progress)
    assert not once
    assert [path.name for path in tmp_path.iterdir()] == ["loras"]


def dying(name: str, tensors: int, out: Path, loras: Path) -> int:
    paths = [str(SUPPORT.parent), str(SUPPORT.parents[1]), os.environ.get("PYTHONPATH", "")]
    arguments = [name, str(tensors), str(out), *words(loras)]
    return subprocess.run(
        [sys.executable, str(SUPPORT / "dying_merge.py"), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        check=False,
    ).returncode


def there(half: Path, whole: Path) -> list[bool]:
    """For each tensor of `whole`, in its order, whether `half` holds it already."""
    with Source(whole) as source:
        tensors = sorted(source.header.tensors.values(), key=lambda tensor: tensor.start)
    a, b = half.read_bytes(), whole.read_bytes()
    return [a[tensor.start : tensor.stop] == b[tensor.start : tensor.stop] for tensor in tensors]


@pytest.mark.parametrize("count", [1, 40])
def test_killed_in_the_middle_there_is_no_file(tmp_path: Path, loras: Path, count: int) -> None:
    for path in loras.iterdir():  # layers enough that some are left when the kill strikes
        write(Spec(False, "BF16", dict.fromkeys(FIRST, len(path.stem)), seed=len(path.stem)), path)
    folder, whole = tmp_path / "there", tmp_path / "k.safetensors"
    folder.mkdir()
    merge(parts(loras), whole)
    out = folder / whole.name
    assert dying("SIGKILL", count, out, loras) != 0
    (half,) = folder.iterdir()
    written = there(half, whole)  # this is what proves where the kill struck
    assert count <= sum(written) < len(written)
    assert half.name.endswith(".tmp")
    merge(parts(loras), out)
    assert out.read_bytes() == whole.read_bytes()
    sweep(out, now=time.time())
    assert half.exists()  # its process may still be at it
    sweep(out, now=time.time() + STALE + 60)
    assert list(folder.iterdir()) == [out]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without asking it")
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_asked_to_end_it_leaves_nothing(
    tmp_path: Path, loras: Path, name: str, status: int
) -> None:
    (tmp_path / "there").mkdir()
    assert dying(name, 1, tmp_path / "there" / "k.safetensors", loras) == status
    assert list((tmp_path / "there").iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


# --- progress ----------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with Meter("composing k.safetensors", terminal := Terminal()) as meter:
        meter.say(0.5)
    assert "composing k.safetensors ██████████░░░░░░░░░░  50% " in terminal.getvalue()


def test_elsewhere_a_line_says_now_and_then_that_we_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Meter("composing k.safetensors", log := io.StringIO()) as meter:
        meter.say(0.25)
        assert log.getvalue() == ""
        monkeypatch.setattr("composer.cli.terminal.HEARTBEAT", 0.0)
        meter.say(0.5)
    assert re.fullmatch(r"composing k\.safetensors 50% \d+s left\n", log.getvalue())
