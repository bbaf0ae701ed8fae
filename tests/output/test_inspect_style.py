"""The colours of the page of inspections: digits can be read on every cell, light and dark."""

from __future__ import annotations

import re

import pytest
from support.colours import contrast

from composer.output.inspect_style import style
from composer.output.pages import page

LIGHT, DARK = style({2}, {3}).split("@media (prefers-color-scheme: dark)", 1)
DARK = DARK.partition("body {")[0]


def test_the_measure_of_contrast() -> None:
    assert contrast("#fff", "#000000") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("rules", [LIGHT, DARK], ids=["light", "dark"])
def test_digits_have_enough_contrast(rules: str) -> None:
    cells = re.findall(r"\.(\w+) \{ background: (#\w+); color: (#\w+); \}", rules)
    assert {name for name, _, _ in cells} == {"none"} | {f"{s}{n}" for s in "ao" for n in "1234"}
    assert {name: contrast(*pair) for name, *pair in cells if contrast(*pair) < 4.5} == {}
    variables = dict(re.findall(r"--(\w+): (#\w+);", rules))
    assert contrast(variables["ink"], variables["paper"]) >= 4.5
    assert contrast(variables["dim"], variables["paper"]) >= 4.5
    assert contrast(variables["bar"], variables["none"]) >= 3  # a drawing needs that


def test_only_a_table_that_does_not_fit_has_a_cue() -> None:
    rules = style({2, 12}, {3})
    limits = re.findall(r"max-width: ([\d.]+)rem\) \{ \.(\w+-\d+) > \.cue", rules)
    assert limits == [("15.2", "matrix-2"), ("51.2", "matrix-12"), ("29", "numbers-3")]
    assert ".cue { display: none;" in rules


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_has_the_colours_of_all_pages(scheme: str) -> None:
    """One family: what both name has the same colour."""
    other = page("base.html", title="").partition("@media (prefers-color-scheme: dark)")
    sheets = {"light": (LIGHT, other[0]), "dark": (DARK, other[2].partition("@media print")[0])}
    own, shared = (dict(re.findall(r"--(\w+): (#\w+);", sheet)) for sheet in sheets[scheme])
    assert len({*own} & {*shared}) >= 6
    assert {name: own[name] for name in own if name in shared and own[name] != shared[name]} == {}
