"""Every code has a small broken file, with the whole report that it must get beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.model_types import TYPES

from composer.recipes import CODES
from composer.recipes.parsing import parse

FOLDER = Path(__file__).parent / "broken_recipes"
FILES = sorted(FOLDER.glob("*.yaml"))
LOADERS = [yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)]

# These need more than one small file: their cases are in test_loading.py.
ELSEWHERE = {"E301", "E302", "E303", "E304", "E305", "E306"}


@pytest.mark.parametrize("loader", LOADERS, ids=["python", "libyaml"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_broken_file_gets_the_whole_report_beside_it(file: Path, loader: type) -> None:
    parsed = parse(file.read_bytes(), file=file.name, loader=loader, types=TYPES)

    lines = [f"{p.line}:{p.column} {p.code} {p.message}\n    {p.hint}\n" for p in parsed.problems]
    assert "".join(lines) == file.with_suffix(".txt").read_text(encoding="utf-8")
    assert file.stem in {problem.code for problem in parsed.problems}
    assert parsed.recipe is None


def test_every_code_of_the_table_has_a_case() -> None:
    assert {file.stem for file in FILES} | ELSEWHERE == set(CODES)
    assert list(CODES) == sorted(CODES)


def test_every_expectation_has_its_file() -> None:
    assert {file.stem for file in FOLDER.glob("*.txt")} == {file.stem for file in FILES}
