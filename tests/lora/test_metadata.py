"""What a composed file says about itself: the Model Spec's fields, its origin, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sizes import size

from composer import __version__
from composer.lora import read
from composer.lora.fingerprint import Fingerprint, Part
from composer.lora.metadata import (
    PHRASE_LIMIT,
    PHRASES_LIMIT,
    TITLE_LIMIT,
    described,
    trigger_phrase,
    triggers,
)
from composer.lora.signature import Hashes

FILE = read(Path(__file__).parents[2] / "recipes/loras/ink-lines.safetensors")


def part(hashes: Hashes, scale: float, metadata: dict[str, str]) -> Part:
    """A part of a composition whose file says this about itself."""
    fingerprint = Fingerprint(FILE.path, "", True, hashes, None, FILE.family.types.lora, 0)
    return Part(fingerprint, replace(FILE, metadata=metadata), scale)


def saying(other: Part, metadata: dict[str, str]) -> Part:
    return replace(other, file=replace(other.file, metadata=metadata))


INK = part(Hashes("aa" * 32), 0.5, {"modelspec.trigger_phrase": "ink lines"})
DUST = part(Hashes("bb" * 32, "cc" * 32), 0.25, {"trigger_word": " pxl  dust\n"})


def test_every_field() -> None:
    assert described("model_k", [INK, DUST], format="diffusers") == {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "flux-1-dev/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": "model_k",
        "modelspec.merged_from": f"{INK.id}, {DUST.id}",
        "modelspec.trigger_phrase": "ink lines, pxl dust",
        "compose.concepts": json.dumps(
            [
                {"modelId": INK.id, "sha256": "aa" * 32, "scale": 0.5},
                {
                    "modelId": DUST.id,
                    "sha256": "bb" * 32,
                    "configSha256": "cc" * 32,
                    "scale": 0.25,
                },
            ],
            separators=(",", ":"),
        ),
        "compose.version": __version__,
    }


def test_what_was_asked_for_and_the_other_format() -> None:
    said = described("k", [INK], format="kohya", rank=16, precision="bfloat16")
    assert (said["compose.rank"], said["compose.precision"]) == ("16", "bfloat16")
    assert said["modelspec.implementation"] == "https://github.com/black-forest-labs/flux"


@pytest.mark.parametrize("scale", [0.0, -0.5])
def test_what_is_taken_away_triggers_nothing(scale: float) -> None:
    said = described("k", [replace(INK, scale=scale), DUST], format="diffusers")
    assert said["modelspec.trigger_phrase"] == "pxl dust"
    assert "modelspec.trigger_phrase" not in described(
        "k", [replace(INK, scale=scale)], format="diffusers"
    )


def test_a_phrase_counts_once_and_in_order() -> None:
    again = saying(DUST, {"modelspec.trigger_phrase": "ink lines"})
    assert (
        described("k", [INK, again], format="diffusers")["modelspec.trigger_phrase"] == "ink lines"
    )


def test_tags_of_every_image_trigger_where_the_file_names_no_phrase() -> None:
    tagged = saying(DUST, {"ss_tag_frequency": json.dumps({"4_ink": {"inklines": 40, "pen": 31}})})
    said = described("k", [INK, tagged])
    assert said["modelspec.trigger_phrase"] == "ink lines, inklines"
    long = saying(DUST, {"ss_tag_frequency": json.dumps({"1_a": {"x" * 280: 3}})})
    assert "modelspec.trigger_phrase" not in described("k", [long])


def test_the_specs_own_field_wins_over_older_habits() -> None:
    notes = {"trigger_word": "b", "trigger_phrase": " ", "modelspec.trigger_phrase": "a"}
    assert trigger_phrase(notes) == "a"
    assert trigger_phrase(notes | {"modelspec.trigger_phrase": "\u202e\x07"}) == "b"
    assert trigger_phrase({}) == ""


@given(st.lists(st.text(max_size=3000), max_size=8), st.text(max_size=600))
@settings(max_examples=size(100, 5000))
def test_strangers_texts_are_bounded_and_printable(phrases: list[str], title: str) -> None:
    parts = [saying(INK, {"trigger_word": phrase}) for phrase in phrases]
    tags = [json.dumps({"9_a": {phrase: 9}}) for phrase in phrases]
    parts += [saying(INK, {"ss_tag_frequency": text}) for text in tags]
    said = described(title, parts, format="diffusers")
    assert len(said["modelspec.title"]) <= TITLE_LIMIT
    joined = said.get("modelspec.trigger_phrase", "")
    assert len(joined) <= PHRASES_LIMIT
    assert all(text.isprintable() for text in (joined, said["modelspec.title"]))
    assert all(len(trigger_phrase(part.file.metadata)) <= PHRASE_LIMIT for part in parts)
    assert said == described(title, parts, format="diffusers")


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, ()),
        ({"ss_tag_frequency": {"10_ink": {"inkstyle": 20, "cat": 7}}}, ("inkstyle",)),
        (
            {"ss_tag_frequency": {"a": {"ink": 9, "paper": 9, "cat": 3}, "b": {"ink": 4}}},
            ("ink", "paper"),
        ),
        ({"ss_tag_frequency": {"10_ink": {"a long caption": 1, "another one": 1}}}, ()),
        ({"ss_tag_frequency": {"a": dict.fromkeys("vwxyz", 8)}}, ()),
        (
            {
                "ss_tag_frequency": {"10_ink": {"cat": 7, "dog": 3}},
                "ss_dataset_dirs": {"10_ink": {"n_repeats": 10, "img_count": 20}},
            },
            (),
        ),
        (
            {
                "ss_tag_frequency": {"10_ink": {"ink": 20, "dog": 3}},
                "ss_dataset_dirs": {"10_ink": {"n_repeats": 10, "img_count": 20}},
            },
            ("ink",),
        ),
        ({"ss_datasets": [{"tag_frequency": {"img": {"ink": 5}}}, 3]}, ("ink",)),
        (
            {"ss_tag_frequency": {"a": {"ink": 9}}, "modelspec.trigger_phrase": "in ink style"},
            ("in ink style",),
        ),
        ({"ss_dataset_dirs": {"a": {"img_count": "20"}}, "ss_tag_frequency": {"a": []}}, ()),
        ({"ss_dataset_dirs": [], "ss_datasets": {"a": 1}, "ss_tag_frequency": 3}, ()),
    ],
)
def test_trigger_words(metadata: dict[str, object], expected: tuple[str, ...]) -> None:
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
    assert triggers(texts) == expected
