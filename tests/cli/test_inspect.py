"""`compose inspect`, and what a plan says of mixes: real files, the real command, real SQLite."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from support.cli import compose, edit, samples, snapshot
from support.engine_files import no_room, write_t5
from support.hostile import HOSTILE
from support.lora_files import Spec, write
from support.pages import parsed
from support.state import state_of

from composer.cli.arguments import lora_argument
from composer.errors import UsageError
from composer.files.schemas import schema
from composer.lora import inspect
from composer.lora.inspection import Inspection, Mix
from composer.output.inspect import text
from composer.output.inspect_html import page

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MODULES = {f"transformer_blocks.{n}.attn.to_q": 2 for n in range(3)}
KNIGHT = "recipes/storybook-knight.yaml"
BAD = ["</style><script>alert(1)</script>", '" onmouseover="alert(1)', "<!-- -->", "]]>&lt;"]


def made(at: Path, name: str, seed: int = 0, **metadata: str) -> Path:
    path = at / f"{name}.safetensors"
    return write(Spec(False, "F32", MODULES, seed=seed, metadata=metadata), path)


def overlapping(at: Path) -> tuple[Path, Path]:
    """Two files that do nearly the same in one block of three, and other things in the others."""
    one, two = made(at, "one", 1), made(at, "two", 2)
    first, second = load_file(one), load_file(two)
    for key in first:
        if ".1." in key:
            second[key] = first[key] * np.float32(1.1)
    save_file(second, two)
    return one, two


# --- the command line --------------------------------------------------------------------


def test_a_recipe_is_looked_up_in_the_library(tmp_path: Path) -> None:
    project = samples(tmp_path)
    ran = compose("inspect", KNIGHT, at=project)
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[:3] == [
        f"Storybook Knight   {KNIGHT}",
        "",
        "Storybook Watercolour and Ink Lines are independent: each keeps its own effect",
    ]
    assert re.search(r"\n1  Storybook Watercolour +0\.65  █+░+  \d+%  ", ran.out)
    assert lines[-1].startswith(
        "1 independent pair not shown block by block; compose inspect --all"
    )
    ran = compose("inspect", KNIGHT, "--all", at=project)
    for words in (
        "kohya LoRA, rank 2 to 4, alpha 2, bfloat16",
        "diffusers LoRA, rank 4, no alpha (factor 1), bfloat16",
        "trigger     storybook watercolour",
        "soft wash (17)",
        "5: 4 in double blocks, attention; 1 in single blocks, modulation",
        "Storybook Watercolour × Ink Lines   cosine 0.00   independent",
    ):
        assert words in ran.out
    assert "--all" not in ran.out


def test_a_lora_alone_has_a_profile_of_its_blocks(tmp_path: Path) -> None:
    ran = compose("inspect", str(made(tmp_path, "one")), at=tmp_path)
    assert ran.out.startswith("1.00  one\n  file    ")
    assert "by block: 100% in double 0-2" in ran.out
    [strip] = [line for line in ran.out.splitlines() if "double 0-2 " in line]
    assert "█" in strip and "cosine" not in ran.out


def test_near_duplicates_come_first(tmp_path: Path) -> None:
    """Three epochs of a training and another LoRA; their pairs are counted, and shown on demand."""
    first = load_file(made(tmp_path, "epoch-1", 1))
    for n, size in ((2, 0.1), (3, -0.1)):
        noise = np.random.default_rng(n)
        changed = {k: v + noise.normal(size=v.shape) * v.std() * size for k, v in first.items()}
        values = {k: v.astype(np.float32) for k, v in changed.items()}
        save_file(values, tmp_path / f"epoch-{n}.safetensors")
    made(tmp_path, "other", 9)
    names = [f"epoch-{n}.safetensors" for n in (1, 2, 3)]
    ran = compose("inspect", *names, "other.safetensors", at=tmp_path)
    first_line, second, *_ = ran.out.splitlines()
    said = r"epoch-1, epoch-2 and epoch-3 are near duplicates \(cosine 0\.9\d or more\): use .*"
    assert re.fullmatch(said, first_line), ran.out
    assert second == "3 of 6 pairs are independent"
    assert " × " not in ran.out
    assert "3 pairs of near duplicates and 3 independent pairs not shown" in ran.out
    ran = compose("inspect", *names, "other.safetensors", "--all", at=tmp_path)
    assert ran.out.count(" × ") == 6
    ran = compose("inspect", *names, "other.safetensors", "-o", "json", at=tmp_path)
    [found] = json.loads(ran.out)["inspections"]
    assert found["nearDuplicates"] == [["epoch-1", "epoch-2", "epoch-3"]]
    sizes = [(tmp_path / name).stat().st_size for name in names]
    assert [concept["bytes"] for concept in found["concepts"]][:3] == sizes
    ran = compose("inspect", f"{names[0]}:0.5", f"{names[1]}:0.5", at=tmp_path)
    said = r"epoch-1 and epoch-2 are near dup.*: use one of them; to use both, try 0\.35 and 0\.35"
    assert re.fullmatch(said, ran.out.splitlines()[0]), ran.out
    assert "epoch-1 × epoch-2" in ran.out


def test_files_are_one_mix_at_their_scales(tmp_path: Path) -> None:
    overlapping(tmp_path)
    ran = compose("inspect", "one.safetensors:0.5", "two.safetensors:-0.5", at=tmp_path)
    assert re.search(r"\n2  two +-0\.50  ", ran.out)
    assert "one and two pull against each other in double block 1: expect both to fade" in ran.out
    strip = [line for line in ran.out.splitlines() if "double 0-2" in line][-1]
    assert strip.endswith("|·≡·|")


def test_a_folder_is_one_mix_and_a_bad_file_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "loras"
    folder.mkdir()
    one, _ = overlapping(folder)
    shutil.copy(one, folder / "one copy.safetensors")
    (folder / "bad.safetensors").write_bytes(b"nothing")
    (folder / "config.yaml").write_text("job: extension\n", "utf-8")
    ran = compose("inspect", "loras", at=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert "one and two overlap strongly" in ran.out and "copy" in ran.out
    assert re.search(r"\n1  one .*  loras/one\.safetensors  model_[\w-]{22}\n", ran.out)
    whole = compose("inspect", "loras", "--all", at=tmp_path).out
    assert re.search(r"file +loras/one\.safetensors\n +id +model_[\w-]{22}\n", whole)
    assert ran.out.splitlines()[-2:] == [
        "duplicate: loras/one copy.safetensors is identical to loras/one.safetensors:"
        " remove loras/one copy.safetensors",
        "not usable: loras/bad.safetensors: is not a safetensors file (name a .safetensors file of"
        " a LoRA)",
    ]
    named = compose("inspect", "loras/one.safetensors", "loras/bad.safetensors", at=tmp_path)
    assert (named.status, "1.00  one" in named.out) == (1, True)
    assert named.err.startswith("compose: bad.safetensors: is not a safetensors file\n")
    found = json.loads(compose("inspect", "loras", "-o", "json", at=tmp_path).out)
    jsonschema.validate(found, json.loads(schema("inspect")))
    concepts = found["inspections"][0]["concepts"]
    assert [concept["file"] for concept in concepts] == [
        "loras/one.safetensors",
        "loras/two.safetensors",
    ]
    kept = {"keep": "loras/one.safetensors", "id": concepts[0]["id"]}
    assert found["duplicates"] == [{"file": "loras/one copy.safetensors", **kept}]
    assert list(found["rejected"]) == ["loras/bad.safetensors"]


def test_a_recipe_may_be_called_by_its_models_name(tmp_path: Path) -> None:
    project = samples(tmp_path)
    by_path = compose("inspect", KNIGHT, at=project)
    assert compose("inspect", "Storybook Knight", at=project) == by_path
    unknown = compose("inspect", "Storybook Knigth", at=project)
    assert (unknown.status, "Storybook Knigth does not exist" in unknown.err) == (64, True)


def test_of_a_recipe_too_the_file_has_its_id(tmp_path: Path) -> None:
    project = samples(tmp_path)
    found = json.loads(compose("inspect", KNIGHT, "-o", "json", at=project).out)
    models = json.loads(compose("models", "-o", "json", at=project).out)["models"]
    files = {model["id"]: model["file"] for model in models}
    for concept in found["inspections"][0]["concepts"]:
        assert files[concept["id"]] == concept["file"]


def test_several_recipes_and_files_at_once(tmp_path: Path) -> None:
    project = samples(tmp_path)
    ran = compose(
        "inspect", "recipes/tutorial", KNIGHT, str(made(tmp_path, "a")), "-o", "json", at=project
    )
    found = json.loads(ran.out)["inspections"]
    assert [one.get("recipe") for one in found] == [KNIGHT, "recipes/tutorial/slime.yaml", None]
    assert [len(one["concepts"]) for one in found] == [2, 2, 1]
    assert found[2]["verdict"] is None


def test_json_is_as_the_schema_says(tmp_path: Path) -> None:
    project = samples(tmp_path)
    assert compose("schema", "inspect", at=project).out == schema("inspect")
    compose("apply", at=project)
    results = [str(path) for path in (state_of(project) / "models").iterdir()]
    one, two = overlapping(tmp_path)
    for arguments in (["recipes"], results, [str(one), f"{two}:0"], [str(one), str(two)]):
        ran = compose("inspect", *arguments, "-o", "json", at=project)
        assert ran.status == 0, ran.err
        jsonschema.validate(json.loads(ran.out), json.loads(schema("inspect")))


def test_a_result_says_what_it_is_made_of(tmp_path: Path) -> None:
    project = samples(tmp_path)
    edit(project / KNIGHT, "tags:", "training: {parameters: {rank: 2}}\ntags:")
    compose("apply", KNIGHT, at=project)
    [result] = (state_of(project) / "models").iterdir()
    ran = compose("inspect", str(result), at=project)
    assert re.search(r"made of +0\.80 model_\S+, 0\.65 model_", ran.out)
    assert re.search(r"kept +.*\d% of double blocks, attention; ", ran.out)


def test_pins_decide_what_a_name_means(tmp_path: Path) -> None:
    """The lock pins Ink Lines; another file of that name doesn't make the recipe ambiguous."""
    project = samples(tmp_path)
    compose("lock", at=project)
    made(project / "recipes" / "loras", "other", ss_output_name="Ink Lines")
    ran = compose("inspect", KNIGHT, at=project)
    assert (ran.status, "  ink-lines.safetensors  " in ran.out) == (0, True)


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    path = str(made(tmp_path, "a"))
    ran = compose("inspect", path, f"{path}:0.5", at=tmp_path)
    assert "a and a (2) overlap strongly in every block that both change" in ran.out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 64, "Missing argument"),
        (["none.safetensors"], 64, "none.safetensors does not exist"),
        (["none.yaml"], 64, "none.yaml does not exist"),
        (["empty"], 64, "empty is a folder without recipes"),
        (["recipes/loras:0.5"], 64, "recipes/loras is a folder, which has no scale"),
        ([KNIGHT, "--skip-text-encoder"], 64, "compose merge --skip-text-encoder"),
        (["text.safetensors:0,5"], 64, "0,5 is not a number"),
        (["text.safetensors:nan"], 64, "nan is not a number"),
        (["text.safetensors:"], 64, "no scale after the colon"),
        (["a.safetensors:3"], 64, "the scale 3 is not within -2..2"),
        (["text.safetensors"], 1, "text.safetensors: is not a safetensors file"),
        ([KNIGHT, "--library", "empty"], 1, f"{KNIGHT}: no LoRA is named"),
    ],
)
def test_what_cannot_be_inspected(
    tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    project = samples(tmp_path)
    (project / "empty").mkdir()
    (project / "text.safetensors").write_text("x" * 100, encoding="utf-8")
    ran = compose("inspect", *arguments, at=project)
    assert (ran.status, ran.out) == (status, "")
    assert message in ran.err


LOCK, INK = "compose.lock", "recipes/loras/ink-lines.safetensors"


@pytest.mark.parametrize("page_", [INK, KNIGHT, LOCK, "page", "folder.html", "no/page.html"])
def test_a_page_takes_the_place_of_pages_alone(tmp_path: Path, page_: str) -> None:
    project = samples(tmp_path)
    (project / LOCK).write_text("")
    (project / "folder.html").mkdir()
    before = snapshot(project)
    ran = compose("inspect", INK, "--html", page_, at=project)
    assert (ran.status, page_.partition("/")[0] in ran.err) == (64, True), ran.err
    assert snapshot(project) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file's size")
def test_a_page_that_finds_no_room_leaves_the_old_one(tmp_path: Path) -> None:
    project = samples(tmp_path)
    (project / "page.html").write_text("older")
    before = snapshot(project)
    with no_room(1000):
        ran = compose("inspect", INK, "--html", "page.html", at=project)
    assert (ran.status, "page.html can't be written: " in ran.err) == (1, True), ran.err
    assert ("recorded" in ran.err, snapshot(project)) == (False, before)
    assert compose("inspect", INK, "--html", "page.html", at=project).status == 0
    assert (project / "page.html").read_text().startswith("<!doctype html>")


def test_parts_for_t5_are_counted_apart_and_block_a_recipe(tmp_path: Path) -> None:
    project = samples(tmp_path)
    file = write_t5(project / "recipes" / "loras" / "wordy.safetensors", title="Wordy")
    ran = compose("inspect", str(file), at=project)
    assert "1 in embedders and head; 1 in T5" in ran.out
    assert re.search(r"T5 +only the kohya format holds it: compose merge --format kohya", ran.out)
    edit(project / KNIGHT, "name: Ink Lines", "name: Wordy")
    ran = compose("plan", at=project)
    assert "blocked" in ran.out and "a part for T5" in ran.out, ran.out


# --- colours -----------------------------------------------------------------------------


def test_colours_say_nothing_that_characters_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["inspect", *map(str, overlapping(tmp_path))]
    plain = compose(*arguments, at=tmp_path).out
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = compose(*arguments, at=tmp_path).out
    assert "\x1b[31m█" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert compose(*arguments, at=tmp_path).out == plain


# --- the page ----------------------------------------------------------------------------


def test_the_page_stands_alone(tmp_path: Path) -> None:
    one, two = overlapping(tmp_path)
    ran = compose("inspect", str(one), str(two), "--html", "p.html", at=tmp_path)
    assert ran.status == 0
    found = parsed((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert found.odd == []
    assert found.named("html") == [{"lang": "en"}]
    policy = found.named("meta")[1]["content"]
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'sha256-")
    labels = [a["aria-label"] for _, a in found.elements if a.get("role") == "img"]
    assert "one × two: cosine of each block, double 0-2" in labels
    assert all(svg["aria-label"] for svg in found.named("svg"))
    assert all(svg["role"] == "img" for svg in found.named("svg"))
    assert all("scope" in cell for cell in found.named("th"))
    assert len(found.named("h1")) == 1
    matrix, numbers = found.rows[:3], found.rows[3:]
    cosine = matrix[1][2]
    assert matrix == [["1", "2"], [" one", "1", cosine], [" two", cosine, "1"]]
    assert re.fullmatch(r"0\.\d\d", cosine)
    assert numbers[0][-1] == "one × two: cosine"
    assert [row[0] for row in numbers[1:]] == [
        "double 0",
        "double 1",
        "double 2",
        "all together",
    ]
    assert numbers[2][-1] == "1.000"
    [verdict] = [w for w in found.words if "overlap strongly" in w]
    assert verdict.startswith("one and two overlap strongly in double block 1")


def test_cells_have_numbers_as_well_as_colours(tmp_path: Path) -> None:
    found = parsed(page([inspected(*overlapping(tmp_path))]))
    classes = [cell.get("class") for cell in found.named("b")]
    assert classes.count("a4") == 1
    assert "10" in found.words or "9" in found.words


def inspected(*paths: Path) -> Inspection:
    return inspect([(path, 1.0) for path in paths])


@pytest.mark.parametrize("text_", [*HOSTILE, *BAD])
def test_a_strangers_words_are_inert(tmp_path: Path, text_: str) -> None:
    """As a title, a trigger word, a tag, a note, a part's id and a recipe's name."""
    keys = ("ss_output_name", "modelspec.title", "modelspec.trigger_phrase", "modelspec.author")
    metadata = {
        **dict.fromkeys(keys, text_),
        "ss_tag_frequency": json.dumps({text_: {text_: 3}}),
        "compose.concepts": json.dumps([{"modelId": text_, "scale": 0.5}]),
        "compose.kept": json.dumps({text_: "0.5"}),
        "software": json.dumps({"name": text_, "version": text_}),
    }
    one = made(tmp_path, "one", **metadata)
    found = inspected(one, made(tmp_path, "two", seed=1))
    found = Inspection(text_, text_, found.loras, found.mix)
    harmless = {tag for tag, _ in parsed(page([inspected(made(tmp_path, "x"), one)])).elements}
    shown = parsed(page([found]))
    assert shown.odd == []
    assert {tag for tag, _ in shown.elements} <= harmless | {"small"}
    printed = text([found], color=False)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\u2066]", printed)
    assert not any(line.lstrip().startswith("::") for line in printed.splitlines())
    assert "##[" not in printed


JUNK = ["", "None", "{", "[1]", '{"a": 3}', "[" * 5000, '{"a": {"b": true, "c": -1, "": 5}}']


@pytest.mark.parametrize("junk", JUNK)
def test_nonsense_in_the_metadata_is_passed_over(tmp_path: Path, junk: str) -> None:
    keys = ("ss_tag_frequency", "compose.concepts", "compose.kept", "software", "training_info")
    path = made(tmp_path, "one", **dict.fromkeys(keys, junk))
    info = inspected(path).loras[0]
    assert (info.tags, info.made_of) == ((), ())


def test_numbers_that_no_result_of_ours_has_are_unreadable(tmp_path: Path) -> None:
    concepts = '[{"modelId": "a", "scale": 1e308}, {"modelId": "b", "scale": 0.5}]'
    path = made(
        tmp_path, "one", **{"compose.concepts": concepts, "compose.kept": '{"x": 7, "y": "-0.1"}'}
    )
    info = inspected(path).loras[0]
    assert [one.label for one in info.made_of] == ["b"]
    assert info.kept == {}
    assert info.notes == (("made of", "unreadable"), ("kept", "unreadable"))


def test_norms_and_biases_are_shown(tmp_path: Path) -> None:
    tensors = {
        "img_in.lora_A.weight": np.ones((1, 64), np.float32),
        "img_in.lora_B.weight": np.ones((3072, 1), np.float32),
        "img_in.lora_B.bias": np.ones(3072, np.float32),
        "double_blocks.0.img_attn.norm.query_norm.scale": np.full(128, 2.0, np.float32),
    }
    save_file(tensors, tmp_path / "control.safetensors")
    ran = compose("inspect", "control.safetensors", at=tmp_path)
    assert re.search(r"norms +1, which take the place of the base model's", ran.out)
    assert re.search(r"biases +of 1 layer\n", ran.out)
    ran = compose("merge", "control.safetensors", "-o", "k.safetensors", at=tmp_path)
    assert ", 1 layer\n" in ran.out


def test_training_notes_of_two_trainers(tmp_path: Path) -> None:
    kohya = {
        "ss_base_model_version": "flux1",
        "ss_num_train_images": "120",
        "ss_epoch": "8",
        "ss_steps": "960",
        "ss_unet_lr": "0.0004",
        "ss_learning_rate": "None",
        "ss_tag_frequency": json.dumps({"a": {"ink": 3, "paper": 1}, "b": {"ink": 2}}),
    }
    toolkit = {
        "software": json.dumps({"name": "ai-toolkit", "version": "0.1.0"}),
        "training_info": json.dumps({"step": 2000, "epoch": 12}),
    }
    one, two = inspected(
        made(tmp_path, "one", **kohya), made(tmp_path, "two", seed=1, **toolkit)
    ).loras
    assert one.tags == (("ink", 5), ("paper", 1))
    assert dict(one.notes) == {
        "base model": "flux1",
        "images": "120",
        "epochs": "8",
        "steps": "960",
        "learning rate": "0.0004",
    }
    assert dict(two.notes) == {"epochs": "12", "steps": "2000", "made with": "ai-toolkit 0.1.0"}


# --- in a plan ---------------------------------------------------------------------------


def planned(project: Path) -> dict[str, Any]:
    ran = compose("plan", "-o", "json", at=project)
    found: dict[str, Any] = json.loads(ran.out)
    jsonschema.validate(found, json.loads(schema("plan")))
    return found


def test_a_plan_has_a_line_for_each_composition(tmp_path: Path) -> None:
    project = samples(tmp_path)
    words = "Storybook Watercolour and Ink Lines are independent: each keeps its own effect"
    advice = {action["recipe"]: action.get("advice") for action in planned(project)["actions"]}
    assert advice[KNIGHT] == words
    assert len(advice) == 4 and None not in advice.values()
    assert {action["adviceLevel"] for action in planned(project)["actions"]} == {"independent"}
    for arguments in ([], ["-o", "markdown"]):  # people see what matters
        assert "advice: " not in compose("plan", *arguments, at=project).out


def test_a_plan_shows_advice_where_loras_of_a_changed_recipe_interfere(tmp_path: Path) -> None:
    project = samples(tmp_path)
    compose("apply", at=project)
    overlapping(project / "recipes" / "loras")
    recipe = "name: Both\nconcepts:\n  - {name: one, scale: 0.5}\n  - {name: two, scale: 0.5}\n"
    (project / "recipes" / "both.yaml").write_text(recipe, encoding="utf-8")
    words = "advice: one and two overlap strongly in double block 1: expect one to win; try"
    assert words in compose("plan", at=project).out
    assert (
        words.replace("advice: ", "advice: `") in compose("plan", "-o", "markdown", at=project).out
    )
    assert [a["adviceLevel"] for a in planned(project)["actions"] if "advice" in a] == [
        "strong overlap"
    ]
    assert compose("apply", at=project).status == 0
    edit(project / "recipes" / "both.yaml", "name: Both", "name: Both\ndescription: Two")
    assert "advice" not in compose("plan", at=project).out  # the mix is the same


def test_a_concept_of_scale_0_is_noted_where_it_is_composed(tmp_path: Path) -> None:
    project = samples(tmp_path)
    edit(project / KNIGHT, "scale: 0.65", "scale: 0")
    note = "note: Storybook Watercolour adds nothing: its scale is 0"
    assert compose("plan", at=project).out.count(note) == 1
    compose("apply", at=project)
    assert note not in compose("plan", at=project).out


# --- what can't be composed is blocked ---------------------------------------------------


def variant(at: Path, name: str, inputs: int, norm: float | None = None) -> None:
    """A LoRA for a variant of the model: of its own inputs, or with a norm of its own."""
    tensors = {
        "img_in.lora_A.weight": np.full((1, inputs), len(name), np.float32),
        "img_in.lora_B.weight": np.ones((3072, 1), np.float32),
    }
    if norm is not None:
        key = "double_blocks.0.img_attn.norm.query_norm.scale"
        tensors[key] = np.full(128, norm, np.float32)
    save_file(tensors, at / f"{name}.safetensors")


CLASHES = {
    "inputs": ((128, None), (384, None), "they mean different things, and can't be added"),
    "norms": ((64, 1.0), (64, 2.0), "brings another double_blocks.0.img_attn.norm"),
    "norms of one": ((64, 1.0), (64, 1.0), ""),
    "inputs of one": ((128, None), (64, None), ""),
}


@pytest.mark.parametrize("clash", CLASHES)
def test_a_mix_that_cannot_be_composed_is_blocked(tmp_path: Path, clash: str) -> None:
    one, two, reason = CLASHES[clash]
    project = samples(tmp_path)
    for name, values in (("first", one), ("other one", two)):
        variant(project / "recipes" / "loras", name, *values)
    recipe = "name: Both\nconcepts: [{name: first, scale: 0.5}, {name: other one, scale: 0.6}]\n"
    (project / "recipes" / "both.yaml").write_text(recipe, encoding="utf-8")
    [action] = [a for a in planned(project)["actions"] if a["name"] == "Both"]
    digest = planned(project)["digest"]
    assert (action["action"], reason in action["reason"]) == (
        "blocked" if reason else "create",
        True,
    )
    ran = compose("apply", "--expect", digest, at=project)
    assert ran.status == (1 if reason else 0), ran.err
    assert ("blocked  Both" in ran.out) == bool(reason), ran.out
    assert "4 created" in ran.out or not reason
    if reason:
        edit(project / "recipes" / "both.yaml", "scale: 0.6", "scale: 0")
        [action] = [a for a in planned(project)["actions"] if a["name"] == "Both"]
        assert action["action"] == "create"  # what counts for nothing is in no one's way


def test_a_recipe_with_one_concept_has_none(tmp_path: Path) -> None:
    project = samples(tmp_path)
    alone = "name: Alone\nconcepts:\n  - name: Ink Lines\n    scale: 0.5\n"
    (project / "recipes" / "alone.yaml").write_text(alone, encoding="utf-8")
    [action] = [a for a in planned(project)["actions"] if a["recipe"] == "recipes/alone.yaml"]
    assert "advice" not in action


def test_what_was_computed_of_a_pair_is_kept(tmp_path: Path) -> None:
    project = samples(tmp_path)
    compose("apply", at=project)
    for recipe in (project / "recipes").rglob("*.yaml"):  # so that each mix is made again
        edit(recipe, "tags:", "training: {parameters: {rank: 2}}\ntags:")
    before = planned(project)
    rows = kept(project)
    assert len(rows) == 9  # four files, and five of the pairs of two
    assert planned(project) == before
    for pair, numbers in rows.items():
        if len(set(pair.split())) == 2:  # what was computed is believed: nothing is read again
            numbers = json.dumps(dict.fromkeys(json.loads(numbers), 1e9))
            forget(project, pair, numbers)
    assert "overlap strongly" in compose("plan", "-o", "json", at=project).out
    assert planned(project)["digest"] == before["digest"]
    for pair in rows:
        forget(project, pair, "[nonsense")
    assert planned(project) == before
    assert kept(project) == rows


def kept(project: Path) -> Mapping[str, str]:
    with contextlib.closing(sqlite3.connect(state_of(project) / "engine.sqlite3")) as db:
        return dict(db.execute("SELECT pair, numbers FROM overlaps").fetchall())


def forget(project: Path, pair: str, numbers: str) -> None:
    with contextlib.closing(sqlite3.connect(state_of(project) / "engine.sqlite3")) as db, db:
        db.execute("UPDATE overlaps SET numbers = ? WHERE pair = ?", (numbers, pair))


def test_a_plan_without_a_store_leaves_no_trace(tmp_path: Path) -> None:
    project = samples(tmp_path)
    planned(project)
    assert not (state_of(project)).exists()


def damage(project: Path) -> None:
    """Put bfloat16's NaN into the weights of Ink Lines."""
    file = project / "recipes" / "loras" / "ink-lines.safetensors"
    data = bytearray(file.read_bytes())
    data[-2:] = b"\xc0\x7f"
    file.write_bytes(data)


def test_weights_that_are_no_numbers_do_not_break_a_plan(tmp_path: Path) -> None:
    project = samples(tmp_path)
    damage(project)
    found = {action["recipe"]: action for action in planned(project)["actions"]}
    knight = found[KNIGHT]  # apply would find out: a reviewer should, too
    assert (knight["action"], "advice" in knight) == ("blocked", False)
    assert knight["reason"].startswith("Ink Lines can't be used: ink-lines.safetensors: ")
    assert "not finite" in knight["reason"]
    assert "independent" in found["recipes/tutorial/slime.yaml"]["advice"]
    for argument in (KNIGHT, "recipes/loras/ink-lines.safetensors"):
        ran = compose("inspect", argument, at=project)
        assert ran.status == 1
        assert "ink-lines.safetensors: " in ran.err and "not finite" in ran.err


def test_a_pinned_lora_that_is_damaged_says_why_it_blocks(tmp_path: Path) -> None:
    project = samples(tmp_path)
    compose("lock", at=project)
    damage(project)
    found = {action["recipe"]: action for action in planned(project)["actions"]}
    assert found[KNIGHT]["action"] == "blocked"
    assert found[KNIGHT]["reason"].startswith("Ink Lines can't be used: ink-lines.safetensors: ")


# --- FILE[:SCALE] ------------------------------------------------------------------------

_names = st.text("abz:./\\ -_0159", min_size=1).filter(lambda name: name.strip())


_scales = st.floats(-2, 2).filter(lambda scale: scale == 0 or abs(scale) >= 1e-6)


@given(_names, _scales)
def test_a_scale_stands_after_the_last_colon(name: str, scale: float) -> None:
    path, found = lora_argument(f"{name}:{scale}")
    assert (str(path), found) == (str(type(path)(name)), scale)


@pytest.mark.parametrize(
    "name",
    [r"C:\loras\a.safetensors", "a:b", "C:", "a:1x", "a:nan", "a:inf", "a:", "a:0x1", "a:1_0"],
)
def test_a_colon_alone_is_part_of_the_path(name: str) -> None:
    path, scale = lora_argument(name)
    assert (str(path), scale) == (name, 1.0)
    assert lora_argument(f"{name}:0.5") == (path, 0.5)


@pytest.mark.parametrize(
    "text_", ["a:2.001", "a:-3", "a:1e9", ":0.5", "", ":-2", "a:1e-7", "a:-1e-400"]
)
def test_no_such_scale_and_no_file(text_: str) -> None:
    with pytest.raises(UsageError):
        lora_argument(text_)


def test_a_file_whose_name_ends_like_a_scale_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if sys.platform == "win32":
        pytest.skip("Windows has no such names")
    (tmp_path / "a:0.5").touch()
    with pytest.raises(UsageError, match=r"0\.5 may be a scale or the end"):
        lora_argument("a:0.5")
    assert lora_argument("a:0.5:1") == (type(tmp_path)("a:0.5"), 1.0)
    (tmp_path / "a").touch()
    assert lora_argument("a:0.5") == (type(tmp_path)("a"), 0.5)


def test_bars_and_strips_of_nothing_at_all() -> None:
    nothing = Inspection("", "", (), Mix((), (), {}))
    assert text([nothing]) == "\n"
