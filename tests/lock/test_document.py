"""The lock as text and as a file: one form everywhere, read with care, replaced in one step."""

from __future__ import annotations

import json
import os
import tracemalloc
import unicodedata
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.lock_samples import KEY, KNIGHT, OWNER, SAMPLE, lock_of, refused
from support.model_types import COMPOSITION
from support.rights import closed
from support.sizes import size
from support.state import state_of

from composer.errors import InvalidInput
from composer.files.schemas import schema
from composer.lock import LOCK_NAME, dump, parse, read_conflicted, read_lock, remember
from composer.model import Concept, Content, Entry, Lock, Next, Replaced, TargetLock, parameters

SCHEMA = jsonschema.Draft7Validator(json.loads(schema("lock")))
REPO = Path(__file__).parents[2]


def test_the_form_is_this_one() -> None:
    assert dump(lock_of(KNIGHT)) == SAMPLE
    assert parse(SAMPLE) == lock_of(KNIGHT)


def test_absent_values_are_left_out() -> None:
    text = dump(Lock({"local": TargetLock(None, {"a.yaml": Entry("Knight")})}))
    entry = {"name": "Knight", "protect": False}
    about = "Written by compose. Commit it; do not edit it."
    plain = {"about": about, "version": 2, "targets": {"local": {"recipes": {"a.yaml": entry}}}}
    assert text == json.dumps(plain, indent=2) + "\n"


def test_an_empty_lock() -> None:
    assert dump(Lock()).endswith('"targets": {}\n}\n')
    assert parse(dump(Lock())) == Lock() == parse("")


def test_named_keys_are_in_order_of_code_points() -> None:
    pins = (("Z", "id_1"), ("a", "id_2"), ("É", "id_3"))
    entry = replace(KNIGHT, pins=tuple(reversed(pins)))
    text = dump(Lock({"z": TargetLock(None, {"b": entry, "a": entry}), "A": TargetLock()}))
    places = [text.index(key) for key in ('"A":', '"z":', '"a":', '"b":')]
    assert places == sorted(places)
    assert text.index('"Z"') < text.index('"a": "id_2"') < text.index('"É"')


def test_the_committed_lock_is_as_compose_writes_it() -> None:
    text = (REPO / LOCK_NAME).read_text(encoding="utf-8")
    assert dump(parse(text)) == text


ids = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
hostile = st.one_of(
    st.text(min_size=1, max_size=20),
    st.sampled_from(
        [
            "🐉 dragon",
            'say "no"',
            "back\\slash",
            "\u202egnp.exe",
            "a\u2028b\u2029c",
            "nel\x85",
            "bell\x07 tab\t nul\x00",
            "\ufeffbom",
            "1e5",
            "0x10",
            "yes",
            "null",
            "~",
            "012",
            "1_000",
            "12:30:45",
            "2024-01-01",
            ".inf",
            "<<",
            "=",
            "# no comment",
            "<<<<<<< HEAD",
            "=======",
            ">>>>>>> theirs",
            "key: value",
            "- item",
            "{a: b}",
            "%TAG",
            "é\u0301\u200d",
            "\U000e0041tag",
            "\U0010ffff",
        ]
    ),
)
numbers = st.one_of(
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1e-05, 1e22, 1e23, 1e300, 5e-324, -0.0, 0.1 + 0.2, 1.0]),
)
values = st.one_of(
    st.booleans(), numbers, hostile, st.lists(st.one_of(numbers, hostile), max_size=2)
)
trainings = st.dictionaries(
    st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,9}", fullmatch=True), values, max_size=3
)
scales = st.one_of(st.floats(-2, 2), st.sampled_from([0.0, 1.0, 0.0001, 0.6499999761581421]))
contents = st.builds(
    Content.of,
    st.sampled_from([COMPOSITION, "castle.2-composition"]),
    st.lists(st.builds(Concept, ids, scales, st.none() | ids), min_size=1, max_size=5),
    trainings.map(parameters),
)
entries = st.builds(
    Entry,
    name=hostile,
    pins=st.dictionaries(hostile, ids, max_size=3).map(lambda pins: tuple(sorted(pins.items()))),
    composition=st.none() | ids,
    job=st.none() | ids,
    content=st.none() | contents,
    tags=st.lists(hostile, max_size=3, unique=True).map(lambda tags: tuple(sorted(tags))),
    protect=st.booleans(),
    next=st.none()
    | st.builds(
        Next, ids, contents, st.sampled_from(["created", "training", "mismatch"]), st.none() | ids
    ),
    replaced=st.lists(
        st.builds(Replaced, ids, hostile, trainings.map(parameters), st.booleans()), max_size=3
    ).map(tuple),
)
paths = st.from_regex(r"[a-zé🐉 ]{1,8}(/[a-z#'\"]{1,8})?\.yaml", fullmatch=True)
targets = st.builds(TargetLock, st.none() | ids, st.dictionaries(paths, entries, max_size=3))
locks = st.builds(Lock, st.dictionaries(hostile, targets, max_size=2))


@settings(max_examples=size(50, 5000), deadline=None)
@given(locks)
def test_any_lock_comes_back_and_to_the_same_bytes(lock: Lock) -> None:
    text = dump(lock)
    assert parse(text) == lock
    assert dump(parse(text)).encode() == text.encode()
    unseen = {unicodedata.category(character) for character in text.replace("\n", "")}
    assert not unseen & {"Cc", "Zl", "Zp", "Cs"}


@settings(max_examples=size(40, 2000), deadline=None)
@given(locks)
def test_other_json_readers_and_the_schema_agree(lock: Lock) -> None:
    """The published schema is for editors and other programs; the decoder is as strict."""
    plain = json.loads(dump(lock))
    SCHEMA.validate(plain)
    assert {*plain["targets"]} == {*lock.targets}
    for key, target in lock.targets.items():
        for path, entry in target.recipes.items():
            read = plain["targets"][key]["recipes"][path]
            assert read["name"] == entry.name
            assert read.get("pins", {}) == dict(entry.pins)
            assert read.get("tags", []) == [*entry.tags]
            if entry.content:
                scales = [concept["scale"] for concept in read["content"]["concepts"]]
                assert scales == [concept.scale for concept in entry.content.concepts]
                assert parameters(read["content"].get("training")) == entry.content.training


def test_crlf_is_read() -> None:
    assert parse(SAMPLE.replace("\n", "\r\n")) == lock_of(KNIGHT)


def test_a_newer_version_is_refused_with_a_hint() -> None:
    newer = SAMPLE.replace('"version": 2,', '"version": 3,\n  "something": "new",')
    with pytest.raises(InvalidInput, match="newer compose") as caught:
        parse(newer)
    assert "upgrade" in str(caught.value.hint)


def test_a_text_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("composer.lock.document.MAX_BYTES", 100)
    refused(SAMPLE, "larger than 100 bytes")


def test_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_bytes(SAMPLE.encode("utf-16"))
    with pytest.raises(InvalidInput, match="UTF-8"):
        read_lock(tmp_path)


LINE = '          "composition": "{}",\n'
OURS, BASE, THEIRS = (LINE.format(id) for id in ("ours", "base", "theirs"))


def conflict(text: str) -> str:
    line = LINE.format("model_eyVcnFJcR92BxBkz7N6g5w")
    assert line in SAMPLE
    return SAMPLE.replace(line, text)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("base", ["", f"||||||| 1234567\n{BASE}"])
def test_the_sides_of_a_conflict_are_candidates(tmp_path: Path, base: str, end: str) -> None:
    text = conflict(f"<<<<<<< HEAD\n{OURS}{base}=======\n{THEIRS}>>>>>>> branch\n")
    (tmp_path / LOCK_NAME).write_bytes(text.replace("\n", end).encode())
    entry = read_conflicted(tmp_path).target(KEY).recipes["recipes/storybook-knight.yaml"]
    assert entry.composition == "ours"
    assert [(c.id, c.used) for c in entry.candidates] == [("theirs", True)]
    assert entry.content is None, "git may have mixed the lines"


def test_a_side_with_another_recipe_is_kept(tmp_path: Path) -> None:
    other = '        "recipes/other.yaml": {"name": "Other", "type": "flux.1-composition"},\n'
    first = '        "recipes/storybook-knight.yaml": {\n'
    text = SAMPLE.replace(first, f"<<<<<<< HEAD\n=======\n{other}>>>>>>> branch\n{first}")
    (tmp_path / LOCK_NAME).write_text(text, encoding="utf-8")
    assert {*read_conflicted(tmp_path).target(KEY).recipes} == {
        "recipes/storybook-knight.yaml",
        "recipes/other.yaml",
    }


@pytest.mark.parametrize(
    "text",
    [
        f"<<<<<<< HEAD\n{OURS}=======\n{THEIRS}",
        f"<<<<<<< HEAD\n{OURS}",
        f"<<<<<<< HEAD\n{OURS}>>>>>>> branch\n",
        f"<<<<<<< HEAD\n{OURS}<<<<<<< HEAD\n{OURS}=======\n{THEIRS}>>>>>>> branch\n",
        f"=======\n{THEIRS}>>>>>>> branch\n",
        f"{THEIRS}>>>>>>> branch\n",
        f"<<<<<<< HEAD\n{OURS}=======\n||||||| base\n{BASE}>>>>>>> branch\n",
    ],
)
def test_torn_markers_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK_NAME).write_text(conflict(text), encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"compose\.lock"):
        read_conflicted(tmp_path)


def test_reading_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text(SAMPLE, encoding="utf-8")
    memory = remember(tmp_path, KEY, state_of(tmp_path))
    assert memory.owner == OWNER and [*memory.entries] == ["recipes/storybook-knight.yaml"]
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]


@pytest.mark.parametrize("bytes", [64 * 2**20 + 1, 2**40])
def test_a_lock_is_measured_before_it_is_read(tmp_path: Path, bytes: int) -> None:
    path = tmp_path / LOCK_NAME
    path.touch()
    os.truncate(path, bytes)  # sparse: it takes no space
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match="larger than 64 MiB"):
            read_lock(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("mode", [0o000, 0o200])
def test_a_lock_that_may_not_be_read_is_invalid_input(tmp_path: Path, mode: int) -> None:
    path = tmp_path / LOCK_NAME
    path.write_text(SAMPLE, encoding="utf-8")
    for read in (read_lock, read_conflicted):
        with (
            closed(path, mode),
            pytest.raises(InvalidInput, match=r"^compose\.lock can't be read: Permission denied"),
        ):
            read(tmp_path)
    with closed(tmp_path, 0o600), pytest.raises(InvalidInput, match="can't be read"):
        read_lock(tmp_path)
