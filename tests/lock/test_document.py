"""The lock as text and as a file: one form everywhere, read with care, replaced in one step."""

from __future__ import annotations

import json
import os
import re
import tracemalloc
import unicodedata
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.model_types import COMPOSITION
from support.sizes import size
from support.state import state_of

from composer.errors import InvalidInput
from composer.files.schemas import schema
from composer.lock import LOCK_NAME, Ledger, dump, parse, read_conflicted, read_lock, remember
from composer.model import Concept, Content, Entry, Lock, Next, Replaced, TargetLock, parameters

AT = 'targets["https://api.cloud.scenario.com/v1"].recipes["recipes/storybook-knight.yaml"]'
SCHEMA = jsonschema.Draft7Validator(json.loads(schema("lock")))
REPO = Path(__file__).parents[2]
KEY = "https://api.cloud.scenario.com/v1"

SAMPLE = """\
{
  "about": "Written by compose. Commit it; do not edit it.",
  "version": 2,
  "targets": {
    "https://api.cloud.scenario.com/v1": {
      "owner": "team_U3Qmc8PCdWXwAQJ4Dvw4tV6D",
      "recipes": {
        "recipes/storybook-knight.yaml": {
          "name": "Storybook Knight",
          "type": "flux.1-composition",
          "pins": {
            "Storybook Watercolour": "model_V2anp75qTuKmmHOeInzQhg"
          },
          "composition": "model_eyVcnFJcR92BxBkz7N6g5w",
          "job": "job_ocZCnG1Df35XRL1QyCZSRxAG8",
          "content": {
            "concepts": [
              {
                "modelId": "model_I3fUkYcTSYPEkhvYMDvSQ",
                "modelEpoch": "000010",
                "scale": 0.8
              },
              {
                "modelId": "model_V2anp75qTuKmmHOeInzQhg",
                "scale": 0.65
              }
            ],
            "training": {
              "rank": 32
            }
          },
          "tags": [
            "knights",
            "tutorial"
          ],
          "protect": false,
          "next": {
            "composition": "model_next",
            "job": "job_next",
            "content": {
              "concepts": [
                {
                  "modelId": "model_V2anp75qTuKmmHOeInzQhg",
                  "scale": 1
                }
              ]
            },
            "state": "training"
          },
          "replaced": [
            {
              "id": "model_old",
              "name": "Storybook Knight",
              "training": {
                "samplePrompts": [
                  "a knight",
                  "a \\"rogue\\""
                ]
              },
              "protect": true
            }
          ]
        }
      }
    }
  }
}
"""

KNIGHT = Entry(
    name="Storybook Knight",
    pins=(("Storybook Watercolour", "model_V2anp75qTuKmmHOeInzQhg"),),
    composition="model_eyVcnFJcR92BxBkz7N6g5w",
    job="job_ocZCnG1Df35XRL1QyCZSRxAG8",
    content=Content.of(
        COMPOSITION,
        [
            Concept("model_V2anp75qTuKmmHOeInzQhg", 0.65),
            Concept("model_I3fUkYcTSYPEkhvYMDvSQ", 0.8, "000010"),
        ],
        parameters({"rank": 32}),
    ),
    tags=("knights", "tutorial"),
    next=Next(
        "model_next",
        Content.of(COMPOSITION, [Concept("model_V2anp75qTuKmmHOeInzQhg", 1.0)]),
        "training",
        "job_next",
    ),
    replaced=(
        Replaced(
            "model_old",
            "Storybook Knight",
            parameters({"samplePrompts": ["a knight", 'a "rogue"']}),
            protect=True,
        ),
    ),
)
OWNER = "team_U3Qmc8PCdWXwAQJ4Dvw4tV6D"


def lock_of(entry: Entry, path: str = "recipes/storybook-knight.yaml") -> Lock:
    return Lock({KEY: TargetLock(OWNER, {path: entry})})


# --- writing -------------------------------------------------------------------------------


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


# --- reading -------------------------------------------------------------------------------


def refused(text: str, match: str) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        parse(text)
    assert caught.value.exit_status == 65
    assert "\n" not in str(caught.value)


def test_crlf_is_read() -> None:
    assert parse(SAMPLE.replace("\n", "\r\n")) == lock_of(KNIGHT)


def test_a_newer_version_is_refused_with_a_hint() -> None:
    newer = SAMPLE.replace('"version": 2,', '"version": 3,\n  "something": "new",')
    with pytest.raises(InvalidInput, match="newer compose") as caught:
        parse(newer)
    assert "upgrade" in str(caught.value.hint)


def test_duplicate_keys_are_refused() -> None:
    twice = SAMPLE.replace('"protect": false,', '"protect": false,\n"protect": true,')
    refused(twice, re.escape(f'{AT}: the key "protect" occurs twice'))
    refused(SAMPLE.replace('"version": 2,', '"version": 2, "version": 2,'), "top level: the key")


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_json_is_refused(opening: str) -> None:
    refused('{"version": 2, "targets": ' + opening * 200_000, r"compose\.lock: not JSON: nested")


def test_a_number_that_takes_long_to_read_is_refused() -> None:
    refused(SAMPLE.replace('"rank": 32', f'"rank": {"9" * 100_000}'), "digits")


def test_a_text_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("composer.lock.document.MAX_BYTES", 100)
    refused(SAMPLE, "larger than 100 bytes")


@pytest.mark.parametrize("id", ["../x", "a?b#", "", "x" * 65, "a b", "é", "x\\n"])
@pytest.mark.parametrize(
    "place",
    ["model_eyVcnFJcR92BxBkz7N6g5w", "model_next", "model_old", "job_next", "000010", OWNER],
)
def test_what_is_no_id_is_refused(id: str, place: str) -> None:
    refused(SAMPLE.replace(f'"{place}"', f'"{id}"'), r"compose\.lock")


@pytest.mark.parametrize(
    "path",
    ["../x.yaml", "/etc/x", "C:\\\\x", "C:/x", "a/../../x", "a\\\\..\\\\x", "", "..", "a\\0"],
)
def test_what_is_no_path_inside_is_refused(path: str) -> None:
    refused(SAMPLE.replace("recipes/storybook-knight.yaml", path), "inside the project|not JSON")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "just text",
        '{"version": 2}',
        '{"version": "2", "targets": {}}',
        '{"version": true, "targets": {}}',
        '{"version": 1, "targets": {}}',
        "version: 1\ntargets: {}\n",
        '{"targets": {}}',
        '{"version": 2, "targets": []}',
        '{"version": 2, "targets": {}} {}',
        '{"version": 2, "targets": {},}',
        "{",
        "\x00",
        "\ufeff{}",
    ],
)
def test_what_is_no_lock_is_refused(text: str) -> None:
    refused(text, r"compose\.lock")


def test_what_is_not_json_is_refused_with_its_line() -> None:
    refused(SAMPLE.replace('"protect": false,', '"protect": no,'), r"compose\.lock:36:22: not JSON")


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        ('"scale": 0.65', '"scale": "0.65"', ".content.concepts[1].scale: is a string, not"),
        ('"scale": 0.65', '"scale": 1e999', ".content.concepts[1].scale: the number is too"),
        ('"scale": 0.65', '"scale": true', ".content.concepts[1].scale: is true or false, not"),
        ('"scale": 0.65', '"weight": 0.65', '.content.concepts[1]: the key "scale" is missing'),
        ('"protect": false', '"protect": "no"', ".protect: is a string, not true or false"),
        ('"protect": false', '"protect": null', ".protect: is null, not true or false"),
        ('"state": "training"', '"state": "done"', '.next.state: "done" is not one of created'),
        ('"protect": false', '"price": 3', ': unknown key "price"'),
        ('"rank": 32', '"rank": {}', ".content.training.rank: is an object, not a number"),
        ('"rank": 32', '"ra nk": 32', '.content.training["ra nk"]: is not the name'),
        ('"name": "Storybook Knight",\n          "type"', '"type"', ': the key "name" is missing'),
        ('"id": "model_old"', '"id": 7', ".replaced[0].id: 7 is not an id"),
    ],
)
def test_what_is_wrong_is_named_by_its_json_path(before: str, after: str, place: str) -> None:
    assert before in SAMPLE
    refused(SAMPLE.replace(before, after, 1), re.escape(f"compose.lock: {AT}{place}"))


def test_nan_is_refused() -> None:
    refused(SAMPLE.replace('"scale": 0.65', '"scale": NaN'), "not JSON: NaN")


def test_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_bytes(SAMPLE.encode("utf-16"))
    with pytest.raises(InvalidInput, match="UTF-8"):
        read_lock(tmp_path)


# --- conflicts -----------------------------------------------------------------------------

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


# --- the file ------------------------------------------------------------------------------


def test_equal_locks_leave_bytes_and_mtime(tmp_path: Path) -> None:
    path = tmp_path / LOCK_NAME
    for data in (SAMPLE.encode(), SAMPLE.replace("\n", "\r\n").encode()):
        path.write_bytes(data)
        os.utime(path, (1, 1))
        assert not Ledger(tmp_path, KEY, state_of(tmp_path)).close(handled=[], owner=OWNER)
        assert path.read_bytes() == data and path.stat().st_mtime == 1


def test_other_targets_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text(SAMPLE, encoding="utf-8")
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    ledger.record("a.yaml", Entry("Knight"))
    assert ledger.close(handled=["a.yaml"])
    lock = read_lock(tmp_path)
    assert lock.target(KEY) == lock_of(KNIGHT).target(KEY)
    assert lock.target("local").recipes == {"a.yaml": Entry("Knight")}


def test_an_id_that_becomes_current_leaves_replaced(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "local", state_of(tmp_path))
    ledger.record("a.yaml", Entry("A", composition="one", replaced=(Replaced("two", "A"),)))
    ledger.record("b.yaml", Entry("B", composition="two"))
    ledger.close(handled=["a.yaml", "b.yaml"])
    assert read_lock(tmp_path).target("local").recipes["a.yaml"].replaced == ()


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
