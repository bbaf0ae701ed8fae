"""Scales in a recipe's text: their characters change, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.model_types import TYPES
from support.sizes import size

from composer.recipes import parse
from composer.recipes.scales import with_scales

if TYPE_CHECKING:
    from composer.model import Recipe

# --- recipes in every spelling, with a hole at each scale --------------------------------

HOLE = "\0"
SPELLINGS = {  # a scale as people and programs write it, and what it is
    "0": 0, "1": 1, "0.5": 0.5, "0.50": 0.5, "00.5": 0.5, ".5": 0.5, "+0.5": 0.5, "+0.25": 0.25,
    "1.": 1, "1.0": 1, "-0": 0, "-0.0": 0, "5.0e-1": 0.5, "2.5E-1": 0.25, "0.000000": 0,
    "0x1": 1, "0x0": 0, "0.1234": 0.1234, "0.65": 0.65, ".0001": 0.0001, "1.0e+0": 1, ".5e+0": 0.5,
}  # fmt: skip
CONCEPTS = (  # `N` is the concept's number
    "  - name: Ink N\n    scale: \0\n",
    "  - scale: \0   # scale: 0.5, was 0.7\n    name: Ink N\n",
    "  - {name: Ink N, scale: \0}\n",
    '  - {"name":"Ink N \U0001f9d9 scale: 0.5","scale":\0}\n',
    "  - { scale : \0 , name : 'Ink N: scale: 0.5, it''s' }  # \u00e9\U0001f9d9\n",
    "  -   name: >-\n        Ink N\n\n      # a comment\n      scale:\n        \0\n",
    '  - "scale": \0\n    "modelId": model_N\n    modelEpoch: "000010"\n',
    "  - ? name\n    : Ink N\n    ? scale\n    : \0\n",
    "  -\n    modelId: 'model_N'\n    # scale: 0.5\n    scale:    \0\t\n",
    "  - {\n    name: Ink N,   # scale: 0.5}\n    scale: \0\n    }\n",
)
HEADS = ("", "# scale: 0.5\n", "---\n", "%YAML 1.2\n--- # \U0001f9d9\n", "\n\n")
TAILS = ("", "tags: [a, 'scale: 0.5']\n", "# the end: 0.5", "...\n", "\n \n", "protect: true")


class Sample(NamedTuple):
    """A recipe's text with holes, and what stands in them before and after."""

    text: str
    before: list[str]
    after: dict[int, float]

    def filled(self, scales: list[str]) -> bytes:
        """The text with these scales in its holes."""
        first, *rest = self.text.split(HOLE)
        pairs = zip(scales, rest, strict=True)
        return "".join([first, *(scale + piece for scale, piece in pairs)]).encode()


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    concepts = draw(st.lists(st.sampled_from(CONCEPTS), min_size=1, max_size=5))
    body = "".join(text.replace("N", str(n)) for n, text in enumerate(concepts))
    if draw(st.booleans()):
        body = f"concepts:\n{body}name: 'Storybook: scale: 0.5'\n"
    else:
        body = f"name: Storybook\nconcepts:  # scale: 0.5\n{body}"
    text = draw(st.sampled_from(HEADS)) + body + draw(st.sampled_from(TAILS))
    if draw(st.booleans()):
        text = text.removesuffix("\n")
    ends = draw(st.sampled_from([["\n"], ["\r\n"], ["\r"], ["\n", "\r\n", "\r"]]))
    first, *lines = text.split("\n")
    text = first + "".join(draw(st.sampled_from(ends)) + line for line in lines)
    bom = draw(st.sampled_from(["", "\ufeff"]))
    before = [draw(st.sampled_from([*SPELLINGS])) for _ in concepts]
    new = st.integers(0, 10_000).map(lambda n: n / 10_000) | st.sampled_from([0.5, 0.25, 1.0])
    after = draw(st.dictionaries(st.integers(0, len(concepts) - 1), new, max_size=5))
    return Sample(bom + text, before, after)


def read(text: bytes) -> Recipe:
    recipe, problems = parse(text, file="a.yaml", types=TYPES)
    assert recipe is not None, (text, problems)
    return recipe


@settings(max_examples=size(30, 5000), deadline=None)
@given(samples())
def test_only_the_characters_of_the_scales_change(sample: Sample) -> None:
    before = sample.filled(sample.before)
    changes = {n: s for n, s in sample.after.items() if SPELLINGS[sample.before[n]] != s}
    spelled = [f"{changes[n]:g}" if n in changes else s for n, s in enumerate(sample.before)]
    after = with_scales(before, sample.after)
    assert after == sample.filled(spelled)

    old = read(before)
    concepts = [replace(ref, scale=changes.get(n, ref.scale)) for n, ref in enumerate(old.concepts)]
    assert read(after) == replace(old, concepts=tuple(concepts))
    assert with_scales(after, sample.after) == after


def test_nothing_else_of_a_file_changes_beyond_0_and_1() -> None:
    text = b"scaleRange: extended\nname: A\nconcepts: [{name: B, scale: -1.5}, {name: C, scale: 2}]"
    assert with_scales(text, {0: 1.25, 1: -0.0001}) == text.replace(b"-1.5", b"1.25").replace(
        b"2}", b"-0.0001}"
    )


@pytest.mark.parametrize(
    "text",
    [
        b"name: [",
        b"",
        b"\xff\xfe",
        b"name: A\nconcepts:\n- &one {name: B, scale: 0.5}\n- *one\n",
        b"name: A\nconcepts:\n- {name: B, scale: &s 0.5}\n- {name: C, scale: *s}\n",
    ],
)
def test_what_is_no_recipe_is_not_changed(text: bytes) -> None:
    with pytest.raises(ValueError, match="not valid YAML"):
        with_scales(text, {0: 0.6})
