"""The engine as a target: its verbs, its refusals, and that looking leaves no trace."""

from __future__ import annotations

import json
import os
import sqlite3
from typing import TYPE_CHECKING

import pytest
from safetensors import safe_open
from support.engine_files import snapshot, trained, write_lora, write_loras
from support.model_types import COMPOSITION, LORA

from composer import __version__
from composer.errors import NotFound, TargetError
from composer.files.delivery import MARGIN
from composer.lora import read, signature
from composer.model import Concept, Described, parameters
from composer.targets.local import library as local_library
from composer.targets.local.service import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from composer.model import Value
    from composer.targets.base import Target

# What `write_lora` writes with the seeds 1, 2 and 3: ids of bytes, the same anywhere.
TITLES = ("Ink Lines", "Pixel Dust", "Castle Stone")
INK = "model_OcPgWlOGDvBYHzuzxPA9gB"
KNIGHT, KNIGHT_JOB = "model_iVqA8jiuJOoLaRHFblrX-0", "job_0duagrQ7EsbyOoRI2JpSYR"
TWIN = "model_KzyYjMoJXAT386O1XY7pAe"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return write_loras(tmp_path / "loras", TITLES)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def engine(state: Path, library: Path) -> Iterator[Engine]:
    with Engine(state, library) as engine:
        yield engine


def concepts(target: Target, *scales: float) -> list[Concept]:
    """Concepts of the library's LoRAs, in their order by name."""
    loras = sorted(target.list_models(LORA), key=lambda model: model.name)
    return [Concept(lora.id, scale) for lora, scale in zip(loras, scales, strict=False)]


def test_one_command_lists_the_library_once(
    state: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in library.iterdir():
        os.utime(file, (1_700_000_000, 1_700_000_000))
    scans = []
    listing = local_library.find_files
    monkeypatch.setattr(
        local_library, "find_files", lambda folder: scans.append(folder) or listing(folder)
    )
    monkeypatch.setattr(signature, "RACY", 0)  # these files are old enough to be known by stat
    with Engine(state, library, one_scan=True) as engine:
        for scale in (0.1, 0.2, 0.3):
            id = engine.create(f"Mix {scale}", concepts(engine, scale), type=COMPOSITION).id
            engine.train(id)
            assert trained(engine, id).trained
        assert engine.rejected == {}
        assert len(scans) == 1
        gone = engine.create("Late", concepts(engine, 0.4), type=COMPOSITION).id
        assert len(scans) == 1
        (library / "3.safetensors").unlink()
        engine.train(gone)
        assert "no longer has" in str(trained(engine, gone).error)
        assert len(scans) > 1  # the worker looks again where a file is not what it was


# --- looking -----------------------------------------------------------------------------


def test_it_is_a_target_on_this_machine(engine: Engine) -> None:
    target: Target = engine
    assert (target.key, target.remote, target.grace, target.owner()) == ("local", False, 0.0, None)
    assert (target.poll_interval, target.ignores_training) == (0.2, True)
    assert set(target.unsupported) == {"modelEpoch"}


def test_loras_and_compositions_are_listed_newest_first(engine: Engine, library: Path) -> None:
    made = [engine.create(name, concepts(engine, 1.0), type=COMPOSITION) for name in "abc"]
    assert [model.name for model in engine.list_models(COMPOSITION)] == ["c", "b", "a"]
    assert {model.name for model in engine.list_models(LORA)} == set(TITLES)
    assert engine.list_models("flux.2-lora") == []
    everything = engine.list_models()
    assert everything == engine.list_models(LORA, COMPOSITION)
    assert len(everything) == 6
    stamps = [model.created_at for model in everything]
    assert stamps == sorted(stamps, reverse=True)
    ids = [made[0].id, everything[-1].id, "model_unknown", "../x"]
    assert engine.get_models(ids) == {made[0].id: made[0], everything[-1].id: everything[-1]}


def test_a_lora_is_a_trained_model(engine: Engine) -> None:
    (lora,) = (model for model in engine.list_models() if model.name == "Ink Lines")
    assert (lora.type, lora.status, lora.tags) == (LORA, "trained", frozenset())
    assert lora.id == INK


def test_bad_files_are_rejected_by_name(engine: Engine, library: Path) -> None:
    (library / "Old One.ckpt").write_bytes(b"\x80")
    (library / "cut.safetensors").write_bytes(b"x" * 20)
    assert engine.rejected.keys() == {"Old One", "cut"}


def test_looking_leaves_no_trace(tmp_path: Path, library: Path, state: Path) -> None:
    before = snapshot(tmp_path)
    with Engine(state, library, run_jobs=False) as engine:
        assert len(engine.list_models()) == 3
        assert engine.get_models(["model_x"]) == {}
        assert (engine.size(), engine.prune([], dry_run=True), engine.rejected) == (0, [], {})
        with pytest.raises(NotFound):
            engine.job("job_x")
    assert snapshot(tmp_path) == before


def test_looking_at_a_store_sees_the_truth_and_adds_nothing(library: Path, state: Path) -> None:
    with Engine(state, library) as engine:
        model = engine.create("K", concepts(engine, 0.5, 0.25), type=COMPOSITION)
        engine.train(model.id)
        model = trained(engine, model.id)
    before = snapshot(state)
    with Engine(state, library, run_jobs=False) as engine:
        assert engine.get_models([model.id]) == {model.id: model}
        assert engine.result(model.id).is_file()
    assert snapshot(state).keys() == before.keys()
    assert before.keys() == {
        "engine.sqlite3",
        "models",
        f"models/{model.id}.safetensors",
        "worker.lock",
    }


def test_looking_while_another_works(engine: Engine, library: Path, state: Path) -> None:
    model = engine.create("K", concepts(engine, 0.5), type=COMPOSITION)
    with Engine(state, library, run_jobs=False) as looking:
        assert looking.get_models([model.id]) == {model.id: model}
        engine.update(model.id, name="L")
        assert looking.get_models([model.id])[model.id].name == "L"


def test_what_only_looks_refuses_to_write(library: Path, state: Path) -> None:
    with Engine(state, library, run_jobs=False) as engine:
        chosen = concepts(engine, 1.0)
        for write in (
            lambda: engine.create("K", chosen, type=COMPOSITION),
            lambda: engine.train("model_x"),
            lambda: engine.delete("model_x"),
            lambda: engine.prune([]),
            lambda: engine.cancel("model_x"),
            lambda: engine.update("model_x", name="L"),
            lambda: engine.tag("model_x", add=["a"]),
        ):
            with pytest.raises(TargetError, match="reading only"):
                write()
    assert not state.exists()


# --- creating ----------------------------------------------------------------------------


def test_a_new_composition_says_what_it_is(engine: Engine) -> None:
    second, first = concepts(engine, 0.30000000000000004, 0.7)[::-1]
    model = engine.create(
        "Knight", [second, first], described=Described(description="words"), type=COMPOSITION
    )
    assert (model.type, model.status, model.name) == (COMPOSITION, "new", "Knight")
    assert (model.description, model.parameters, model.job) == ("words", None, None)
    assert model.concepts == tuple(
        sorted((Concept(first.model_id, 0.3), Concept(second.model_id, 0.7)), key=by_id)
    )


def by_id(concept: Concept) -> str:
    return concept.model_id


def test_a_composition_without_a_description_says_so(engine: Engine) -> None:
    """Else a description that a recipe gets later would count as unknown, and be left out."""
    id = engine.create("Knight", concepts(engine, 0.5), type=COMPOSITION).id
    assert engine.get_models([id])[id].description == ""
    assert engine.list_models(COMPOSITION)[0].description == ""


def test_ids_are_pinned(engine: Engine) -> None:
    """They follow from name and content: a lock made elsewhere holds here."""
    chosen = concepts(engine, 0.65, 0.8)
    assert engine.create("Storybook Knight", chosen, type=COMPOSITION).id == KNIGHT
    assert engine.create("Storybook Knight", chosen[::-1], type=COMPOSITION).id == TWIN
    engine.train(KNIGHT)
    assert trained(engine, KNIGHT).job == KNIGHT_JOB
    engine.delete(KNIGHT)
    assert engine.create("Storybook Knight", chosen, type=COMPOSITION).id == KNIGHT
    engine.update(KNIGHT, name="Other")
    other = engine.create("Storybook Knight", chosen, type=COMPOSITION).id
    assert other not in (KNIGHT, TWIN)


def test_a_requested_id_is_used_if_it_is_free(engine: Engine) -> None:
    chosen = concepts(engine, 0.5)
    assert (
        engine.create("K", chosen, id="model_requested", type=COMPOSITION).id == "model_requested"
    )
    derived = engine.create("K", chosen, id="model_requested", type=COMPOSITION).id
    assert derived.startswith("model_")
    assert len(derived) == len("model_") + 22
    for impossible in ("../x", "", "NUL", "com1", "a" * 65):
        assert engine.create("K", chosen, id=impossible, type=COMPOSITION).id != impossible
    engine.delete("model_requested")
    assert (
        engine.create("K", chosen, id="model_requested", type=COMPOSITION).id == "model_requested"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "1 to 5 concepts, not 0"),
        ([Concept("model_x", 0.5)], "the library has no LoRA model_x"),
        ([Concept("A", 2.1)], "not within -2..2"),
        ([Concept("A", float("nan"))], "not within -2..2"),
        ([Concept("A", 0.5, "000010")], "is a file, which has no epoch 000010"),
        ([Concept("A", 0.5), Concept("A", 0.6)], "the same LoRA twice"),
        ([Concept("A", 0.1)] * 6, "1 to 5 concepts, not 6"),
    ],
)
def test_what_cant_be_composed_is_refused(
    engine: Engine, given: list[Concept], message: str
) -> None:
    (lora,) = concepts(engine, 0.5)[:1]
    named = [
        Concept(lora.model_id if c.model_id == "A" else c.model_id, c.scale, c.epoch) for c in given
    ]
    with pytest.raises(TargetError, match=message):
        engine.create("K", named, type=COMPOSITION)
    assert engine.list_models(COMPOSITION) == []


def test_names_and_descriptions_have_limits(engine: Engine) -> None:
    chosen = concepts(engine, 0.5)
    for name, description in (("", None), ("n" * 65, None), ("n", "d" * 257)):
        with pytest.raises(TargetError, match="characters"):
            engine.create(
                name, chosen, described=Described(description=description), type=COMPOSITION
            )
    model = engine.create(
        "n" * 64, chosen, described=Described(description="d" * 256), type=COMPOSITION
    )
    with pytest.raises(TargetError, match="characters"):
        engine.update(model.id, name="")


def test_a_composition_is_no_concept(engine: Engine) -> None:
    model = engine.create("K", concepts(engine, 0.5), type=COMPOSITION)
    with pytest.raises(TargetError, match="no LoRA"):
        engine.create("L", [Concept(model.id, 0.5)], type=COMPOSITION)


# --- training ----------------------------------------------------------------------------


def test_training_makes_a_file_that_says_where_it_comes_from(engine: Engine) -> None:
    model = engine.create("Knight", concepts(engine, 0.5, 0.25), type=COMPOSITION)
    answer = engine.train(model.id, parameters({"seed": 7}))
    assert (answer.status, answer.parameters) == ("training", (("seed", 7),))
    model = trained(engine, model.id)
    assert (model.status, model.error, model.progress) == ("trained", None, None)
    assert model.parameters == (("seed", 7),)
    assert model.job == answer.job
    assert (engine.job(str(model.job)).status, engine.job(str(model.job)).progress) == (
        "success",
        1.0,
    )
    with safe_open(engine.result(model.id), "np") as file:
        notes = file.metadata()
        ranks = {file.get_slice(key).get_shape()[0] for key in file.keys() if "lora_A" in key}  # noqa: SIM118
    assert ranks == {2}
    assert notes["modelspec.title"] == model.id
    assert notes["modelspec.sai_model_spec"] == "1.0.0"
    assert notes["modelspec.architecture"] == "flux-1-dev/lora"
    assert notes["modelspec.implementation"] == "diffusers"
    assert notes["modelspec.merged_from"] == ", ".join(c.model_id for c in model.concepts or ())
    assert not [key for key in notes if key in ("compose.rank", "compose.precision")]
    assert notes["compose.version"] == __version__
    assert [(c["modelId"], c["scale"]) for c in json.loads(notes["compose.concepts"])] == [
        (c.model_id, c.scale) for c in model.concepts or ()
    ]
    assert all(len(c["sha256"]) == 64 for c in json.loads(notes["compose.concepts"]))
    assert engine.size() == engine.result(model.id).stat().st_size


def test_a_result_is_the_same_bytes_elsewhere_and_under_another_name(
    tmp_path: Path, library: Path
) -> None:
    results: list[bytes] = []
    for place, name in (("one", "Knight"), ("two", "Rook")):
        with Engine(tmp_path / place / "state", library) as engine:
            model = engine.create(
                name, concepts(engine, 0.5, 0.25, 1.0), id="model_same", type=COMPOSITION
            )
            engine.train(model.id, parameters({"seed": len(results)}))
            assert trained(engine, model.id).trained
            engine.update(model.id, name="Renamed")
            results.append(engine.result(model.id).read_bytes())
        for path in library.iterdir():
            path.rename(path.with_name(f"x{path.name}"))
    assert results[0] == results[1]


def test_training_twice(engine: Engine) -> None:
    model = engine.create("K", concepts(engine, 0.5), type=COMPOSITION)
    assert engine.train(model.id).job == engine.train(model.id).job  # on its way: no error
    trained(engine, model.id)
    with pytest.raises(TargetError, match="trained already"):
        engine.train(model.id)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rank", 0),
        ("rank", -1),
        ("rank", 8.5),
        ("rank", True),
        ("rank", "8"),
        ("rank", (8,)),
        ("precision", "int8"),
        ("precision", "F32"),
        ("precision", 16),
        ("precision", "\x1b[31m" * 100),
        ("modelEpoch", "000010"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_parameters_that_cant_be_are_refused_by_name(
    engine: Engine, name: str, value: Value, dry_run: bool
) -> None:
    model = engine.create("K", concepts(engine, 0.5), type=COMPOSITION)
    with pytest.raises(TargetError, match=f"the training parameter {name} is ") as refused:
        engine.start(model.id, ((name, value),), dry_run=dry_run)
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 200
    assert engine.get_models([model.id])[model.id].status == "new"


def test_a_result_of_a_rank_and_a_precision(engine: Engine, library: Path) -> None:
    for seed in (1, 2):
        write_lora(library / f"{seed}.safetensors", seed, rank=3, title=TITLES[seed - 1])
    sent = parameters({"rank": 4, "precision": "bfloat16", "seed": 7})
    model = engine.create("K", concepts(engine, 0.25, 0.5, 0.75), type=COMPOSITION)
    engine.train(model.id, sent)
    model = trained(engine, model.id)
    assert (model.status, model.error, model.parameters) == ("trained", None, sent)
    result = read(engine.result(model.id))
    assert (result.ranks, result.dtypes) == ((4,), ("BF16",))
    notes = result.metadata
    assert (notes["compose.rank"], notes["compose.precision"]) == ("4", "bfloat16")
    assert 0 < float(json.loads(notes["compose.kept"])["embedders and head"]) < 1
    assert "compose.seed" not in notes


def test_without_a_rank_the_ranks_add_up(engine: Engine) -> None:
    model = engine.create("K", concepts(engine, 0.25, 0.5, 0.75), type=COMPOSITION)
    engine.train(model.id)
    assert trained(engine, model.id).trained
    result = read(engine.result(model.id))
    assert (result.ranks, result.dtypes) == ((3,), ("F32",))
    assert not [key for key in result.metadata if key in ("compose.rank", "compose.kept")]


def test_free_space_is_checked_for_the_requested_rank(tmp_path: Path) -> None:
    """A reduced result in half the bytes fits where the whole one doesn't."""
    for seed in (1, 2):
        write_lora(tmp_path / "loras" / f"{seed}.safetensors", seed, rank=32)
    asked: list[Path] = []

    def space(folder: Path) -> int:
        asked.append(folder)
        return MARGIN + 150_000  # the whole has 1.6 MB, that of rank 2 in float16 some 26 KB

    with Engine(tmp_path / "state", tmp_path / "loras", free_space=space) as engine:
        for requested, status in (({}, "failed"), ({"rank": 2, "precision": "float16"}, "trained")):
            model = engine.create("K", concepts(engine, 0.5, 0.5), type=COMPOSITION)
            engine.train(model.id, parameters(requested))
            model = trained(engine, model.id)
            assert (model.status, "disk space" in str(model.error)) == (status, status == "failed")
    assert asked == [tmp_path / "state" / "models"] * 2


@pytest.mark.parametrize(("harm", "words"), [("gone", "is missing"), ("cut", "was changed")])
def test_a_result_that_is_gone_or_cut_needs_training_again(
    engine: Engine, harm: str, words: str
) -> None:
    model = engine.create("K", concepts(engine, 0.5), type=COMPOSITION)
    engine.train(model.id)
    trained(engine, model.id)
    path = engine.result(model.id)
    whole = path.read_bytes()
    path.unlink() if harm == "gone" else path.write_bytes(whole[:-1])
    (now,) = engine.get_models([model.id]).values()
    assert (now.status, now.error) == ("new", f"its stored result {words}")
    assert (model.id in engine.changed_results()) == (harm == "cut")
    with pytest.raises(TargetError, match=f"its stored result {words}"):
        engine.result(model.id)
    engine.train(model.id)
    assert trained(engine, model.id).trained
    assert path.read_bytes() == whole


# --- the other verbs ---------------------------------------------------------------------


def test_a_rename_changes_no_id_and_no_byte(engine: Engine) -> None:
    model = engine.create(
        "K", concepts(engine, 0.5), described=Described(description="old"), type=COMPOSITION
    )
    engine.train(model.id)
    trained(engine, model.id)
    before = engine.result(model.id).read_bytes()
    engine.update(model.id, name="L", described=Described(description="new"))
    engine.tag(model.id, add=["a", "b"])
    engine.tag(model.id, add=["c"], remove=["a", "z"])
    after = engine.get_models([model.id])[model.id]
    assert (after.name, after.description, after.tags) == ("L", "new", frozenset({"b", "c"}))
    assert (after.status, after.created_at) == ("trained", model.created_at)
    assert engine.result(model.id).read_bytes() == before


def test_what_is_deleted_is_gone_with_its_file(engine: Engine) -> None:
    model = engine.create("K", concepts(engine, 0.5), type=COMPOSITION)
    engine.train(model.id)
    trained(engine, model.id)
    path = engine.result(model.id)
    engine.delete(model.id)
    assert not path.exists()
    assert engine.get_models([model.id]) == {}
    assert engine.list_models(COMPOSITION) == []
    for verb in (engine.delete, engine.train, engine.cancel, engine.result, engine.update):
        with pytest.raises(NotFound, match=model.id):
            verb(model.id)


def test_the_librarys_files_are_never_touched(engine: Engine, library: Path) -> None:
    before = snapshot(library)
    (lora,) = concepts(engine, 0.5)[:1]
    for verb in (engine.delete, engine.train, engine.cancel, engine.update, engine.tag):
        with pytest.raises(TargetError, match="LoRA of the library"):
            verb(lora.model_id)
    assert snapshot(library) == before


def test_canceling_what_doesnt_train(engine: Engine) -> None:
    model = engine.create("K", concepts(engine, 0.5), type=COMPOSITION)
    with pytest.raises(TargetError, match="not training"):
        engine.cancel(model.id)


def test_prune_frees_what_nobody_keeps(engine: Engine, state: Path) -> None:
    kept, freed = (engine.create(name, concepts(engine, 0.5), type=COMPOSITION) for name in "ab")
    for model in (kept, freed):
        engine.train(model.id)
        trained(engine, model.id)
    stray = state / "models" / "model_stray.safetensors"
    stray.write_bytes(b"left by a store that is gone")
    (state / "models" / "not an id.safetensors").write_bytes(b"somebody's own")
    expected = sorted([freed.id, "model_stray"])
    assert engine.prune([kept.id], dry_run=True) == expected
    assert stray.exists()
    assert engine.prune([kept.id]) == expected
    assert engine.prune([kept.id]) == []
    assert engine.size() == engine.result(kept.id).stat().st_size
    assert len(list((state / "models").iterdir())) == 2


def test_a_lora_that_left_the_library_is_gone(engine: Engine, library: Path) -> None:
    (ink,) = (model for model in engine.list_models(LORA) if model.name == "Ink Lines")
    model = engine.create("K", [Concept(ink.id, 0.5)], type=COMPOSITION)
    (library / "1.safetensors").unlink()
    assert engine.get_models([ink.id]) == {}
    engine.train(model.id)
    model = trained(engine, model.id)
    assert model.status == "failed"
    assert f"no longer has {ink.id}" in str(model.error)


def test_a_damaged_store_says_what_to_do(engine: Engine, state: Path, library: Path) -> None:
    engine.close()
    database = state / "engine.sqlite3"
    with sqlite3.connect(database) as db:
        db.execute("DROP TABLE models")
    db.close()
    with (
        Engine(state, library, run_jobs=False) as looking,
        pytest.raises(TargetError, match=r"damaged.*move engine\.sqlite3"),
    ):
        looking.list_models()
