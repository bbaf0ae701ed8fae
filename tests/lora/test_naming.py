"""Titles and file names as the names of LoRAs: what they mean, and that it does not change."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sizes import size

from composer.lora.naming import Names, copies_order, name_all, plain, stem_of, title_of


def meaning(folder: dict[str, str | None]) -> dict[str, set[str]]:
    """What each name means: the LoRAs that have it, by the place of their file."""
    named = name_all({place: Names.of(title, [place], place) for place, title in folder.items()})
    every = {name for names in named.values() for name in names}
    return {name: {key for key, names in named.items() if name in names} for name in every}


A, B, C = "a.safetensors", "b.safetensors", "c.safetensors"


@pytest.mark.parametrize(
    ("folder", "name", "expected"),
    [
        ({A: "Ink"}, "Ink", {A}),
        ({A: "Ink"}, "a", {A}),
        ({A: "Ink", B: "Ink"}, "Ink", {A, B}),
        ({A: "Ink", B: "Ink"}, "b", {B}),
        ({A: "a", B: "a"}, "a", {A}),  # the last checkpoint, and an earlier one
        ({A: "b", B: None}, "b", {B}),
        ({A: "b", B: "Ink"}, "b", {A, B}),  # neither is meant without doubt
        ({A: "b", B: "a"}, "a", {A, B}),
        ({"p/a.safetensors": None, "q/a.safetensors": None}, "p/a", {"p/a.safetensors"}),
        ({"p/a.safetensors": "x", "q/a.safetensors": "y"}, "q/a", {"q/a.safetensors"}),
        ({"p/a.safetensors": "x", "q/b.safetensors": "p/a"}, "b", {"q/b.safetensors"}),
    ],
)
def test_what_a_name_means(folder: dict[str, str | None], name: str, expected: set[str]) -> None:
    assert meaning(folder)[name] == expected


_words = st.sampled_from(["a", "b", "c", "p/a", "Ink"])
_folders = st.dictionaries(_words.map("{}.safetensors".format), st.none() | _words, max_size=5)


@given(_folders)
@settings(max_examples=size(100, 5000))
def test_every_file_has_names(folder: dict[str, str | None]) -> None:
    named = name_all({place: Names.of(title, [place], place) for place, title in folder.items()})
    meant = meaning(folder)
    for place, names in named.items():
        assert stem_of(place) in names
        if any(meant[name] == {place} for name in names):
            assert meant[names[0]] == {place}  # its own name is one that is nobody else's


@given(_folders, _words.map("{}.safetensors".format), st.none() | _words)
@settings(max_examples=size(100, 5000))
def test_a_new_file_takes_no_name_from_another_but_its_own(
    folder: dict[str, str | None], place: str, title: str | None
) -> None:
    """A title in a stranger's file can make a name ambiguous, but not mean that file instead."""
    before = meaning({key: folder[key] for key in folder if key != place})
    after = meaning({**folder, place: title})
    for name, meant in before.items():
        if len(meant) == 1 and name not in (stem_of(place), place.rpartition(".")[0]):
            assert meant <= after[name]


def test_equal_files_share_their_names() -> None:
    names = Names.of("Ink", ["ink.safetensors", "old/line.safetensors"], "id")
    assert name_all({"id": names}) == {"id": ("Ink", "ink", "line", "old/line")}


def test_the_copy_to_keep_is_the_plainest() -> None:
    places = ["old/ink.safetensors", "ink (1).safetensors", "ink copy.safetensors"]
    assert min([*places, "ink.safetensors"], key=copies_order) == "ink.safetensors"


@pytest.mark.parametrize(
    ("metadata", "title"),
    [
        ({}, None),
        ({"ss_output_name": "None"}, None),
        ({"modelspec.title": " ", "ss_output_name": " ink "}, "ink"),
        ({"modelspec.title": "Ink", "ss_output_name": "ink"}, "Ink"),
        ({"modelspec.title": "model_a", "compose.concepts": "[]"}, None),
    ],
)
def test_titles(metadata: dict[str, str], title: str | None) -> None:
    assert title_of(metadata) == title


def test_an_untrusted_text_is_one_plain_line() -> None:
    assert plain("Two\n lines\t and \u202ebidi\x07", 100) == "Two lines and bidi"
    assert plain("x" * 500, 10) == "x" * 10
