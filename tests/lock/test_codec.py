"""Values of the lock and JSON: what is refused, and the place that a refusal names."""

from __future__ import annotations

import re

import pytest
from support.lock_samples import OWNER, SAMPLE, refused

AT = 'targets["https://api.cloud.scenario.com/v1"].recipes["recipes/storybook-knight.yaml"]'


def test_duplicate_keys_are_refused() -> None:
    twice = SAMPLE.replace('"protect": false,', '"protect": false,\n"protect": true,')
    refused(twice, re.escape(f'{AT}: the key "protect" occurs twice'))
    refused(SAMPLE.replace('"version": 2,', '"version": 2, "version": 2,'), "top level: the key")


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_json_is_refused(opening: str) -> None:
    refused('{"version": 2, "targets": ' + opening * 200_000, r"compose\.lock: not JSON: nested")


def test_a_number_that_takes_long_to_read_is_refused() -> None:
    refused(SAMPLE.replace('"rank": 32', f'"rank": {"9" * 100_000}'), "digits")


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
        ('"scale": 0.65', '"scale": 1e999', ".content.concepts[1].scale: is not a finite"),
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
