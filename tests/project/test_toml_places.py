"""Places in TOML: every key, value and item stands in the text where the tree says."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from support.sizes import size

from composer.project.toml_places import tree

if TYPE_CHECKING:
    from composer.recipes.yaml_tree import Node

HARD = ["a", "", "# no comment", "x = 1", "[t]", '"', "'", "\\", "]", ",", "=", "ä\n", '"""', "'''"]
TEXTS = st.sampled_from(HARD) | st.text(st.characters(codec="utf-8", exclude_characters="\x7f"))


def basic(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def multi(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    plain = "".join(c if c >= " " or c == "\n" else f"\\u{ord(c):04x}" for c in escaped)
    return f'"""\n{plain}"""'


def literal(text: str) -> str:
    """Quotes at the end belong to the text, as TOML says."""
    body = "".join(c for c in text if c >= " ").replace("'''", "")
    return f"'''{body}'''"


STRINGS = st.builds(
    lambda write, text: write(text), st.sampled_from([basic, multi, literal]), TEXTS
)
SPACES = st.sampled_from(["", " ", "\n", "  # ] , [ comment\n", "\r\n\t"])
ARRAYS = st.builds(
    lambda items, before, after: "[" + ",".join(before + i + after for i in items) + before + "]",
    st.lists(STRINGS | st.sampled_from(["1", "[1, [2]]", "{a = [1], b = 'x,'}"]), max_size=3),
    SPACES,
    SPACES,
)
VALUES = STRINGS | ARRAYS | st.sampled_from(["1", "-2.5", "inf", "true", "2026-11-29 10:00:00"])
LINES = st.sampled_from(["", "# a comment = [", "\t"])
TABLES = "[t.u]\na = 1\n[[v]]\nb = 1\n[[t.u.w]]\n[t.u.w.x]\n"
KEYS = ["a", "b", '"a b"', "'c]'", '"d=\\u0041"', "e.f", '"g".h', "i . j"]


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[str, tuple[int, str]]]:
    """A text, and for each top-level key the offset of its value and that value's text."""
    text, places = "", {}
    for key in draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=5)):
        value = draw(VALUES)
        text += f"{draw(LINES)}\n  {key} ="
        name = next(iter(tomllib.loads(f"{key}=0")))
        places[name] = (len(text), value)
        text += f"{value} # end\n"
    return text + draw(st.sampled_from(["", TABLES])), places


@given(documents())
@settings(max_examples=size(25, 3_000), deadline=None)
def test_every_value_is_where_the_tree_says(made: tuple[str, dict[str, tuple[int, str]]]) -> None:
    text, places = made
    document = tomllib.loads(text)
    root = tree(text, document)
    assert root.value == document
    assert list(root.keys) == list(document)
    rows = text.split("\n")
    for name, (offset, _) in places.items():
        node, row = root.children[name], text[:offset].count("\n")
        column = offset - sum(len(line) + 1 for line in rows[:row])
        assert node.place == (row + 1, column + 1)
        if isinstance(node.value, list):
            assert [child.value for child in node.children.values()] == node.value
            for child in node.children.values():
                assert rows[child.place.line - 1][child.place.column - 1 :].startswith(
                    child.text.split("\n")[0]
                )
    for name in ("t", "v"):
        if name in document:
            line = rows[root.keys[name].line - 1]
            assert line.startswith("[")


def test_tables_have_places_however_they_are_written() -> None:
    text = (
        "[previews]\n"
        "seeds = [7, 8]\n"
        'prompts = [\n  "a",\n  "b",\n]\n'
        "[previews.look]\n"
        "width = 512\n"
        "[ other . 'x y' ]\n"
        "steps = 4\n"
    )
    root = tree(text, tomllib.loads(text))
    places = {path: tuple(root.at(path).place) for path in paths(root)}
    assert places == {
        ("previews",): (1, 1),
        ("previews", "seeds"): (2, 9),
        ("previews", "seeds", 0): (2, 10),
        ("previews", "seeds", 1): (2, 13),
        ("previews", "prompts"): (3, 11),
        ("previews", "prompts", 0): (4, 3),
        ("previews", "prompts", 1): (5, 3),
        ("previews", "look"): (7, 1),
        ("previews", "look", "width"): (8, 9),
        ("other",): (9, 1),
        ("other", "x y"): (9, 1),
        ("other", "x y", "steps"): (10, 9),
    }
    braces = 'previews = {seeds = [7], look = {width = 512}, "q" = "}"}\nother.a.b = 1\n'
    root = tree(braces, tomllib.loads(braces))
    assert root.at(["previews"]).keys == {"seeds": (1, 13), "look": (1, 26), "q": (1, 48)}
    assert root.at(["previews", "seeds", 0]).place == (1, 22)
    assert root.at(["previews", "look", "width"]).place == (1, 42)
    assert root.at(["other", "a", "b"]).place == (2, 13)


def paths(node: Node) -> list[tuple[str | int, ...]]:
    return [
        path
        for key, child in node.children.items()
        for path in [(key,), *((key, *below) for below in paths(child))]
    ]
